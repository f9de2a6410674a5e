/* out[m,n] = sum_k A[m,k] B[k,n] + bias[n] + c[m,n]; A is `a` or its transpose, B is `b` or its
 * transpose. Sums are in float32. `c` may be `out`.
 *
 * dbias[m] = sum_k A[m,k] comes with the gradient of a weight, dy^T x, whose bias's it is. The CPU
 * has no kernel: NumPy takes its products. */
#ifndef LNET_OPS_MATMUL_H
#define LNET_OPS_MATMUL_H

#include "lnet/op.h"

struct lnet_matmul_args {
    lnet_tensor *out;        /* (M, N), of the dtype of `a` or float32 */
    lnet_tensor *dbias;      /* (M,) of the dtype of `out`, or NULL; with transpose_a */
    const lnet_tensor *a;    /* (M, K), or (K, M) with transpose_a */
    const lnet_tensor *b;    /* (K, N), or (N, K) with transpose_b */
    const lnet_tensor *bias; /* (N,) of the dtype of `out`, or NULL; not with dbias */
    const lnet_tensor *c;    /* (M, N) of the dtype of `out`, or NULL */
    bool transpose_a, transpose_b;
};

#endif
