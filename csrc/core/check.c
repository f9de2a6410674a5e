#include "lnet/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

lnet_status lnet_check_dtype(const char *op, const char *name, const lnet_tensor *tensor,
                             unsigned dtypes) {
    char expected[128] = "";
    size_t used = 0;
    if (dtypes >> tensor->dtype & 1) return LNET_OK;
    for (int i = 0; i < LNET_DTYPE_COUNT; i++)
        if (dtypes >> i & 1)
            used += (size_t)snprintf(expected + used, sizeof expected - used, "%s%s",
                                     used ? " or " : "", lnet_dtype_name((lnet_dtype)i));
    return lnet_fail(LNET_DTYPE_ERROR, "%s: %s: dtype %s, expected %s", op, name,
                     lnet_dtype_name(tensor->dtype), expected);
}

lnet_status lnet_check_shape(const char *op, const char *name, const lnet_tensor *tensor,
                             int32_t ndim, const int64_t *shape) {
    char found[160], expected[160];
    if (tensor->ndim == ndim && memcmp(tensor->shape, shape, (size_t)ndim * sizeof *shape) == 0)
        return LNET_OK;
    return lnet_fail(LNET_SHAPE_ERROR, "%s: %s: shape %s, expected %s", op, name,
                     lnet_shape_describe(tensor->ndim, tensor->shape, found, sizeof found),
                     lnet_shape_describe(ndim, shape, expected, sizeof expected));
}

lnet_status lnet_check_contiguous(const char *op, const char *name, const lnet_tensor *tensor) {
    char found[160];
    if (lnet_tensor_contiguous(tensor)) return LNET_OK;
    return lnet_fail(LNET_SHAPE_ERROR, "%s: %s: strides %s, expected a contiguous tensor", op, name,
                     lnet_shape_describe(tensor->ndim, tensor->strides, found, sizeof found));
}

lnet_status lnet_check_writable(const char *op, const char *name, const lnet_tensor *tensor) {
    if (!tensor->readonly) return LNET_OK;
    return lnet_fail(LNET_VALUE_ERROR, "%s: %s: read-only, expected writable memory", op, name);
}

lnet_status lnet_check_device(const char *op, const char *name, const lnet_tensor *tensor,
                              const char *other_name, const lnet_tensor *other) {
    static const char *const types[] = {[LNET_CPU] = "cpu", [LNET_CUDA] = "cuda"};
    if (tensor->device.type == other->device.type && tensor->device.index == other->device.index)
        return LNET_OK;
    return lnet_fail(LNET_DEVICE_ERROR, "%s: %s: device %s:%d, expected %s:%d, the device of %s",
                     op, other_name, types[other->device.type], other->device.index,
                     types[tensor->device.type], tensor->device.index, name);
}

lnet_status lnet_check_same(const char *op, const lnet_tensor *tensor, const char *other_name,
                            const lnet_tensor *other) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, other_name, other, 1u << tensor->dtype));
    LNET_TRY(lnet_check_shape(op, other_name, other, tensor->ndim, tensor->shape));
fail:
    return status;
}

lnet_status lnet_check_vector(const char *op, const lnet_tensor *tensor, const char *vector_name,
                              const lnet_tensor *vector) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, vector_name, vector, 1u << tensor->dtype));
    LNET_TRY(lnet_check_shape(op, vector_name, vector, LNET_SHAPE(lnet_width(tensor))));
fail:
    return status;
}

lnet_status lnet_check_row_statistic(const char *op, const lnet_tensor *tensor,
                                     const char *statistic_name, const lnet_tensor *statistic) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, statistic_name, statistic, LNET_IS_FLOAT32));
    LNET_TRY(lnet_check_shape(op, statistic_name, statistic,
                              tensor->ndim > 0 ? tensor->ndim - 1 : 0, tensor->shape));
fail:
    return status;
}

lnet_status lnet_check_indices(const char *op, const char *name, const lnet_tensor *indices,
                               int64_t limit, const int64_t *ignored) {
    int64_t count = indices->device.type == LNET_CPU ? lnet_tensor_count(indices) : 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t index = lnet_index(indices, i);
        if ((index >= 0 && index < limit) || (ignored != NULL && index == *ignored)) continue;
        return lnet_fail(LNET_VALUE_ERROR,
                         "%s: %s: element %" PRId64 " is %" PRId64 ", expected 0 to %" PRId64, op,
                         name, i, index, limit - 1);
    }
    return LNET_OK;
}

/* The documents end at `rows`, or later where `more` is set. */
static lnet_status check_documents(const char *op, const lnet_tensor *cu_seqlens,
                                   const lnet_tensor *tensor, int64_t rows, bool more) {
    int64_t documents = cu_seqlens->ndim == 1 ? cu_seqlens->shape[0] - 1 : -1;
    char found[160];
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "cu_seqlens", cu_seqlens, LNET_IS_INT64));
    if (tensor->shape[0] != 1)
        return lnet_fail(LNET_SHAPE_ERROR,
                         "%s: cu_seqlens with a batch of %" PRId64 ", expected a batch of 1", op,
                         tensor->shape[0]);
    if (documents < 0)
        return lnet_fail(
            LNET_SHAPE_ERROR, "%s: cu_seqlens: shape %s, expected (S+1,)", op,
            lnet_shape_describe(cu_seqlens->ndim, cu_seqlens->shape, found, sizeof found));
    if (cu_seqlens->device.type != LNET_CPU) return LNET_OK;
    const int64_t *begin = cu_seqlens->data;
    int64_t end = begin[documents];
    const char *or_more = more ? " or more" : "";
    if (begin[0] != 0 || end < rows || (end > rows && !more))
        return lnet_fail(LNET_VALUE_ERROR,
                         "%s: cu_seqlens runs from %" PRId64 " to %" PRId64
                         ", expected to rise from 0 to %" PRId64 "%s",
                         op, begin[0], end, rows, or_more);
    for (int64_t i = 0; i < documents; i++)
        if (begin[i] > begin[i + 1])
            return lnet_fail(LNET_VALUE_ERROR,
                             "%s: cu_seqlens[%" PRId64 "] is %" PRId64 " after %" PRId64
                             ", expected to rise from 0 to %" PRId64 "%s",
                             op, i + 1, begin[i + 1], begin[i], rows, or_more);
fail:
    return status;
}

lnet_status lnet_check_cu_seqlens(const char *op, const lnet_tensor *cu_seqlens,
                                  const lnet_tensor *tensor) {
    return check_documents(op, cu_seqlens, tensor, tensor->shape[1], false);
}

lnet_status lnet_check_cu_seqlens_of_part(const char *op, const lnet_tensor *cu_seqlens,
                                          const lnet_tensor *tensor, int64_t start) {
    return check_documents(op, cu_seqlens, tensor, start + tensor->shape[1], true);
}

lnet_status lnet_check_finite(const char *op, const char *name, double value) {
    if (value - value == 0.0) return LNET_OK;
    return lnet_fail(LNET_VALUE_ERROR, "%s: %s is %g, expected a finite number", op, name, value);
}

lnet_status lnet_check_chance(const char *op, const char *name, double value) {
    if (value >= 0.0 && value < 1.0) return LNET_OK;
    return lnet_fail(LNET_VALUE_ERROR, "%s: %s is %g, expected 0 <= %s < 1", op, name, value, name);
}

int64_t lnet_width(const lnet_tensor *tensor) {
    return tensor->ndim > 0 ? tensor->shape[tensor->ndim - 1] : 1;
}

int64_t lnet_rows(const lnet_tensor *tensor) {
    int64_t rows = 1;
    for (int32_t i = 0; i < tensor->ndim - 1; i++) rows *= tensor->shape[i];
    return rows;
}
