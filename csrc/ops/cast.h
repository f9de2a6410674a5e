/* out = x in the dtype of `out`, rounded to nearest even. */
#ifndef LNET_OPS_CAST_H
#define LNET_OPS_CAST_H

#include "lnet/op.h"

struct lnet_cast_args {
    lnet_tensor *out;     /* (...) */
    const lnet_tensor *x; /* (...) */
};

#endif
