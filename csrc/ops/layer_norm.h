/* Layer norm over the last dimension of h, which is x, or gelu(x) with `gelu`, or
 * sum = x + residual, rounded to the storage's dtype, where there is a residual:
 *
 *     mean[m]  = mean_d h[m,d]
 *     rstd[m]  = 1 / sqrt(mean_d (h[m,d] - mean[m])^2 + eps)
 *     y[m,d]   = n[m,d] * weight[d] + bias[d],   n[m,d] = (h[m,d] - mean[m]) * rstd[m]
 *
 * Backward, with g[m,d] = dy[m,d] * weight[d]:
 *
 *     dh[m,d]    = rstd[m] * (g[m,d] - mean_d g[m,d] - n[m,d] * mean_d (g[m,d] * n[m,d]))
 *     dx[m,d]    = dh[m,d], times gelu'(x[m,d]) with `gelu`, plus dsum[m,d] where it is given
 *     dweight[d] = sum_m dy[m,d] * n[m,d]
 *     dbias[d]   = sum_m dy[m,d]
 *
 * With a residual the gradient is that of x and of the residual alike: its x is the forward's
 * `sum`, and dsum the gradient that `sum` has besides. `y` may be x, `sum` may be x or the
 * residual, and `dx` may be dy, x or dsum. */
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
    lnet_tensor *sum;            /* (..., D), with a residual alone */
    const lnet_tensor *residual; /* (..., D) or NULL */
    bool gelu;                   /* without a residual alone */
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
    const lnet_tensor *dsum;   /* (..., D) or NULL */
    bool gelu;
};

#endif
