#include "ops/adamw.h"

#include "lnet/check.h"

#include <inttypes.h>

static lnet_status check_adamw(const char *op, const struct lnet_adamw_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "weight", args->weight, LNET_IS_FLOAT32));
    LNET_TRY(lnet_check_same(op, args->weight, "m", args->m));
    LNET_TRY(lnet_check_same(op, args->weight, "v", args->v));
    LNET_TRY(lnet_check_dtype(op, "grad", args->grad, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_shape(op, "grad", args->grad, args->weight->ndim, args->weight->shape));
    if (args->rounded != NULL) {
        LNET_TRY(lnet_check_dtype(op, "rounded", args->rounded, LNET_IS_HALF));
        LNET_TRY(lnet_check_shape(op, "rounded", args->rounded, args->weight->ndim,
                                  args->weight->shape));
    }
    if (args->factor != NULL) {
        LNET_TRY(lnet_check_dtype(op, "factor", args->factor, LNET_IS_FLOAT32));
        LNET_TRY(lnet_check_shape(op, "factor", args->factor, LNET_SHAPE(1)));
    }
    LNET_TRY(lnet_check_finite(op, "learning_rate", args->learning_rate));
    LNET_TRY(lnet_check_chance(op, "beta1", args->beta1));
    LNET_TRY(lnet_check_chance(op, "beta2", args->beta2));
    LNET_TRY(lnet_check_finite(op, "eps", args->eps));
    LNET_TRY(lnet_check_finite(op, "weight_decay", args->weight_decay));
    if (args->eps < 0.0)
        return lnet_fail(LNET_VALUE_ERROR, "%s: eps is %g, expected 0 or more", op, args->eps);
    if (args->step < 1)
        return lnet_fail(LNET_VALUE_ERROR, "%s: step is %" PRId64 ", expected 1 or more", op,
                         args->step);
    if (args->stochastic && args->rounded == NULL)
        return lnet_fail(LNET_VALUE_ERROR, "%s: stochastic without rounded, expected both", op);
    if (args->first < 0 || args->first % 4 != 0)
        return lnet_fail(LNET_VALUE_ERROR,
                         "%s: first is %" PRId64 ", expected a multiple of 4, 0 or more", op,
                         args->first);
fail:
    return status;
}

LNET_DEFINE_OP(adamw, LNET_FIELD(weight), LNET_FIELD(m), LNET_FIELD(v), LNET_OPTIONAL(rounded),
               LNET_FIELD(grad), LNET_OPTIONAL(factor), LNET_FIELD(learning_rate),
               LNET_FIELD(beta1), LNET_FIELD(beta2), LNET_FIELD(eps), LNET_FIELD(weight_decay),
               LNET_FIELD(step), LNET_FIELD(stochastic), LNET_FIELD(seed), LNET_OPTIONAL(first));
