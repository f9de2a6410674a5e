/* RMS norm over the last dimension of h, which is x, or gelu(x) with `gelu`, or
 * sum = x + residual, rounded to the storage's dtype, where there is a residual:
 *
 *     rstd[m]  = 1 / sqrt(mean_d h[m,d]^2 + eps)
 *     y[m,d]   = h[m,d] * rstd[m] * weight[d]
 *
 * Backward, with g[m,d] = dy[m,d] * weight[d] and c[m] = mean_d g[m,d] * h[m,d] * rstd[m]:
 *
 *     dh[m,d]    = rstd[m] * (g[m,d] - h[m,d] * rstd[m] * c[m])
 *     dx[m,d]    = dh[m,d], times gelu'(x[m,d]) with `gelu`, plus dsum[m,d] where it is given
 *     dweight[d] = sum_m dy[m,d] * h[m,d] * rstd[m]
 *
 * With a residual the gradient is that of x and of the residual alike: its x is the forward's
 * `sum`, and dsum the gradient that `sum` has besides. `y` may be x, `sum` may be x or the
 * residual, and `dx` may be dy, x or dsum. */
#ifndef LNET_OPS_RMS_NORM_H
#define LNET_OPS_RMS_NORM_H

#include "lnet/op.h"

struct lnet_rms_norm_args {
    lnet_tensor *y;            /* (..., D) */
    lnet_tensor *rstd;         /* (...,) float32 */
    const lnet_tensor *x;      /* (..., D) */
    const lnet_tensor *weight; /* (D,) */
    double eps;
    lnet_tensor *sum;            /* (..., D), with a residual alone */
    const lnet_tensor *residual; /* (..., D) or NULL */
    bool gelu;                   /* without a residual alone */
};

struct lnet_rms_norm_backward_args {
    lnet_tensor *dx;           /* (..., D) */
    lnet_tensor *dweight;      /* (D,) */
    const lnet_tensor *dy;     /* (..., D) */
    const lnet_tensor *x;      /* (..., D) */
    const lnet_tensor *weight; /* (D,) */
    const lnet_tensor *rstd;   /* (...,) float32 */
    const lnet_tensor *dsum;   /* (..., D) or NULL */
    bool gelu;
};

#endif
