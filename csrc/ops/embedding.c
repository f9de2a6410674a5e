#include "ops/embedding.h"

#include "lnet/check.h"

#include <string.h>

/* `table` is (V, E), `rows` (..., E), and `tokens` (...,) holds numbers in [0, V). */
static lnet_status check_lookup(const char *op, const char *table_name, const lnet_tensor *table,
                                const char *rows_name, const lnet_tensor *rows,
                                const lnet_tensor *tokens) {
    int64_t shape[LNET_MAX_DIMS];
    lnet_status status;
    if (table->ndim != 2)
        return lnet_fail(LNET_SHAPE_ERROR, "%s: %s: %d dimensions, expected 2: (V, E)", op,
                         table_name, table->ndim);
    if (tokens->ndim == LNET_MAX_DIMS)
        return lnet_fail(LNET_SHAPE_ERROR, "%s: tokens: %d dimensions, expected at most %d", op,
                         tokens->ndim, LNET_MAX_DIMS - 1);
    LNET_TRY(lnet_check_dtype(op, "tokens", tokens, LNET_IS_INDEX));
    memcpy(shape, tokens->shape, sizeof shape);
    shape[tokens->ndim] = table->shape[1];
    LNET_TRY(lnet_check_shape(op, rows_name, rows, tokens->ndim + 1, shape));
    LNET_TRY(lnet_check_indices(op, "tokens", tokens, table->shape[0], NULL));
fail:
    return status;
}

static lnet_status check_embedding(const char *op, const struct lnet_embedding_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "weight", args->weight, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_dtype(op, "out", args->out,
                              args->weight->dtype == LNET_FLOAT32 ? LNET_IS_FLOAT
                                                                  : 1u << args->weight->dtype));
    LNET_TRY(check_lookup(op, "weight", args->weight, "out", args->out, args->tokens));
fail:
    return status;
}

static lnet_status check_embedding_backward(const char *op,
                                            const struct lnet_embedding_backward_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "dout", args->dout, LNET_IS_FLOAT));
    LNET_TRY(
        lnet_check_dtype(op, "dweight", args->dweight, LNET_IS_FLOAT32 | 1u << args->dout->dtype));
    LNET_TRY(check_lookup(op, "dweight", args->dweight, "dout", args->dout, args->tokens));
fail:
    return status;
}

LNET_DEFINE_OP(embedding, LNET_FIELD(out), LNET_FIELD(weight), LNET_FIELD(tokens),
               LNET_FIELD(scale));
LNET_DEFINE_OP(embedding_backward, LNET_FIELD(dweight), LNET_FIELD(dout), LNET_FIELD(tokens),
               LNET_FIELD(scale));
