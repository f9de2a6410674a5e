/* The op matmul: products by cuBLASLt, and kernels for what its epilogues do not take. */
#include "cuda/product.cuh"

extern "C" {
#include "ops/matmul.h"
}

#include <algorithm>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

constexpr int THREADS = 256;
constexpr int64_t MAX_BLOCKS = 4096;

/* out (M, N) = bias + c, each 0 where it is NULL; `c` may be `out`. */
template <typename T>
static __global__ void fill_rows(T *out, const T *bias, const T *c, int64_t count, int64_t N) {
    for (int64_t i = blockIdx.x * int64_t(THREADS) + threadIdx.x; i < count;
         i += gridDim.x * int64_t(THREADS)) {
        float value = bias != NULL ? static_cast<float>(bias[i % N]) : 0.0f;
        if (c != NULL) value += static_cast<float>(c[i]);
        out[i] = static_cast<T>(value);
    }
}

template <typename T> static __global__ void fill_ones(T *out, int64_t count) {
    for (int64_t i = blockIdx.x * int64_t(THREADS) + threadIdx.x; i < count;
         i += gridDim.x * int64_t(THREADS))
        out[i] = static_cast<T>(1.0f);
}

static unsigned blocks_of(int64_t count) {
    return static_cast<unsigned>(std::min((count + THREADS - 1) / THREADS, MAX_BLOCKS));
}

template <typename T>
static void launch_rows(void *out, const void *bias, const void *c, int64_t count, int64_t N,
                        cudaStream_t stream) {
    fill_rows<<<blocks_of(count), THREADS, 0, stream>>>(static_cast<T *>(out),
                                                        static_cast<const T *>(bias),
                                                        static_cast<const T *>(c), count, N);
}

template <typename T> static void launch_ones(void *out, int64_t count, cudaStream_t stream) {
    fill_ones<<<blocks_of(count), THREADS, 0, stream>>>(static_cast<T *>(out), count);
}

static lnet_status put_rows(void *out, lnet_dtype dtype, const void *bias, const void *c, int64_t M,
                            int64_t N, lnet_stream *stream) {
    auto launch = dtype == LNET_FLOAT32   ? launch_rows<float>
                  : dtype == LNET_FLOAT16 ? launch_rows<__half>
                                          : launch_rows<__nv_bfloat16>;
    if (M == 0 || N == 0) return LNET_OK;
    launch(out, bias, c, M * N, N, lnet_cuda_stream(stream));
    return lnet_cuda_launched("matmul");
}

/* A product that cuBLASLt must have. */
static lnet_status multiply(const lnet_product &product, lnet_stream *stream) {
    bool done = false;
    lnet_status status = lnet_cuda_product(&product, &done, stream);
    if (status != LNET_OK || done) return status;
    return lnet_fail(LNET_DEVICE_ERROR,
                     "matmul: cuBLASLt has no algorithm for (%lld, %lld) times (%lld, %lld)",
                     static_cast<long long>(product.M), static_cast<long long>(product.K),
                     static_cast<long long>(product.K), static_cast<long long>(product.N));
}

/* dbias as a product of its own: `a` transposed times a column of ones. */
static lnet_status sum_rows(const lnet_product &product, void *dbias, lnet_stream *stream) {
    auto launch = product.dtype == LNET_FLOAT32   ? launch_ones<float>
                  : product.dtype == LNET_FLOAT16 ? launch_ones<__half>
                                                  : launch_ones<__nv_bfloat16>;
    int64_t bytes = product.K * static_cast<int64_t>(product.dtype == LNET_FLOAT32 ? 4 : 2);
    lnet_product sums = product;
    void *ones = NULL;
    lnet_status status;
    if (product.M == 0 || product.K == 0)
        return put_rows(dbias, product.out_dtype, NULL, NULL, product.M, 1, stream);
    LNET_TRY(lnet_cuda_host->alloc(&ones, bytes, stream));
    launch(ones, product.K, lnet_cuda_stream(stream));
    status = lnet_cuda_launched("matmul");
    sums.N = 1, sums.b = ones, sums.out = dbias;
    sums.c = NULL, sums.transpose_b = false;
    sums.epilogue = LNET_PLAIN;
    if (status == LNET_OK) status = multiply(sums, stream);
    lnet_cuda_host->free(ones, bytes, stream);
fail:
    return status;
}

/* With the epilogue that takes the bias or its gradient; *done says whether there is one. */
static lnet_status fused(lnet_product product, lnet_epilogue epilogue, void *vector, bool *done,
                         lnet_stream *stream) {
    *done = false;
    if (reinterpret_cast<uintptr_t>(vector) % 16 != 0) return LNET_OK;
    product.epilogue = epilogue;
    product.vector = vector;
    return lnet_cuda_product(&product, done, stream);
}

extern "C" lnet_status lnet_cuda_matmul(const struct lnet_matmul_args *args, lnet_stream *stream) {
    const lnet_tensor *out = args->out, *a = args->a, *b = args->b, *bias = args->bias;
    lnet_product product = {};
    bool done = false;
    lnet_status status = LNET_OK;
    product.M = out->shape[0], product.N = out->shape[1];
    product.K = a->shape[args->transpose_a ? 0 : 1];
    product.out = out->data, product.a = a->data, product.b = b->data;
    product.out_dtype = out->dtype, product.dtype = a->dtype;
    product.transpose_a = args->transpose_a, product.transpose_b = args->transpose_b;
    product.c = args->c != NULL ? args->c->data : NULL;
    const bool empty = product.M == 0 || product.N == 0 || product.K == 0;
    if (!empty && bias != NULL)
        LNET_TRY(fused(product, LNET_BIAS, bias->data, &done, stream));
    if (!empty && args->dbias != NULL)
        LNET_TRY(fused(product, LNET_DBIAS, args->dbias->data, &done, stream));
    if (done) return LNET_OK;
    if (bias != NULL || product.K == 0) {
        LNET_TRY(put_rows(out->data, out->dtype, bias != NULL ? bias->data : NULL, product.c,
                          product.M, product.N, stream));
        product.c = out->data;
    }
    if (!empty) LNET_TRY(multiply(product, stream));
    if (args->dbias != NULL) LNET_TRY(sum_rows(product, args->dbias->data, stream));
fail:
    return status;
}
