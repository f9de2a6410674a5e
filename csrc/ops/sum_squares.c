#include "ops/sum_squares.h"

#include "lnet/check.h"

static lnet_status check_sum_squares(const char *op, const struct lnet_sum_squares_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "x", args->x, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_dtype(op, "out", args->out, LNET_IS_FLOAT32));
    LNET_TRY(lnet_check_shape(op, "out", args->out, LNET_SHAPE(1)));
fail:
    return status;
}

LNET_DEFINE_OP(sum_squares, LNET_FIELD(out), LNET_FIELD(x));
