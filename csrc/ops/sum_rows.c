#include "ops/sum_rows.h"

#include "lnet/check.h"

static lnet_status check_sum_rows(const char *op, const struct lnet_sum_rows_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "x", args->x, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_vector(op, args->x, "out", args->out));
fail:
    return status;
}

LNET_DEFINE_OP(sum_rows, LNET_FIELD(out), LNET_FIELD(x));
