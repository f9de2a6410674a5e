#include "ops/alibi.h"

#include "lnet/check.h"

#include <inttypes.h>

static lnet_status check_alibi(const char *op, const struct lnet_alibi_args *args) {
    const lnet_tensor *x = args->x, *slopes = args->slopes;
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "x", x, LNET_IS_FLOAT));
    if (x->ndim != 4)
        return lnet_fail(LNET_SHAPE_ERROR, "%s: x: %d dimensions, expected 4: (B, N, H, D)", op,
                         x->ndim);
    LNET_TRY(lnet_check_dtype(op, "out", args->out, 1u << x->dtype));
    LNET_TRY(lnet_check_shape(
        op, "out", args->out,
        LNET_SHAPE(x->shape[0], x->shape[1], x->shape[2], x->shape[3] + LNET_ALIBI_EXTRA)));
    if (args->sign < -1 || args->sign > 1)
        return lnet_fail(LNET_VALUE_ERROR, "%s: sign is %" PRId64 ", expected 1, -1 or 0", op,
                         args->sign);
    if ((args->sign == 1) != (slopes != NULL))
        return lnet_fail(LNET_VALUE_ERROR, "%s: %s slopes, expected them for queries alone", op,
                         slopes != NULL ? "found" : "no");
    if (slopes != NULL) {
        LNET_TRY(lnet_check_dtype(op, "slopes", slopes, LNET_IS_FLOAT32));
        LNET_TRY(lnet_check_shape(op, "slopes", slopes, LNET_SHAPE(x->shape[2])));
    }
    if (args->sign != 0 && (args->block < 1 || args->block > LNET_ALIBI_MAX_BLOCK))
        return lnet_fail(LNET_VALUE_ERROR, "%s: block is %" PRId64 ", expected 1 to %d", op,
                         args->block, LNET_ALIBI_MAX_BLOCK);
    if (args->start < 0 || args->start > INT64_MAX - x->shape[1])
        return lnet_fail(LNET_VALUE_ERROR,
                         "%s: start is %" PRId64 ", expected 0 or more, and positions below 2^63",
                         op, args->start);
    if (args->cu_seqlens != NULL)
        LNET_TRY(lnet_check_cu_seqlens_of_part(op, args->cu_seqlens, x, args->start));
fail:
    return status;
}

LNET_DEFINE_OP(alibi, LNET_FIELD(out), LNET_FIELD(x), LNET_OPTIONAL(slopes),
               LNET_OPTIONAL(cu_seqlens), LNET_FIELD(start), LNET_FIELD(block), LNET_FIELD(sign));
