/* What the development harness calls through ctypes: plain numbers in, the backend's structs out.
 */
#include "dilated_attention_sm90.h"

#include <stdio.h>

static char message[512];

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

/* sizes: B N H Hk D, levels, offsets, causal, zero_keys, bfloat16, documents. scratch NULL: only
 * asks how much is needed. */
extern "C" int dev_forward(void *out, void *lse, void *q, void *k, void *v, const int64_t *sizes,
                           const int64_t *w, const int64_t *r, double scale, void *lengths,
                           void *cu_seqlens, void *scratch, size_t *scratch_bytes, void *stream) {
    const int64_t q_shape[] = {sizes[0], sizes[1], sizes[2], sizes[4]};
    const int64_t k_shape[] = {sizes[0], sizes[1], sizes[3], sizes[4]};
    const int64_t lse_shape[] = {sizes[0], sizes[2], sizes[1]};
    const int64_t documents[] = {sizes[10] + 1};
    const lnet_dtype dtype = sizes[9] ? LNET_BFLOAT16 : LNET_FLOAT16;
    lnet_tensor out_t = tensor(out, dtype, 4, q_shape),
                lse_t = tensor(lse, LNET_FLOAT32, 3, lse_shape);
    lnet_tensor q_t = tensor(q, dtype, 4, q_shape), k_t = tensor(k, dtype, 4, k_shape);
    lnet_tensor v_t = tensor(v, dtype, 4, k_shape);
    lnet_tensor lengths_t = tensor(lengths, LNET_INT64, 1, q_shape);
    lnet_tensor cu_t = tensor(cu_seqlens, LNET_INT64, 1, documents);
    lnet_dilated_attention_args args = {};
    args.out = &out_t;
    args.lse = &lse_t;
    args.q = &q_t;
    args.k = &k_t;
    args.v = &v_t;
    args.dilation.segment_lengths = {w, sizes[5]};
    args.dilation.dilation_rates = {r, sizes[5]};
    args.dilation.offsets = sizes[6];
    args.dilation.causal = sizes[7] != 0;
    args.dilation.zero_keys = sizes[8] != 0;
    args.dilation.scale = scale;
    args.dilation.lengths = lengths ? &lengths_t : nullptr;
    args.dilation.cu_seqlens = cu_seqlens ? &cu_t : nullptr;
    if (!scratch) return lnet_sm90_dilated_attention_scratch(&args, scratch_bytes);
    return lnet_sm90_dilated_attention(&args, scratch, static_cast<lnet_stream *>(stream));
}
