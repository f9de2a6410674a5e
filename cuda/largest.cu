/* The largest of what several ranks have: NCCL's own drops NaN. */
#include "cuda/nccl.cuh"
#include "cuda/packs.cuh"

enum { THREADS = 256, MOST_BLOCKS = 1 << 16 };

template <typename element>
static __global__ void __launch_bounds__(THREADS)
    find_largest(element *x, const element *parts, int64_t count, int32_t size) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * THREADS;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; i < count;
         i += step) {
        float largest = lnet_widen(parts[i]);
        for (int32_t rank = 1; rank < size; rank++) {
            float other = lnet_widen(parts[rank * count + i]);
            if (other > largest || isnan(other)) largest = other;
        }
        lnet_narrow(&x[i], largest);
    }
}

lnet_status lnet_cuda_largest(const lnet_tensor *x, const lnet_tensor *parts, int32_t size,
                              lnet_stream *stream) {
    lnet_device_scope scope(stream->device);
    if (scope.status != LNET_OK) return scope.status;
    const int64_t count = lnet_elements_of(x), blocks = (count + THREADS - 1) / THREADS;
    return lnet_by_dtype(x->dtype, [&](auto zero) {
        using element = decltype(zero);
        find_largest<<<static_cast<unsigned>(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS), THREADS,
                       0, lnet_cuda_stream(stream)>>>(
            static_cast<element *>(x->data), static_cast<const element *>(parts->data), count,
            size);
        return lnet_cuda_launched("find_largest");
    });
}
