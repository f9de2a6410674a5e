/* out[i] = low + (high - low) * u, where u = (w >> 8) / 2^24 in [0, 1) and w is word i mod 4 of
 * Philox counter i / 4 under key `seed`. Rounding may give `high` itself. */
#ifndef LNET_OPS_UNIFORM_H
#define LNET_OPS_UNIFORM_H

#include "lnet/op.h"

struct lnet_uniform_args {
    lnet_tensor *out; /* (...) */
    double low;
    double high;
    uint64_t seed;
};

#endif
