#include "ops/add.h"

#include "lnet/check.h"

static lnet_status check_add(const char *op, const struct lnet_add_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "x", args->x, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_same(op, args->x, "y", args->y));
    LNET_TRY(lnet_check_same(op, args->x, "out", args->out));
fail:
    return status;
}

LNET_DEFINE_OP(add, LNET_FIELD(out), LNET_FIELD(x), LNET_FIELD(y), LNET_FIELD(alpha));
