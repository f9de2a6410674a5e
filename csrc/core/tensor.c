#include "lnet/tensor.h"

#include "lnet/device.h"
#include "lnet/memory.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lnet_storage {
    atomic_long references;
    void (*release)(
        void *owner); /* NULL: `owner` is device memory of ours, allocated on `stream` */
    void *owner;
    int64_t bytes;                 /* of device memory of ours */
    bool pinned;                   /* page-locked memory of ours */
    _Atomic(lnet_stream *) stream; /* the first that uses the memory, or NULL */
    atomic_bool elsewhere;         /* other streams use it, too */
    atomic_bool lent;              /* and those of other libraries */
    atomic_bool borrowed;          /* the owner gives the memory back in the order of `stream` */
};

static const struct {
    const char *name;
    size_t size;
} dtypes[LNET_DTYPE_COUNT] = {
    [LNET_FLOAT32] = {"float32", 4},   [LNET_FLOAT16] = {"float16", 2},
    [LNET_BFLOAT16] = {"bfloat16", 2}, [LNET_INT32] = {"int32", 4},
    [LNET_INT64] = {"int64", 8},       [LNET_UINT8] = {"uint8", 1},
};

size_t lnet_dtype_size(lnet_dtype dtype) {
    return dtypes[dtype].size;
}

const char *lnet_dtype_name(lnet_dtype dtype) {
    return dtypes[dtype].name;
}

static lnet_status storage_new(lnet_storage **storage, void (*release)(void *), void *owner) {
    *storage = malloc(sizeof **storage);
    if (*storage == NULL) return lnet_fail(LNET_MEMORY_ERROR, "out of host memory: a tensor");
    memset(*storage, 0, sizeof **storage);
    atomic_init(&(*storage)->references, 1);
    (*storage)->release = release;
    (*storage)->owner = owner;
    return LNET_OK;
}

static void wait_for_device(int32_t device) {
    const lnet_cuda *cuda;
    if (lnet_cuda_get(&cuda) == LNET_OK) (void)cuda->device_synchronize(device);
}

static void storage_release(lnet_storage *storage) {
    lnet_stream *stream = atomic_load(&storage->stream);
    if (stream == NULL) {
        storage->release(storage->owner);
    } else {
        if (atomic_load(&storage->elsewhere)) (void)lnet_stream_after_all(stream);
        if (atomic_load(&storage->lent)) wait_for_device(stream->device);
        if (storage->release != NULL && atomic_load(&storage->borrowed)) {
            storage->release(storage->owner);
            lnet_stream_release(stream);
        } else if (storage->release != NULL) {
            lnet_release_after(stream, storage->release, storage->owner);
        } else {
            lnet_device_free(storage->owner, storage->bytes, stream);
            lnet_stream_release(stream);
        }
    }
    free(storage);
}

enum { POISON = 0xFF }; /* NaN in all float types, -1 */

static bool poison_asked_for(void) {
    static atomic_int answer = -1;
    if (atomic_load(&answer) < 0) {
        const char *value = getenv("LONGNET_POISON");
        atomic_store(&answer, value != NULL && strcmp(value, "1") == 0);
    }
    return atomic_load(&answer);
}

/* The bytes that `shape` needs, or a failure where they do not fit 63 bits. */
static lnet_status shape_bytes(int64_t *bytes, lnet_dtype dtype, int32_t ndim,
                               const int64_t *shape) {
    char text[160];
    if (ndim < 0 || ndim > LNET_MAX_DIMS)
        return lnet_fail(LNET_SHAPE_ERROR, "%d dimensions, expected at most %d", ndim,
                         LNET_MAX_DIMS);
    *bytes = (int64_t)dtypes[dtype].size;
    for (int32_t i = 0; i < ndim; i++) {
        if (shape[i] < 0 || __builtin_mul_overflow(*bytes, shape[i], bytes))
            return lnet_fail(LNET_SHAPE_ERROR, "shape %s: negative, or more than 2^63 bytes of %s",
                             lnet_shape_describe(ndim, shape, text, sizeof text),
                             dtypes[dtype].name);
    }
    return LNET_OK;
}

static void set_layout(lnet_tensor *tensor, int32_t ndim, const int64_t *shape,
                       const int64_t *strides) {
    int64_t step = 1;
    tensor->ndim = ndim;
    for (int32_t i = ndim - 1; i >= 0; i--) {
        tensor->shape[i] = shape[i];
        tensor->strides[i] = strides != NULL ? strides[i] : step;
        step *= shape[i];
    }
}

/* Fills in what a new contiguous tensor is, from its first byte on. */
static void set_new(lnet_tensor *tensor, void *data, lnet_dtype dtype, lnet_device device,
                    int32_t ndim, const int64_t *shape) {
    tensor->data = data;
    tensor->dtype = dtype;
    tensor->device = device;
    set_layout(tensor, ndim, shape, NULL);
}

static lnet_status new_on_cpu(lnet_tensor *tensor, void **data, int64_t bytes) {
    lnet_status status;
    LNET_TRY(lnet_alloc(data, bytes));
    LNET_TRY(storage_new(&tensor->storage, lnet_free, *data));
    if (poison_asked_for()) memset(*data, POISON, (size_t)bytes);
    return LNET_OK;
fail:
    lnet_free(*data);
    return status;
}

static lnet_status new_on_gpu(lnet_tensor *tensor, void **data, int64_t bytes, int32_t device) {
    const lnet_cuda *cuda;
    lnet_stream *stream = NULL;
    lnet_status status;
    *data = NULL;
    LNET_TRY(lnet_cuda_device(&cuda, device));
    LNET_TRY(lnet_stream_current(&stream, device));
    LNET_TRY(lnet_device_alloc(data, bytes, stream));
    if (poison_asked_for()) LNET_TRY(cuda->fill(*data, POISON, bytes, stream));
    LNET_TRY(storage_new(&tensor->storage, NULL, *data));
    tensor->storage->bytes = bytes;
    atomic_store(&tensor->storage->stream, lnet_stream_retain(stream));
    return LNET_OK;
fail:
    if (*data != NULL) lnet_device_free(*data, bytes, stream);
    return status;
}

lnet_status lnet_tensor_new(lnet_tensor *tensor, lnet_dtype dtype, lnet_device device, int32_t ndim,
                            const int64_t *shape) {
    lnet_status status;
    void *data;
    int64_t bytes;
    memset(tensor, 0, sizeof *tensor);
    LNET_TRY(shape_bytes(&bytes, dtype, ndim, shape));
    LNET_TRY(device.type == LNET_CPU ? new_on_cpu(tensor, &data, bytes)
                                     : new_on_gpu(tensor, &data, bytes, device.index));
    set_new(tensor, data, dtype, device, ndim, shape);
fail:
    return status;
}

lnet_status lnet_tensor_new_pinned(lnet_tensor *tensor, lnet_dtype dtype, int32_t ndim,
                                   const int64_t *shape) {
    lnet_pinned *block = NULL;
    lnet_status status;
    int64_t bytes;
    memset(tensor, 0, sizeof *tensor);
    LNET_TRY(shape_bytes(&bytes, dtype, ndim, shape));
    LNET_TRY(lnet_pinned_alloc(&block, bytes));
    LNET_TRY(storage_new(&tensor->storage, lnet_pinned_free, block));
    if (poison_asked_for()) memset(block->memory, POISON, (size_t)bytes);
    tensor->storage->pinned = true;
    set_new(tensor, block->memory, dtype, (lnet_device){LNET_CPU, 0}, ndim, shape);
    return LNET_OK;
fail:
    if (block != NULL) lnet_pinned_free(block);
    return status;
}

lnet_status lnet_tensor_wrap(lnet_tensor *tensor, void *data, lnet_dtype dtype, lnet_device device,
                             int32_t ndim, const int64_t *shape, const int64_t *strides,
                             bool readonly, void (*release)(void *owner), void *owner) {
    lnet_status status;
    int64_t bytes;
    memset(tensor, 0, sizeof *tensor);
    LNET_TRY(shape_bytes(&bytes, dtype, ndim, shape));
    LNET_TRY(storage_new(&tensor->storage, release, owner));
    tensor->data = data;
    tensor->dtype = dtype;
    tensor->device = device;
    tensor->readonly = readonly;
    set_layout(tensor, ndim, shape, strides);
fail:
    return status;
}

void lnet_tensor_share(lnet_tensor *tensor, const lnet_tensor *source) {
    *tensor = *source;
    if (tensor->storage != NULL) atomic_fetch_add(&tensor->storage->references, 1);
}

void lnet_tensor_release(lnet_tensor *tensor) {
    lnet_storage *storage = tensor->storage;
    memset(tensor, 0, sizeof *tensor);
    if (storage != NULL && atomic_fetch_sub(&storage->references, 1) == 1) storage_release(storage);
}

void lnet_tensor_use(const lnet_tensor *tensor, lnet_stream *stream) {
    lnet_storage *storage = tensor->storage;
    lnet_stream *first = NULL;
    if (atomic_load(&storage->stream) == stream) return;
    lnet_stream_retain(stream);
    if (atomic_compare_exchange_strong(&storage->stream, &first, stream)) return;
    lnet_stream_release(stream);
    if (first != stream) atomic_store(&storage->elsewhere, true);
}

/* A stream of ours that uses the memory, so that its release waits for that stream. */
static lnet_stream *first_stream(const lnet_tensor *tensor) {
    lnet_stream *stream = atomic_load(&tensor->storage->stream);
    if (stream == NULL && lnet_stream_current(&stream, tensor->device.index) == LNET_OK)
        lnet_tensor_use(tensor, stream);
    return stream;
}

void lnet_tensor_lend(const lnet_tensor *tensor) {
    if (first_stream(tensor) != NULL) atomic_store(&tensor->storage->lent, true);
}

void lnet_tensor_borrow(const lnet_tensor *tensor) {
    atomic_store(&tensor->storage->borrowed, true);
}

void lnet_tensor_given_back(const lnet_tensor *tensor, lnet_stream *stream) {
    lnet_stream *first = first_stream(tensor);
    if (stream == NULL || first == NULL || lnet_stream_after(first, stream) != LNET_OK)
        wait_for_device(tensor->device.index);
}

lnet_status lnet_tensor_ready(const lnet_tensor *tensor, lnet_stream *stream) {
    lnet_stream *first = atomic_load(&tensor->storage->stream);
    if (first == NULL) return LNET_OK;
    return atomic_load(&tensor->storage->elsewhere) ? lnet_stream_after_all(stream)
                                                    : lnet_stream_after(stream, first);
}

bool lnet_tensor_pinned(const lnet_tensor *tensor) {
    return tensor->storage->pinned;
}

int64_t lnet_tensor_count(const lnet_tensor *tensor) {
    int64_t count = 1;
    for (int32_t i = 0; i < tensor->ndim; i++) count *= tensor->shape[i];
    return count;
}

bool lnet_tensor_contiguous(const lnet_tensor *tensor) {
    int64_t step = 1;
    if (lnet_tensor_count(tensor) == 0) return true;
    for (int32_t i = tensor->ndim - 1; i >= 0; i--) {
        if (tensor->shape[i] != 1 && tensor->strides[i] != step) return false;
        step *= tensor->shape[i];
    }
    return true;
}

const char *lnet_shape_describe(int32_t ndim, const int64_t *shape, char *buffer, size_t size) {
    size_t used = (size_t)snprintf(buffer, size, "(");
    for (int32_t i = 0; i < ndim && used < size; i++)
        used +=
            (size_t)snprintf(buffer + used, size - used, i ? ", %" PRId64 : "%" PRId64, shape[i]);
    if (used < size) snprintf(buffer + used, size - used, ndim == 1 ? ",)" : ")");
    return buffer;
}

const char *lnet_tensor_describe(const lnet_tensor *tensor, char *buffer, size_t size) {
    size_t used = (size_t)snprintf(buffer, size, "%s ", lnet_dtype_name(tensor->dtype));
    if (used < size) lnet_shape_describe(tensor->ndim, tensor->shape, buffer + used, size - used);
    return buffer;
}
