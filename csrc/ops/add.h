/* out = x + alpha * y, element by element; `out` may be x or y. */
#ifndef LNET_OPS_ADD_H
#define LNET_OPS_ADD_H

#include "lnet/op.h"

struct lnet_add_args {
    lnet_tensor *out;     /* (...) */
    const lnet_tensor *x; /* (...) */
    const lnet_tensor *y; /* (...) */
    double alpha;
};

#endif
