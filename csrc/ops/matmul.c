#include "ops/matmul.h"

#include "lnet/check.h"

static lnet_status check_matrix(const char *op, const char *name, const lnet_tensor *tensor) {
    char found[160];
    if (tensor->ndim == 2) return LNET_OK;
    return lnet_fail(LNET_SHAPE_ERROR, "%s: %s: shape %s, expected two dimensions", op, name,
                     lnet_shape_describe(tensor->ndim, tensor->shape, found, sizeof found));
}

static lnet_status check_dtypes(const char *op, const struct lnet_matmul_args *args) {
    unsigned of_a = 1u << args->a->dtype, of_out = 1u << args->out->dtype;
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "a", args->a, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_dtype(op, "b", args->b, of_a));
    LNET_TRY(lnet_check_dtype(op, "out", args->out, of_a | LNET_IS_FLOAT32));
    if (args->bias != NULL) LNET_TRY(lnet_check_dtype(op, "bias", args->bias, of_out));
    if (args->dbias != NULL) LNET_TRY(lnet_check_dtype(op, "dbias", args->dbias, of_out));
    if (args->c != NULL) LNET_TRY(lnet_check_dtype(op, "c", args->c, of_out));
fail:
    return status;
}

static lnet_status check_matmul(const char *op, const struct lnet_matmul_args *args) {
    lnet_status status;
    LNET_TRY(check_dtypes(op, args));
    LNET_TRY(check_matrix(op, "a", args->a));
    LNET_TRY(check_matrix(op, "b", args->b));
    int64_t M = args->a->shape[args->transpose_a], K = args->a->shape[!args->transpose_a];
    int64_t N = args->b->shape[!args->transpose_b];
    if (args->transpose_b)
        LNET_TRY(lnet_check_shape(op, "b", args->b, LNET_SHAPE(N, K)));
    else
        LNET_TRY(lnet_check_shape(op, "b", args->b, LNET_SHAPE(K, N)));
    LNET_TRY(lnet_check_shape(op, "out", args->out, LNET_SHAPE(M, N)));
    if (args->bias != NULL) LNET_TRY(lnet_check_shape(op, "bias", args->bias, LNET_SHAPE(N)));
    if (args->c != NULL) LNET_TRY(lnet_check_shape(op, "c", args->c, LNET_SHAPE(M, N)));
    if (args->dbias == NULL) return LNET_OK;
    LNET_TRY(lnet_check_shape(op, "dbias", args->dbias, LNET_SHAPE(M)));
    if (!args->transpose_a)
        return lnet_fail(LNET_VALUE_ERROR, "%s: dbias without transpose_a, expected with it", op);
    if (args->bias != NULL)
        return lnet_fail(LNET_VALUE_ERROR, "%s: bias and dbias, expected at most one of them", op);
fail:
    return status;
}

LNET_DEFINE_OP(matmul, LNET_FIELD(out), LNET_OPTIONAL(dbias), LNET_FIELD(a), LNET_FIELD(b),
               LNET_OPTIONAL(bias), LNET_OPTIONAL(c), LNET_FIELD(transpose_a),
               LNET_FIELD(transpose_b));
