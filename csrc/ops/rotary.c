#include "ops/rotary.h"

#include "lnet/check.h"

#include <inttypes.h>

static lnet_status check_rotary(const char *op, const struct lnet_rotary_args *args) {
    const lnet_tensor *x = args->x;
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "x", x, LNET_IS_FLOAT));
    if (x->ndim != 4)
        return lnet_fail(LNET_SHAPE_ERROR, "%s: x: %d dimensions, expected 4: (B, N, H, D)", op,
                         x->ndim);
    if (x->shape[3] % 2 != 0)
        return lnet_fail(LNET_SHAPE_ERROR, "%s: x: head dim %" PRId64 ", expected an even number",
                         op, x->shape[3]);
    LNET_TRY(lnet_check_same(op, x, "out", args->out));
    LNET_TRY(lnet_check_finite(op, "base", args->base));
    LNET_TRY(lnet_check_finite(op, "scale_base", args->scale_base));
    if (args->start < 0 || args->start > INT64_MAX - x->shape[1])
        return lnet_fail(LNET_VALUE_ERROR,
                         "%s: start is %" PRId64 ", expected 0 or more, and positions below 2^63",
                         op, args->start);
    if (args->cu_seqlens != NULL)
        LNET_TRY(lnet_check_cu_seqlens_of_part(op, args->cu_seqlens, x, args->start));
    if (args->base <= 0.0)
        return lnet_fail(LNET_VALUE_ERROR, "%s: base is %g, expected more than 0", op, args->base);
    if (args->scale_base < 0.0)
        return lnet_fail(LNET_VALUE_ERROR, "%s: scale_base is %g, expected 0 or more", op,
                         args->scale_base);
    if (args->scale_base > 0.0 && args->block < 1)
        return lnet_fail(LNET_VALUE_ERROR, "%s: block is %" PRId64 ", expected 1 or more", op,
                         args->block);
    if (args->sign != 1 && args->sign != -1)
        return lnet_fail(LNET_VALUE_ERROR, "%s: sign is %" PRId64 ", expected 1 or -1", op,
                         args->sign);
    LNET_TRY(lnet_check_finite(op, "factor", args->factor));
    LNET_TRY(lnet_check_finite(op, "slow", args->slow));
    LNET_TRY(lnet_check_finite(op, "fast", args->fast));
    if (args->factor < 1.0 && args->factor != 0.0)
        return lnet_fail(LNET_VALUE_ERROR, "%s: factor is %g, expected 1 or more", op,
                         args->factor);
    if (args->length < 0)
        return lnet_fail(LNET_VALUE_ERROR, "%s: length is %" PRId64 ", expected 0 or more", op,
                         args->length);
    if (args->length > 0 && args->slow >= args->fast)
        return lnet_fail(LNET_VALUE_ERROR, "%s: slow is %g, expected less than fast, %g", op,
                         args->slow, args->fast);
fail:
    return status;
}

LNET_DEFINE_OP(rotary, LNET_FIELD(out), LNET_FIELD(x), LNET_OPTIONAL(cu_seqlens), LNET_FIELD(start),
               LNET_FIELD(base), LNET_FIELD(scale_base), LNET_FIELD(block), LNET_FIELD(inverse),
               LNET_FIELD(sign), LNET_OPTIONAL(factor), LNET_OPTIONAL(length), LNET_OPTIONAL(slow),
               LNET_OPTIONAL(fast));
