/* y[m,d] = x[m,d] + bias[d]; `y` may be x. The bias's gradient is sum_rows(dy). */
#ifndef LNET_OPS_BIAS_ADD_H
#define LNET_OPS_BIAS_ADD_H

#include "lnet/op.h"

struct lnet_bias_add_args {
    lnet_tensor *y;          /* (..., D) */
    const lnet_tensor *x;    /* (..., D) */
    const lnet_tensor *bias; /* (D,) */
};

#endif
