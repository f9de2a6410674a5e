#include "ops/layer_norm.h"

#include "lnet/check.h"
#include "ops/norm.h"

static lnet_status check_layer_norm(const char *op, const struct lnet_layer_norm_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "x", args->x, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_same(op, args->x, "y", args->y));
    LNET_TRY(lnet_check_row_statistic(op, args->x, "mean", args->mean));
    LNET_TRY(lnet_check_row_statistic(op, args->x, "rstd", args->rstd));
    LNET_TRY(lnet_check_vector(op, args->x, "weight", args->weight));
    LNET_TRY(lnet_check_vector(op, args->x, "bias", args->bias));
    if (!(args->eps >= 0.0))
        return lnet_fail(LNET_VALUE_ERROR, "%s: eps is %g, expected 0 or more", op, args->eps);
    LNET_TRY(check_norm_input(op, args->x, args->residual, args->sum, args->gelu));
fail:
    return status;
}

static lnet_status check_layer_norm_backward(const char *op,
                                             const struct lnet_layer_norm_backward_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "x", args->x, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_same(op, args->x, "dx", args->dx));
    LNET_TRY(lnet_check_vector(op, args->x, "dweight", args->dweight));
    LNET_TRY(lnet_check_vector(op, args->x, "dbias", args->dbias));
    LNET_TRY(lnet_check_same(op, args->x, "dy", args->dy));
    LNET_TRY(lnet_check_vector(op, args->x, "weight", args->weight));
    LNET_TRY(lnet_check_row_statistic(op, args->x, "mean", args->mean));
    LNET_TRY(lnet_check_row_statistic(op, args->x, "rstd", args->rstd));
    if (args->dsum != NULL) LNET_TRY(lnet_check_same(op, args->x, "dsum", args->dsum));
fail:
    return status;
}

LNET_DEFINE_OP(layer_norm, LNET_FIELD(y), LNET_FIELD(mean), LNET_FIELD(rstd), LNET_FIELD(x),
               LNET_FIELD(weight), LNET_FIELD(bias), LNET_FIELD(eps), LNET_OPTIONAL(sum),
               LNET_OPTIONAL(residual), LNET_OPTIONAL(gelu));
LNET_DEFINE_OP(layer_norm_backward, LNET_FIELD(dx), LNET_FIELD(dweight), LNET_FIELD(dbias),
               LNET_FIELD(dy), LNET_FIELD(x), LNET_FIELD(weight), LNET_FIELD(mean),
               LNET_FIELD(rstd), LNET_OPTIONAL(dsum), LNET_OPTIONAL(gelu));
