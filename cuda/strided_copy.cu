/* A tensor of any strides into a contiguous one on the same device. */
#include "cuda/common.cuh"

static const int THREADS = 256;
static const int64_t MAX_BLOCKS = 1 << 16;

/* Dimensions innermost first, without those of one element, merged where memory runs on. */
struct layout {
    int64_t count;
    int32_t ndim;
    int64_t shape[LNET_MAX_DIMS];
    int64_t strides[LNET_MAX_DIMS];
};

static layout layout_of(const lnet_tensor *tensor) {
    layout l = {};
    l.count = 1;
    for (int32_t i = tensor->ndim - 1; i >= 0; i--) {
        int64_t size = tensor->shape[i], stride = tensor->strides[i];
        l.count *= size;
        if (size == 1) continue;
        int32_t last = l.ndim - 1;
        if (l.ndim > 0 && stride == l.strides[last] * l.shape[last]) {
            l.shape[last] *= size;
        } else {
            l.shape[l.ndim] = size;
            l.strides[l.ndim++] = stride;
        }
    }
    return l;
}

/* Joins elements that lie side by side in both tensors into wider ones, up to 16 bytes; the size
 * that they have then. */
static size_t widen(layout *from, size_t size, const lnet_tensor *target,
                    const lnet_tensor *source) {
    uintptr_t places =
        reinterpret_cast<uintptr_t>(target->data) | reinterpret_cast<uintptr_t>(source->data);
    if (from->strides[0] != 1) return size;
    for (; size < 16; size *= 2) {
        bool even = from->shape[0] % 2 == 0 && places % (2 * size) == 0;
        for (int32_t d = 1; d < from->ndim; d++) even = even && from->strides[d] % 2 == 0;
        if (!even) break;
        from->count /= 2;
        from->shape[0] /= 2;
        for (int32_t d = 1; d < from->ndim; d++) from->strides[d] /= 2;
    }
    return size;
}

template <typename element>
static __global__ void copy_strided(element *target, const element *source, const layout from) {
    int64_t step = static_cast<int64_t>(gridDim.x) * THREADS;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; i < from.count;
         i += step) {
        int64_t rest = i, offset = 0;
#pragma unroll 1
        for (int32_t d = 0; d < from.ndim - 1; d++) {
            int64_t row = rest / from.shape[d];
            offset += (rest - row * from.shape[d]) * from.strides[d];
            rest = row;
        }
        if (from.ndim > 0) offset += rest * from.strides[from.ndim - 1];
        target[i] = source[offset];
    }
}

template <typename element>
static void launch(const lnet_tensor *target, const lnet_tensor *source, const layout &from,
                   cudaStream_t queue) {
    int64_t blocks = (from.count + THREADS - 1) / THREADS;
    copy_strided<<<static_cast<unsigned>(blocks < MAX_BLOCKS ? blocks : MAX_BLOCKS), THREADS, 0,
                   queue>>>(static_cast<element *>(target->data),
                            static_cast<const element *>(source->data), from);
}

lnet_status lnet_cuda_copy_strided(const lnet_tensor *target, const lnet_tensor *source,
                                   lnet_stream *stream) {
    static const size_t sizes[LNET_DTYPE_COUNT] = {4, 2, 2, 4, 8, 1}; /* in lnet_dtype's order */
    lnet_device_scope scope(stream->device);
    if (scope.status != LNET_OK) return scope.status;
    layout from = layout_of(source);
    size_t size = sizes[source->dtype];
    cudaStream_t queue = lnet_cuda_stream(stream);
    if (from.count == 0) return LNET_OK;
    if (from.ndim == 0 || (from.ndim == 1 && from.strides[0] == 1))
        return lnet_cuda_check(cudaMemcpyAsync(target->data, source->data,
                                               static_cast<size_t>(from.count) * size,
                                               cudaMemcpyDeviceToDevice, queue),
                               "cudaMemcpyAsync");
    size = widen(&from, size, target, source);
    switch (size) {
    case 1:
        launch<uint8_t>(target, source, from, queue);
        break;
    case 2:
        launch<uint16_t>(target, source, from, queue);
        break;
    case 4:
        launch<uint32_t>(target, source, from, queue);
        break;
    case 8:
        launch<uint64_t>(target, source, from, queue);
        break;
    default:
        launch<uint4>(target, source, from, queue);
        break;
    }
    return lnet_cuda_launched("copy_strided");
}
