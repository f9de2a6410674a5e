#include "ops/stepped_rows.h"

#include "lnet/check.h"

#include <inttypes.h>

/* Far from where sums of rows would overflow. */
static const int64_t limit = (int64_t)1 << 62;

static lnet_status check_starts(const char *op, lnet_int64_list starts, int64_t step) {
    if (step < 1 || step > limit)
        return lnet_fail(LNET_VALUE_ERROR, "%s: step is %" PRId64 ", expected 1 to 2^62", op, step);
    for (int64_t h = 0; h < starts.count; h++)
        if (starts.items[h] < -limit || starts.items[h] > limit)
            return lnet_fail(LNET_VALUE_ERROR,
                             "%s: starts[%" PRId64 "] is %" PRId64 ", expected -2^62 to 2^62", op,
                             h, starts.items[h]);
    return LNET_OK;
}

static lnet_status check_ndim(const char *op, const char *name, const lnet_tensor *tensor,
                              int32_t ndim, const char *shape) {
    if (tensor->ndim == ndim) return LNET_OK;
    return lnet_fail(LNET_SHAPE_ERROR, "%s: %s: %d dimensions, expected %d: %s", op, name,
                     tensor->ndim, ndim, shape);
}

lnet_status lnet_check_stepped_rows(const char *op, const char *x_name, const lnet_tensor *x,
                                    const char *part_name, const lnet_tensor *part,
                                    lnet_int64_list starts, int64_t step) {
    lnet_status status;
    LNET_TRY(check_ndim(op, x_name, x, 4, "(B, N, H, D)"));
    LNET_TRY(check_ndim(op, part_name, part, 3, "(B*H, M, D)"));
    LNET_TRY(check_starts(op, starts, step));
    if (x->shape[2] == 0 ? starts.count > 0 : starts.count % x->shape[2] != 0)
        return lnet_fail(LNET_SHAPE_ERROR,
                         "%s: %" PRId64 " starts, expected a multiple of the %" PRId64
                         " heads of %s",
                         op, starts.count, x->shape[2], x_name);
    LNET_TRY(lnet_check_shape(op, part_name, part,
                              LNET_SHAPE(x->shape[0] * starts.count, part->shape[1], x->shape[3])));
fail:
    return status;
}

lnet_status lnet_check_stepped_statistic(const char *op, const char *x_name, const lnet_tensor *x,
                                         const char *part_name, const lnet_tensor *part,
                                         lnet_int64_list starts, int64_t step) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, x_name, x, LNET_IS_FLOAT32));
    LNET_TRY(check_ndim(op, x_name, x, 3, "(B, H, N)"));
    LNET_TRY(lnet_check_dtype(op, part_name, part, LNET_IS_FLOAT32));
    LNET_TRY(check_ndim(op, part_name, part, 2, "(B*H, M)"));
    LNET_TRY(check_starts(op, starts, step));
    if (starts.count != x->shape[1])
        return lnet_fail(LNET_SHAPE_ERROR,
                         "%s: %" PRId64 " starts, expected one for each of the %" PRId64
                         " heads of %s",
                         op, starts.count, x->shape[1], x_name);
    LNET_TRY(lnet_check_shape(op, part_name, part,
                              LNET_SHAPE(x->shape[0] * starts.count, part->shape[1])));
fail:
    return status;
}
