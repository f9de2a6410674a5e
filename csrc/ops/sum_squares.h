/* out = sum of x^2 over all elements, added up in float64 and in an order that depends on the
 * number of elements alone. */
#ifndef LNET_OPS_SUM_SQUARES_H
#define LNET_OPS_SUM_SQUARES_H

#include "lnet/op.h"

struct lnet_sum_squares_args {
    lnet_tensor *out;     /* (1,) float32 */
    const lnet_tensor *x; /* (...) */
};

#endif
