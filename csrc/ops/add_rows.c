#include "ops/add_rows.h"

#include "lnet/check.h"

static lnet_status check_add_rows(const char *op, const struct lnet_add_rows_args *args) {
    const lnet_tensor *x = args->x, *part = args->part;
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "part", part, LNET_IS_FLOAT));
    if (part->dtype == LNET_FLOAT32)
        LNET_TRY(lnet_check_dtype(op, "x", x, LNET_IS_FLOAT));
    else
        LNET_TRY(lnet_check_dtype(op, "x", x, LNET_IS_FLOAT32 | 1u << part->dtype));
    status = lnet_check_stepped_rows(op, "x", x, "part", part, args->starts, args->step);
fail:
    return status;
}

LNET_DEFINE_OP(add_rows, LNET_FIELD(x), LNET_FIELD(part), LNET_FIELD(starts), LNET_FIELD(step));
