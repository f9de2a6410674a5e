/* y = x / (1 - p) where an element is kept and 0 where it is dropped, which happens with chance p.
 * Element i is kept iff word i mod 4 of Philox counter i / 4 under key `seed` is at or above
 * p * 2^32, so that the same call on dy is the gradient. `y` may be x. */
#ifndef LNET_OPS_DROPOUT_H
#define LNET_OPS_DROPOUT_H

#include "lnet/op.h"

struct lnet_dropout_args {
    lnet_tensor *y;       /* (...) */
    const lnet_tensor *x; /* (...) */
    double p;             /* in [0, 1) */
    uint64_t seed;
};

#endif
