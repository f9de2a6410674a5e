/* One matrix product by cuBLASLt. */
#ifndef LNET_CUDA_PRODUCT_CUH
#define LNET_CUDA_PRODUCT_CUH

#include "cuda/common.cuh"

enum lnet_epilogue {
    LNET_PLAIN,
    LNET_BIAS,  /* adds vector (N,) to every row */
    LNET_DBIAS, /* writes the sums over k of A into vector (M,) */
};

/* out (M, N) = A (M, K) B (K, N) + c (M, N); matrices are row-major and no size is 0. */
struct lnet_product {
    int64_t M, N, K;
    void *out;
    const void *a, *b;
    const void *c; /* of out's dtype, may be `out`; or NULL */
    lnet_dtype out_dtype, dtype;
    bool transpose_a, transpose_b; /* `a` holds (K, M), `b` (N, K) */
    lnet_epilogue epilogue;
    void *vector; /* of out's dtype, 16-byte aligned */
};

/* Queues it; *done is false where cuBLASLt has no algorithm for it. The same product gets the same
 * algorithm each time, and each algorithm gives the same bits each time. */
lnet_status lnet_cuda_product(const lnet_product *product, bool *done, lnet_stream *stream);

#endif
