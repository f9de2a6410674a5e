/* What the development harness calls through ctypes: plain numbers in, the backend's structs out.
 */
#include "cuda/dilated_attention_sm90.cuh"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

static char message[512];
static int64_t scratch;

extern "C" lnet_status lnet_fail(lnet_status code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return code;
}

extern "C" const char *dev_message(void) {
    return message;
}

/* Bytes that the last call took beside its tensors. */
extern "C" int64_t dev_scratch(void) {
    return scratch;
}

lnet_status lnet_cuda_check(cudaError_t error, const char *call) {
    if (error == cudaSuccess) return LNET_OK;
    return lnet_fail(LNET_DEVICE_ERROR, "%s: %s", call, cudaGetErrorString(error));
}

static lnet_status alloc(void **memory, int64_t bytes, lnet_stream *stream) {
    static const cudaError_t kept = [] {
        cudaMemPool_t pool;
        uint64_t all = UINT64_MAX;
        cudaError_t error = cudaDeviceGetDefaultMemPool(&pool, 0);
        return error ? error
                     : cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all);
    }();
    lnet_status status = lnet_cuda_check(kept, "memory pool");
    scratch = bytes;
    return status ? status
                  : lnet_cuda_check(cudaMallocAsync(memory, static_cast<size_t>(bytes),
                                                    lnet_cuda_stream(stream)),
                                    "cudaMallocAsync");
}

static void release(void *memory, int64_t bytes, lnet_stream *stream) {
    (void)bytes;
    cudaFreeAsync(memory, lnet_cuda_stream(stream));
}

static const lnet_host host = {lnet_fail, nullptr, alloc, release};
const lnet_host *lnet_cuda_host = &host;

static lnet_tensor tensor(void *data, lnet_dtype dtype, int ndim, const int64_t *shape) {
    lnet_tensor t = {};
    t.data = data;
    t.dtype = dtype;
    t.device = {LNET_CUDA, 0};
    t.ndim = ndim;
    int64_t stride = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.strides[i] = stride;
        stride *= shape[i];
    }
    return t;
}

/* The tensors and options of a call. sizes: B N H Hk D, levels, offsets, causal, zero_keys,
 * bfloat16, documents. */
struct call {
    int64_t q_shape[4], k_shape[4], lse_shape[3], documents[1];
    lnet_dtype dtype;
    lnet_tensor lengths, cu_seqlens, tensors[16];
    int used = 0;
    lnet_dilation dilation = {};

    call(const int64_t *sizes, const int64_t *w, const int64_t *r, double scale, void *rows,
         void *begins)
        : q_shape{sizes[0], sizes[1], sizes[2], sizes[4]},
          k_shape{sizes[0], sizes[1], sizes[3], sizes[4]}, lse_shape{sizes[0], sizes[2], sizes[1]},
          documents{sizes[10] + 1}, dtype(sizes[9] ? LNET_BFLOAT16 : LNET_FLOAT16),
          lengths(tensor(rows, LNET_INT64, 1, q_shape)),
          cu_seqlens(tensor(begins, LNET_INT64, 1, documents)) {
        dilation.segment_lengths = {w, sizes[5]};
        dilation.dilation_rates = {r, sizes[5]};
        dilation.offsets = sizes[6];
        dilation.causal = sizes[7] != 0;
        dilation.zero_keys = sizes[8] != 0;
        dilation.scale = scale;
        dilation.lengths = rows ? &lengths : nullptr;
        dilation.cu_seqlens = begins ? &cu_seqlens : nullptr;
    }
    lnet_tensor *add(lnet_tensor t) { return &(tensors[used++] = t); }
    lnet_tensor *q(void *data) { return add(tensor(data, dtype, 4, q_shape)); }
    lnet_tensor *k(void *data) { return add(tensor(data, dtype, 4, k_shape)); }
    lnet_tensor *lse(void *data) { return add(tensor(data, LNET_FLOAT32, 3, lse_shape)); }
};

extern "C" int dev_forward(void *out, void *lse, void *q, void *k, void *v, const int64_t *sizes,
                           const int64_t *w, const int64_t *r, double scale, void *lengths,
                           void *cu_seqlens, void *stream) {
    call c(sizes, w, r, scale, lengths, cu_seqlens);
    const lnet_dilated_attention_args args = {c.q(out), c.lse(lse), c.q(q),
                                              c.k(k),   c.k(v),     c.dilation};
    lnet_stream queue = {};
    queue.handle = stream;
    return lnet_sm90_dilated_attention(&args, &queue);
}

extern "C" int dev_backward(void *dq, void *dk, void *dv, void *dout, void *q, void *k, void *v,
                            void *out, void *lse, const int64_t *sizes, const int64_t *w,
                            const int64_t *r, double scale, void *lengths, void *cu_seqlens,
                            void *stream) {
    call c(sizes, w, r, scale, lengths, cu_seqlens);
    const lnet_dilated_attention_backward_args args = {
        c.q(dq), c.k(dk), c.k(dv), c.q(dout), c.q(q), c.k(k), c.k(v), c.q(out), c.lse(lse),
        c.dilation};
    lnet_stream queue = {};
    queue.handle = stream;
    return lnet_sm90_dilated_attention_backward(&args, &queue);
}
