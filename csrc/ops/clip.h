/* What gradients are multiplied by so that their norm is at most max_norm, given the sum of their
 * squares and what they are to be divided by anyway:
 *
 *     norm   = sqrt(squares) / divisor
 *     factor = min(1, max_norm / max(norm, 1e-30)) / divisor
 *
 * and factor = NaN where norm is not finite. The numbers stay on their device: nobody waits. */
#ifndef LNET_OPS_CLIP_H
#define LNET_OPS_CLIP_H

#include "lnet/op.h"

struct lnet_clip_args {
    lnet_tensor *factor;        /* (1,) float32 */
    lnet_tensor *norm;          /* (1,) float32 */
    const lnet_tensor *squares; /* (1,) float32 */
    double max_norm;            /* above 0; infinity clips nothing */
    double divisor;             /* above 0 */
};

#endif
