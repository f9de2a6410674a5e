/* out = alpha * factor * x, element by element, where `factor` is a number that lies on the
 * tensors' device, or 1. `out` may be x. */
#ifndef LNET_OPS_SCALE_H
#define LNET_OPS_SCALE_H

#include "lnet/op.h"

struct lnet_scale_args {
    lnet_tensor *out;          /* (...), of any dtype */
    const lnet_tensor *x;      /* (...) */
    const lnet_tensor *factor; /* (1,) float32, or NULL */
    double alpha;
};

#endif
