#include "ops/scale.h"

#include "lnet/check.h"

static lnet_status check_scale(const char *op, const struct lnet_scale_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "x", args->x, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_dtype(op, "out", args->out, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_shape(op, "out", args->out, args->x->ndim, args->x->shape));
    if (args->factor == NULL) return LNET_OK;
    LNET_TRY(lnet_check_dtype(op, "factor", args->factor, LNET_IS_FLOAT32));
    LNET_TRY(lnet_check_shape(op, "factor", args->factor, LNET_SHAPE(1)));
fail:
    return status;
}

LNET_DEFINE_OP(scale, LNET_FIELD(out), LNET_FIELD(x), LNET_OPTIONAL(factor), LNET_FIELD(alpha));
