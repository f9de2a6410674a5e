/* Layer norm over the last dimension:
 *
 *     mean[m]  = mean_d x[m,d]
 *     rstd[m]  = 1 / sqrt(mean_d (x[m,d] - mean[m])^2 + eps)
 *     y[m,d]   = n[m,d] * weight[d] + bias[d],   n[m,d] = (x[m,d] - mean[m]) * rstd[m]
 *
 * Backward, with g[m,d] = dy[m,d] * weight[d]:
 *
 *     dx[m,d]    = rstd[m] * (g[m,d] - mean_d g[m,d] - n[m,d] * mean_d (g[m,d] * n[m,d]))
 *     dweight[d] = sum_m dy[m,d] * n[m,d]
 *     dbias[d]   = sum_m dy[m,d]
 *
 * `y` may be x, and `dx` may be dy or x. */
#ifndef LNET_OPS_LAYER_NORM_H
#define LNET_OPS_LAYER_NORM_H

#include "lnet/op.h"

struct lnet_layer_norm_args {
    lnet_tensor *y;            /* (..., D) */
    lnet_tensor *mean;         /* (...,) float32 */
    lnet_tensor *rstd;         /* (...,) float32 */
    const lnet_tensor *x;      /* (..., D) */
    const lnet_tensor *weight; /* (D,) */
    const lnet_tensor *bias;   /* (D,) */
    double eps;
};

struct lnet_layer_norm_backward_args {
    lnet_tensor *dx;           /* (..., D) */
    lnet_tensor *dweight;      /* (D,) */
    lnet_tensor *dbias;        /* (D,) */
    const lnet_tensor *dy;     /* (..., D) */
    const lnet_tensor *x;      /* (..., D) */
    const lnet_tensor *weight; /* (D,) */
    const lnet_tensor *mean;   /* (...,) float32 */
    const lnet_tensor *rstd;   /* (...,) float32 */
};

#endif
