/* RMS norm over the last dimension:
 *
 *     rstd[m]  = 1 / sqrt(mean_d x[m,d]^2 + eps)
 *     y[m,d]   = x[m,d] * rstd[m] * weight[d]
 *
 * Backward, with g[m,d] = dy[m,d] * weight[d] and c[m] = mean_d g[m,d] * x[m,d] * rstd[m]:
 *
 *     dx[m,d]    = rstd[m] * (g[m,d] - x[m,d] * rstd[m] * c[m])
 *     dweight[d] = sum_m dy[m,d] * x[m,d] * rstd[m]
 *
 * `y` may be x, and `dx` may be dy or x. */
#ifndef LNET_OPS_RMS_NORM_H
#define LNET_OPS_RMS_NORM_H

#include "lnet/op.h"

struct lnet_rms_norm_args {
    lnet_tensor *y;            /* (..., D) */
    lnet_tensor *rstd;         /* (...,) float32 */
    const lnet_tensor *x;      /* (..., D) */
    const lnet_tensor *weight; /* (D,) */
    double eps;
};

struct lnet_rms_norm_backward_args {
    lnet_tensor *dx;           /* (..., D) */
    lnet_tensor *dweight;      /* (D,) */
    const lnet_tensor *dy;     /* (..., D) */
    const lnet_tensor *x;      /* (..., D) */
    const lnet_tensor *weight; /* (D,) */
    const lnet_tensor *rstd;   /* (...,) float32 */
};

#endif
