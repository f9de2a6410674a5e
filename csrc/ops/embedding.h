/* Rows of a table: out[...,e] = scale * weight[tokens[...],e].
 *
 * Backward adds to what dweight holds: dweight[t,e] += scale * sum of dout[...,e] over the
 * positions whose token is t, in the order of the positions.
 *
 * A token out of range is an error on the CPU. A GPU cannot look without waiting: there the token's
 * row of out is NaN, and its row of dout is left out. */
#ifndef LNET_OPS_EMBEDDING_H
#define LNET_OPS_EMBEDDING_H

#include "lnet/op.h"

struct lnet_embedding_args {
    lnet_tensor *out;          /* (..., E), of the dtype of weight, or any where that is float32 */
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
