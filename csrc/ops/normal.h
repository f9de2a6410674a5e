/* Normal numbers by Box and Muller's transform: elements 2j and 2j + 1 are
 *
 *     mean + std * r * cos(a),  mean + std * r * sin(a),   r = sqrt(-2 log u),  a = 2 pi v
 *
 * where u = ((w >> 8) + 1) / 2^24 in (0, 1], v = (w' >> 8) / 2^24, and element i's word, w for
 * i = 2j and w' for i = 2j + 1, is word i mod 4 of Philox counter i / 4 under key `seed`. */
#ifndef LNET_OPS_NORMAL_H
#define LNET_OPS_NORMAL_H

#include "lnet/op.h"

struct lnet_normal_args {
    lnet_tensor *out; /* (...) */
    double mean;
    double std;
    uint64_t seed;
};

#endif
