#include "ops/cross_entropy.h"

#include "lnet/check.h"

static lnet_status check_cross_entropy(const char *op, const struct lnet_cross_entropy_args *args) {
    const lnet_tensor *logits = args->logits;
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "logits", logits, LNET_IS_FLOAT));
    if (logits->ndim != 2)
        return lnet_fail(LNET_SHAPE_ERROR, "%s: logits: %d dimensions, expected 2: (M, V)", op,
                         logits->ndim);
    LNET_TRY(lnet_check_row_statistic(op, logits, "loss", args->loss));
    if (args->dlogits != NULL) LNET_TRY(lnet_check_same(op, logits, "dlogits", args->dlogits));
    LNET_TRY(lnet_check_dtype(op, "targets", args->targets, LNET_IS_INDEX));
    LNET_TRY(lnet_check_shape(op, "targets", args->targets, LNET_SHAPE(logits->shape[0])));
    LNET_TRY(
        lnet_check_indices(op, "targets", args->targets, logits->shape[1], &args->ignore_index));
fail:
    return status;
}

LNET_DEFINE_OP(cross_entropy, LNET_FIELD(loss), LNET_OPTIONAL(dlogits), LNET_FIELD(logits),
               LNET_FIELD(targets), LNET_FIELD(scale), LNET_FIELD(ignore_index));
