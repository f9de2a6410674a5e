#include "ops/merge_rows.h"

#include "lnet/check.h"

static lnet_status check_merge_rows(const char *op, const struct lnet_merge_rows_args *args) {
    const lnet_tensor *out = args->out, *lse = args->lse, *part = args->part;
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "part", part, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_dtype(op, "out", out, LNET_IS_FLOAT32 | 1u << part->dtype));
    LNET_TRY(lnet_check_stepped_rows(op, "out", out, "part", part, args->starts, args->step));
    LNET_TRY(lnet_check_stepped_statistic(op, "lse", lse, "part_lse", args->part_lse, args->starts,
                                          args->step));
    LNET_TRY(
        lnet_check_shape(op, "lse", lse, LNET_SHAPE(out->shape[0], out->shape[2], out->shape[1])));
    LNET_TRY(lnet_check_shape(op, "part_lse", args->part_lse,
                              LNET_SHAPE(part->shape[0], part->shape[1])));
fail:
    return status;
}

LNET_DEFINE_OP(merge_rows, LNET_FIELD(out), LNET_FIELD(lse), LNET_FIELD(part), LNET_FIELD(part_lse),
               LNET_FIELD(starts), LNET_FIELD(step));
