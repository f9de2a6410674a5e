#include "ops/gelu.h"

#include "lnet/check.h"

static lnet_status check_gelu(const char *op, const struct lnet_gelu_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "x", args->x, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_same(op, args->x, "y", args->y));
fail:
    return status;
}

static lnet_status check_gelu_backward(const char *op, const struct lnet_gelu_backward_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "x", args->x, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_same(op, args->x, "dy", args->dy));
    LNET_TRY(lnet_check_same(op, args->x, "dx", args->dx));
fail:
    return status;
}

LNET_DEFINE_OP(gelu, LNET_FIELD(y), LNET_FIELD(x));
LNET_DEFINE_OP(gelu_backward, LNET_FIELD(dx), LNET_FIELD(dy), LNET_FIELD(x));
