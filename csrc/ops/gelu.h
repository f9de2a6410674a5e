/* GELU, exact: y = x * P(x), where P is the standard normal distribution function
 * P(x) = (1 + erf(x / sqrt(2))) / 2 and p(x) = exp(-x^2 / 2) / sqrt(2 pi) its density.
 *
 * Backward: dx = dy * (P(x) + x * p(x)). `y` may be x, and `dx` may be dy or x. */
#ifndef LNET_OPS_GELU_H
#define LNET_OPS_GELU_H

#include "lnet/op.h"

struct lnet_gelu_args {
    lnet_tensor *y;       /* (...) */
    const lnet_tensor *x; /* (...) */
};

struct lnet_gelu_backward_args {
    lnet_tensor *dx;       /* (...) */
    const lnet_tensor *dy; /* (...) */
    const lnet_tensor *x;  /* (...) */
};

#endif
