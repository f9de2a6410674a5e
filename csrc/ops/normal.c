#include "ops/normal.h"

#include "lnet/check.h"

static lnet_status check_normal(const char *op, const struct lnet_normal_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "out", args->out, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_finite(op, "mean", args->mean));
    LNET_TRY(lnet_check_finite(op, "std", args->std));
    if (args->std < 0.0)
        return lnet_fail(LNET_VALUE_ERROR, "%s: std is %g, expected 0 or more", op, args->std);
fail:
    return status;
}

LNET_DEFINE_OP(normal, LNET_FIELD(out), LNET_FIELD(mean), LNET_FIELD(std), LNET_FIELD(seed));
