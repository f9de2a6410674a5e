/* out = value, everywhere. */
#ifndef LNET_OPS_FILL_H
#define LNET_OPS_FILL_H

#include "lnet/op.h"

struct lnet_fill_args {
    lnet_tensor *out; /* (...) */
    double value;
};

#endif
