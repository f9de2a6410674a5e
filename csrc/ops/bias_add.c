#include "ops/bias_add.h"

#include "lnet/check.h"

static lnet_status check_bias_add(const char *op, const struct lnet_bias_add_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "x", args->x, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_same(op, args->x, "y", args->y));
    LNET_TRY(lnet_check_vector(op, args->x, "bias", args->bias));
fail:
    return status;
}

LNET_DEFINE_OP(bias_add, LNET_FIELD(y), LNET_FIELD(x), LNET_FIELD(bias));
