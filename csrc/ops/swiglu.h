/* SwiGLU's product: y = gate * s(gate) * up, where s(z) = 1 / (1 + exp(-z)).
 *
 * Backward, with s = s(gate):
 *
 *     dgate = dy * up * s * (1 + gate * (1 - s))
 *     dup   = dy * gate * s
 *
 * `y`, `dgate` and `dup` may be any of the inputs. */
#ifndef LNET_OPS_SWIGLU_H
#define LNET_OPS_SWIGLU_H

#include "lnet/op.h"

struct lnet_swiglu_args {
    lnet_tensor *y;          /* (...) */
    const lnet_tensor *gate; /* (...) */
    const lnet_tensor *up;   /* (...) */
};

struct lnet_swiglu_backward_args {
    lnet_tensor *dgate;      /* (...) */
    lnet_tensor *dup;        /* (...) */
    const lnet_tensor *dy;   /* (...) */
    const lnet_tensor *gate; /* (...) */
    const lnet_tensor *up;   /* (...) */
};

#endif
