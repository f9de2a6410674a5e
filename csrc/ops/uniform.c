#include "ops/uniform.h"

#include "lnet/check.h"

static lnet_status check_uniform(const char *op, const struct lnet_uniform_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "out", args->out, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_finite(op, "low", args->low));
    LNET_TRY(lnet_check_finite(op, "high", args->high));
    if (args->low > args->high)
        return lnet_fail(LNET_VALUE_ERROR, "%s: low is %g and high is %g, expected low <= high", op,
                         args->low, args->high);
fail:
    return status;
}

LNET_DEFINE_OP(uniform, LNET_FIELD(out), LNET_FIELD(low), LNET_FIELD(high), LNET_FIELD(seed));
