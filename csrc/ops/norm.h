/* What layer_norm and rms_norm ask alike of what they normalise. */
#ifndef LNET_OPS_NORM_H
#define LNET_OPS_NORM_H

#include "lnet/check.h"

/* x alone, gelu(x), or sum = x + residual. */
static inline lnet_status check_norm_input(const char *op, const lnet_tensor *x,
                                           const lnet_tensor *residual, const lnet_tensor *sum,
                                           bool gelu) {
    lnet_status status = LNET_OK;
    if ((residual == NULL) != (sum == NULL))
        return lnet_fail(LNET_VALUE_ERROR, "%s: %s, expected both or neither", op,
                         sum == NULL ? "residual without sum" : "sum without residual");
    if (residual != NULL && gelu)
        return lnet_fail(LNET_VALUE_ERROR, "%s: residual and gelu, expected one of them", op);
    if (residual != NULL) {
        LNET_TRY(lnet_check_same(op, x, "residual", residual));
        LNET_TRY(lnet_check_same(op, x, "sum", sum));
    }
fail:
    return status;
}

#endif
