#include "ops/dropout.h"

#include "lnet/check.h"

static lnet_status check_dropout(const char *op, const struct lnet_dropout_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "x", args->x, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_same(op, args->x, "y", args->y));
    LNET_TRY(lnet_check_chance(op, "p", args->p));
fail:
    return status;
}

LNET_DEFINE_OP(dropout, LNET_FIELD(y), LNET_FIELD(x), LNET_FIELD(p), LNET_FIELD(seed));
