/* Rows of a table: out[...,e] = scale * weight[tokens[...],e].
 *
 * Backward adds to what dweight holds: dweight[t,e] += scale * sum of dout[...,e] over the
 * positions whose token is t, in the order of the positions. */
#ifndef LNET_OPS_EMBEDDING_H
#define LNET_OPS_EMBEDDING_H

#include "lnet/op.h"

struct lnet_embedding_args {
    lnet_tensor *out;          /* (..., E) */
    const lnet_tensor *weight; /* (V, E) */
    const lnet_tensor *tokens; /* (...,) int32 or int64 in [0, V) */
    double scale;
};

struct lnet_embedding_backward_args {
    lnet_tensor *dweight;      /* (V, E), float32 or of the dtype of dout */
    const lnet_tensor *dout;   /* (..., E) */
    const lnet_tensor *tokens; /* (...,) int32 or int64 in [0, V) */
    double scale;
};

#endif
