/* Checks that ops make of their arguments; a failure names the value found and that expected. */
#ifndef LNET_CHECK_H
#define LNET_CHECK_H

#include "lnet/tensor.h"

/* Sets of dtypes. */
enum {
    LNET_IS_FLOAT = 1 << LNET_FLOAT32 | 1 << LNET_FLOAT16 | 1 << LNET_BFLOAT16,
    LNET_IS_FLOAT32 = 1 << LNET_FLOAT32,
    LNET_IS_HALF = 1 << LNET_FLOAT16 | 1 << LNET_BFLOAT16,
    LNET_IS_INDEX = 1 << LNET_INT32 | 1 << LNET_INT64,
    LNET_IS_INT64 = 1 << LNET_INT64,
};

/* lnet_check() makes these three of all tensors of every op. */
lnet_status lnet_check_device(const char *op, const char *name, const lnet_tensor *tensor,
                              const char *other_name, const lnet_tensor *other);
lnet_status lnet_check_contiguous(const char *op, const char *name, const lnet_tensor *tensor);
lnet_status lnet_check_writable(const char *op, const char *name, const lnet_tensor *tensor);

/* The tensor has a dtype of the set. */
lnet_status lnet_check_dtype(const char *op, const char *name, const lnet_tensor *tensor,
                             unsigned dtypes);

/* The tensor has exactly this shape: LNET_SHAPE(B, N) or a count and an array. */
lnet_status lnet_check_shape(const char *op, const char *name, const lnet_tensor *tensor,
                             int32_t ndim, const int64_t *shape);

/* `other` has the dtype and shape of `tensor`. */
lnet_status lnet_check_same(const char *op, const lnet_tensor *tensor, const char *other_name,
                            const lnet_tensor *other);

/* `vector` has shape (D,) and the dtype of `tensor` (..., D). */
lnet_status lnet_check_vector(const char *op, const lnet_tensor *tensor, const char *vector_name,
                              const lnet_tensor *vector);

/* `statistic` is float32 and has the shape of `tensor` (..., D) without its last dimension. */
lnet_status lnet_check_row_statistic(const char *op, const lnet_tensor *tensor,
                                     const char *statistic_name, const lnet_tensor *statistic);

/* Where the CPU can read it, every element of an index tensor is in [0, limit); an element equal
 * to *ignored, unless that is NULL, is in order too. */
lnet_status lnet_check_indices(const char *op, const char *name, const lnet_tensor *indices,
                               int64_t limit, const int64_t *ignored);

/* `cu_seqlens` (S+1,) int64 says where the documents of `tensor` (1, N, ...) begin and end: where
 * the CPU can read it, it rises from 0 to N. */
lnet_status lnet_check_cu_seqlens(const char *op, const lnet_tensor *cu_seqlens,
                                  const lnet_tensor *tensor);

/* The same where `tensor` is rows [start, start + N) of what the documents make up. */
lnet_status lnet_check_cu_seqlens_of_part(const char *op, const lnet_tensor *cu_seqlens,
                                          const lnet_tensor *tensor, int64_t start);

/* The number is finite; it is in [0, 1), as the chance to drop something is. */
lnet_status lnet_check_finite(const char *op, const char *name, double value);
lnet_status lnet_check_chance(const char *op, const char *name, double value);

/* Elements of all dimensions but the last one: the rows that a norm or a softmax sees. */
int64_t lnet_rows(const lnet_tensor *tensor);
/* The last dimension. */
int64_t lnet_width(const lnet_tensor *tensor);
/* Element i of an int32 or int64 tensor. */
static inline int64_t lnet_index(const lnet_tensor *indices, int64_t i) {
    return indices->dtype == LNET_INT32 ? ((const int32_t *)indices->data)[i]
                                        : ((const int64_t *)indices->data)[i];
}

#define LNET_SHAPE(...)                                                                            \
    (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]) {             \
        __VA_ARGS__                                                                                \
    }

#endif
