#include "ops/dilated_attention.h"

#include "lnet/check.h"

#include <inttypes.h>

lnet_status lnet_dilation_check(const char *op, const struct lnet_dilation *dilation) {
    const lnet_int64_list w = dilation->segment_lengths, r = dilation->dilation_rates;
    if (w.count != r.count)
        return lnet_fail(LNET_VALUE_ERROR,
                         "%s: %" PRId64 " segment lengths and %" PRId64
                         " dilation rates, expected as many of one as of the other",
                         op, w.count, r.count);
    if (w.count < 1 || w.count > LNET_MAX_LEVELS)
        return lnet_fail(LNET_VALUE_ERROR, "%s: %" PRId64 " levels, expected 1 to %d", op, w.count,
                         LNET_MAX_LEVELS);
    for (int64_t i = 0; i < w.count; i++)
        if (r.items[i] < 1 || r.items[i] > w.items[i])
            return lnet_fail(LNET_VALUE_ERROR,
                             "%s: level %" PRId64 ": segment length %" PRId64
                             " and dilation rate %" PRId64
                             ", expected 1 <= dilation rate <= segment length",
                             op, i, w.items[i], r.items[i]);
    if (dilation->offsets != LNET_OFFSETS_INTERLEAVED && dilation->offsets != LNET_OFFSETS_GROUPED)
        return lnet_fail(LNET_VALUE_ERROR, "%s: offsets %" PRId64 ", expected 0 or 1", op,
                         dilation->offsets);
    if (!(dilation->dropout >= 0.0 && dilation->dropout < 1.0))
        return lnet_fail(LNET_VALUE_ERROR, "%s: dropout %g, expected 0 <= dropout < 1", op,
                         dilation->dropout);
    if (!(dilation->scale - dilation->scale == 0.0))
        return lnet_fail(LNET_VALUE_ERROR, "%s: scale %g, expected a finite number", op,
                         dilation->scale);
    if (dilation->first_level < 0 || dilation->first_level > LNET_MAX_LEVELS - w.count)
        return lnet_fail(LNET_VALUE_ERROR,
                         "%s: first level %" PRId64 " of dropout with %" PRId64
                         " levels, expected 0 to %" PRId64,
                         op, dilation->first_level, w.count, LNET_MAX_LEVELS - w.count);
    return LNET_OK;
}

/* `lengths` and `cu_seqlens`, which say what rows of k (B, N, Hk, D) exist. */
static lnet_status check_sequences(const char *op, const struct lnet_dilation *dilation,
                                   const lnet_tensor *k) {
    lnet_status status;
    if (dilation->lengths != NULL && dilation->cu_seqlens != NULL)
        return lnet_fail(LNET_VALUE_ERROR,
                         "%s: both lengths and cu_seqlens, expected at most one of them", op);
    if (dilation->lengths != NULL) {
        const lnet_tensor *lengths = dilation->lengths;
        LNET_TRY(lnet_check_dtype(op, "lengths", lengths, LNET_IS_INT64));
        LNET_TRY(lnet_check_shape(op, "lengths", lengths, LNET_SHAPE(k->shape[0])));
        const int64_t *rows = lengths->data;
        for (int64_t b = 0; lengths->device.type == LNET_CPU && b < k->shape[0]; b++)
            if (rows[b] < 0 || rows[b] > k->shape[1])
                return lnet_fail(LNET_VALUE_ERROR,
                                 "%s: lengths[%" PRId64 "] is %" PRId64 ", expected 0 to %" PRId64,
                                 op, b, rows[b], k->shape[1]);
    }
    if (dilation->cu_seqlens != NULL) LNET_TRY(lnet_check_cu_seqlens(op, dilation->cu_seqlens, k));
    status = LNET_OK;
fail:
    return status;
}

/* q (B, Nq, H, D), k and v (B, N, Hk, D) fit each other. */
static lnet_status check_qkv(const char *op, const lnet_tensor *q, const lnet_tensor *k,
                             const lnet_tensor *v) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "q", q, LNET_IS_FLOAT));
    if (q->ndim != 4 || k->ndim != 4)
        return lnet_fail(LNET_SHAPE_ERROR, "%s: %s: %d dimensions, expected 4: (B, N, H, D)", op,
                         q->ndim != 4 ? "q" : "k", q->ndim != 4 ? q->ndim : k->ndim);
    int64_t heads = q->shape[2], kv_heads = k->shape[2], width = q->shape[3];
    if (width < 16 || width > 256 || width % 8 != 0)
        return lnet_fail(LNET_SHAPE_ERROR,
                         "%s: q: head dim %" PRId64 ", expected 16 to 256 in steps of 8", op,
                         width);
    if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0)
        return lnet_fail(LNET_SHAPE_ERROR,
                         "%s: k: %" PRId64 " heads, q has %" PRId64 ": not a multiple", op,
                         kv_heads, heads);
    if (q->shape[0] * heads >= LNET_MAX_BATCH_HEADS)
        return lnet_fail(LNET_SHAPE_ERROR,
                         "%s: q: batch times heads is %" PRId64 ", expected less than %d", op,
                         q->shape[0] * heads, LNET_MAX_BATCH_HEADS);
    LNET_TRY(lnet_check_device(op, "q", q, "k", k));
    LNET_TRY(lnet_check_device(op, "q", q, "v", v));
    LNET_TRY(lnet_check_dtype(op, "k", k, 1u << q->dtype));
    int64_t rows = q->shape[1] > k->shape[1] ? q->shape[1] : k->shape[1]; /* some may be q's */
    LNET_TRY(lnet_check_shape(op, "k", k, LNET_SHAPE(q->shape[0], rows, kv_heads, width)));
    LNET_TRY(lnet_check_same(op, k, "v", v));
fail:
    return status;
}

/* Where q (B, Nq, H, D) lies in k (B, N, Hk, D), and where both do in what dropout counts. */
static lnet_status check_rows(const char *op, const struct lnet_dilation *dilation,
                              const lnet_tensor *q, const lnet_tensor *k) {
    int64_t queries = q->shape[1], rows = k->shape[1];
    if (dilation->query_start < 0 || dilation->query_start > rows - queries)
        return lnet_fail(LNET_VALUE_ERROR,
                         "%s: query_start %" PRId64 " with %" PRId64 " rows of q and %" PRId64
                         " of k, expected 0 to %" PRId64,
                         op, dilation->query_start, queries, rows, rows - queries);
    if (dilation->first_row < 0 || dilation->first_row > INT64_MAX - rows)
        return lnet_fail(LNET_VALUE_ERROR,
                         "%s: first row %" PRId64 " of dropout with %" PRId64
                         " rows of k, expected 0 to %" PRId64,
                         op, dilation->first_row, rows, INT64_MAX - rows);
    return LNET_OK;
}

lnet_status lnet_dilated_attention_check_inputs(const char *op,
                                                const struct lnet_dilation *dilation,
                                                const lnet_tensor *q, const lnet_tensor *k,
                                                const lnet_tensor *v) {
    lnet_status status;
    LNET_TRY(check_qkv(op, q, k, v));
    LNET_TRY(lnet_dilation_check(op, dilation));
    LNET_TRY(check_rows(op, dilation, q, k));
    LNET_TRY(check_sequences(op, dilation, k));
fail:
    return status;
}

static lnet_status check_lse(const char *op, const lnet_tensor *lse, const lnet_tensor *q) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "lse", lse, LNET_IS_FLOAT32));
    LNET_TRY(lnet_check_shape(op, "lse", lse, LNET_SHAPE(q->shape[0], q->shape[2], q->shape[1])));
fail:
    return status;
}

static lnet_status check_dilated_attention(const char *op,
                                           const struct lnet_dilated_attention_args *args) {
    lnet_status status;
    LNET_TRY(lnet_dilated_attention_check_inputs(op, &args->dilation, args->q, args->k, args->v));
    LNET_TRY(lnet_check_same(op, args->q, "out", args->out));
    LNET_TRY(check_lse(op, args->lse, args->q));
fail:
    return status;
}

/* A gradient: of the shape of `like`, and of one of the dtypes. */
static lnet_status check_gradient(const char *op, const char *name, const lnet_tensor *gradient,
                                  const lnet_tensor *like, unsigned dtypes) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, name, gradient, dtypes));
    LNET_TRY(lnet_check_shape(op, name, gradient, like->ndim, like->shape));
fail:
    return status;
}

static lnet_status
check_dilated_attention_backward(const char *op,
                                 const struct lnet_dilated_attention_backward_args *args) {
    lnet_status status;
    LNET_TRY(lnet_dilated_attention_check_inputs(op, &args->dilation, args->q, args->k, args->v));
    LNET_TRY(lnet_check_same(op, args->q, "dout", args->dout));
    LNET_TRY(lnet_check_same(op, args->q, "out", args->out));
    LNET_TRY(check_gradient(op, "dq", args->dq, args->q, LNET_IS_FLOAT32 | 1u << args->q->dtype));
    LNET_TRY(check_gradient(op, "dk", args->dk, args->k, 1u << args->dq->dtype));
    LNET_TRY(check_gradient(op, "dv", args->dv, args->v, 1u << args->dq->dtype));
    LNET_TRY(check_lse(op, args->lse, args->q));
fail:
    return status;
}

/* clang-format off */
#define DILATION_FIELDS                                                                            \
    LNET_FIELD_OF(dilation, segment_lengths), LNET_FIELD_OF(dilation, dilation_rates),             \
    LNET_FIELD_OF(dilation, offsets), LNET_FIELD_OF(dilation, causal),                             \
    LNET_FIELD_OF(dilation, detached), LNET_FIELD_OF(dilation, zero_keys),                         \
    LNET_FIELD_OF(dilation, deterministic), LNET_FIELD_OF(dilation, scale), LNET_FIELD_OF(dilation, dropout),                              \
    LNET_FIELD_OF(dilation, seed), LNET_OPTIONAL_OF(dilation, lengths),                            \
    LNET_OPTIONAL_OF(dilation, cu_seqlens), LNET_OPTIONAL_OF(dilation, query_start),               \
    LNET_OPTIONAL_OF(dilation, first_row), LNET_OPTIONAL_OF(dilation, first_level)
/* clang-format on */

LNET_DEFINE_OP(dilated_attention, LNET_FIELD(out), LNET_FIELD(lse), LNET_FIELD(q), LNET_FIELD(k),
               LNET_FIELD(v), DILATION_FIELDS);
LNET_DEFINE_OP(dilated_attention_backward, LNET_FIELD(dq), LNET_FIELD(dk), LNET_FIELD(dv),
               LNET_FIELD(dout), LNET_FIELD(q), LNET_FIELD(k), LNET_FIELD(v), LNET_FIELD(out),
               LNET_FIELD(lse), DILATION_FIELDS);
