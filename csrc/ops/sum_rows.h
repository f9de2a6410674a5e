/* out[d] = sum_m x[m,d]: the gradient of a bias. */
#ifndef LNET_OPS_SUM_ROWS_H
#define LNET_OPS_SUM_ROWS_H

#include "lnet/op.h"

struct lnet_sum_rows_args {
    lnet_tensor *out;     /* (D,) */
    const lnet_tensor *x; /* (..., D) */
};

#endif
