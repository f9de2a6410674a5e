/* Cross-entropy of each row of logits with its target, and its gradient in the same pass:
 *
 *     loss[m]      = log sum_v exp(logits[m,v]) - logits[m,targets[m]]
 *     dlogits[m,v] = scale * (exp(logits[m,v]) / sum_u exp(logits[m,u]) - [v == targets[m]])
 *
 * Where targets[m] is ignore_index both are 0. `dlogits` may be the same tensor as `logits`; where
 * it is NULL only the loss is computed.
 *
 * A target out of range is an error on the CPU. A GPU cannot look without waiting: there loss and
 * gradient of the row are NaN. */
#ifndef LNET_OPS_CROSS_ENTROPY_H
#define LNET_OPS_CROSS_ENTROPY_H

#include "lnet/op.h"

struct lnet_cross_entropy_args {
    lnet_tensor *loss;          /* (M,) float32 */
    lnet_tensor *dlogits;       /* (M, V) or NULL */
    const lnet_tensor *logits;  /* (M, V) */
    const lnet_tensor *targets; /* (M,) int32 or int64 in [0, V), or ignore_index */
    double scale;
    int64_t ignore_index;
};

#endif
