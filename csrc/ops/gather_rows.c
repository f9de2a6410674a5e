#include "ops/gather_rows.h"

#include "lnet/check.h"

static lnet_status check_gather_rows(const char *op, const struct lnet_gather_rows_args *args) {
    const lnet_tensor *x = args->x, *out = args->out;
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "x", x, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_dtype(op, "out", out, 1u << x->dtype));
    if (x->ndim == 3)
        status = lnet_check_stepped_statistic(op, "x", x, "out", out, args->starts, args->step);
    else
        status = lnet_check_stepped_rows(op, "x", x, "out", out, args->starts, args->step);
fail:
    return status;
}

LNET_DEFINE_OP(gather_rows, LNET_FIELD(out), LNET_FIELD(x), LNET_FIELD(starts), LNET_FIELD(step));
