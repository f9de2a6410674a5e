/* Tensors: a dtype, a shape, strides, and a counted reference to the memory behind them. */
#ifndef LNET_TENSOR_H
#define LNET_TENSOR_H

#include "lnet/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LNET_MAX_DIMS = 8 };

typedef enum lnet_dtype {
    LNET_FLOAT32,
    LNET_FLOAT16,
    LNET_BFLOAT16,
    LNET_INT32,
    LNET_INT64,
    LNET_UINT8,
    LNET_DTYPE_COUNT,
} lnet_dtype;

typedef enum lnet_device_type { LNET_CPU, LNET_CUDA } lnet_device_type;

typedef struct lnet_device {
    lnet_device_type type;
    int32_t index;
} lnet_device;

/* Memory that several tensors may share. `release(owner)` runs when the last of them goes. */
typedef struct lnet_storage lnet_storage;

typedef struct lnet_tensor {
    void *data;            /* first element */
    lnet_storage *storage; /* what keeps `data` alive */
    lnet_dtype dtype;
    lnet_device device;
    int32_t ndim;
    bool readonly;
    int64_t shape[LNET_MAX_DIMS];
    int64_t strides[LNET_MAX_DIMS]; /* in elements, may be negative or zero */
} lnet_tensor;

size_t lnet_dtype_size(lnet_dtype dtype);
const char *lnet_dtype_name(lnet_dtype dtype);

/* A new contiguous tensor of uninitialised memory (of NaNs with LONGNET_POISON=1). */
lnet_status lnet_tensor_new(lnet_tensor *tensor, lnet_dtype dtype, lnet_device device, int32_t ndim,
                            const int64_t *shape);

/* The same on the CPU, in page-locked memory, which a GPU reads and writes on its own. */
lnet_status lnet_tensor_new_pinned(lnet_tensor *tensor, lnet_dtype dtype, int32_t ndim,
                                   const int64_t *shape);

/* A tensor over memory of somebody else; strides NULL means contiguous. On failure the caller
 * still owns `owner`. */
lnet_status lnet_tensor_wrap(lnet_tensor *tensor, void *data, lnet_dtype dtype, lnet_device device,
                             int32_t ndim, const int64_t *shape, const int64_t *strides,
                             bool readonly, void (*release)(void *owner), void *owner);

/* A second tensor over the same memory, which the caller may reshape and slice. */
void lnet_tensor_share(lnet_tensor *tensor, const lnet_tensor *source);

/* Drops the reference; the tensor becomes empty. Releasing an all-zero tensor is allowed. */
void lnet_tensor_release(lnet_tensor *tensor);

/* Where a device's work is queued; NULL on the CPU, where a call returns when its work is done. */
typedef struct lnet_stream lnet_stream;

/* Work on the tensor is queued on the stream: its memory outlives that work. */
void lnet_tensor_use(const lnet_tensor *tensor, lnet_stream *stream);

/* Another library may work on the tensor until its memory is released, on streams unknown. */
void lnet_tensor_lend(const lnet_tensor *tensor);

/* Another library has worked on the tensor until now, on `stream`; NULL: on streams unknown. */
void lnet_tensor_given_back(const lnet_tensor *tensor, lnet_stream *stream);

/* The owner of the memory gives it back in the order of the stream on which the tensor is used, as
 * the allocators of other libraries do: it is told at once, not when the GPU is done. */
void lnet_tensor_borrow(const lnet_tensor *tensor);

/* `stream` goes on after the work queued so far on the tensor. */
lnet_status lnet_tensor_ready(const lnet_tensor *tensor, lnet_stream *stream);

/* Whether its host memory is page-locked memory of ours. */
bool lnet_tensor_pinned(const lnet_tensor *tensor);

/* Copies into a contiguous tensor of the same dtype and shape, on the current stream of the GPU
 * that takes part; `source` is contiguous unless both lie on one GPU. Between pinned host memory
 * and a GPU it returns before the copy is complete; otherwise the host's memory is ready. */
lnet_status lnet_tensor_copy(const lnet_tensor *target, const lnet_tensor *source);

int64_t lnet_tensor_count(const lnet_tensor *tensor); /* elements */
bool lnet_tensor_contiguous(const lnet_tensor *tensor);

/* "float32 (2, 3, 4)"; returns `buffer`. */
const char *lnet_tensor_describe(const lnet_tensor *tensor, char *buffer, size_t size);

/* "(2, 3, 4)"; returns `buffer`. */
const char *lnet_shape_describe(int32_t ndim, const int64_t *shape, char *buffer, size_t size);

#endif
