#include "ops/clip.h"

#include "lnet/check.h"

static lnet_status check_number(const char *op, const char *name, const lnet_tensor *tensor) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, name, tensor, LNET_IS_FLOAT32));
    LNET_TRY(lnet_check_shape(op, name, tensor, LNET_SHAPE(1)));
fail:
    return status;
}

static lnet_status check_clip(const char *op, const struct lnet_clip_args *args) {
    lnet_status status;
    LNET_TRY(check_number(op, "factor", args->factor));
    LNET_TRY(check_number(op, "norm", args->norm));
    LNET_TRY(check_number(op, "squares", args->squares));
    LNET_TRY(lnet_check_finite(op, "divisor", args->divisor));
    if (!(args->max_norm > 0.0))
        return lnet_fail(LNET_VALUE_ERROR, "%s: max_norm is %g, expected more than 0", op,
                         args->max_norm);
    if (!(args->divisor > 0.0))
        return lnet_fail(LNET_VALUE_ERROR, "%s: divisor is %g, expected more than 0", op,
                         args->divisor);
fail:
    return status;
}

LNET_DEFINE_OP(clip, LNET_FIELD(factor), LNET_FIELD(norm), LNET_FIELD(squares),
               LNET_FIELD(max_norm), LNET_FIELD(divisor));
