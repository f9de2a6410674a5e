#include "ops/cast.h"

#include "lnet/check.h"

static lnet_status check_cast(const char *op, const struct lnet_cast_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "x", args->x, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_dtype(op, "out", args->out, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_shape(op, "out", args->out, args->x->ndim, args->x->shape));
fail:
    return status;
}

LNET_DEFINE_OP(cast, LNET_FIELD(out), LNET_FIELD(x));
