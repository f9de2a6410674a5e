/* What ops on rows (..., D) share: packets of elements as float32, sums over the threads of a row,
 * and launches over rows.
 *
 * A packet is 16 bytes where rows begin at multiples of 16 bytes, else one element. */
#ifndef LNET_CUDA_ROWS_CUH
#define LNET_CUDA_ROWS_CUH

#include "cuda/packs.cuh"

/* ---- packets ---- */

/* N elements side by side, as they lie in memory: 16 bytes, or one element. */
template <typename element, int N> struct packet {
    lnet_pack<element, N> pack;

    __device__ __forceinline__ void widen(float (&x)[N]) const { lnet_widen(x, pack); }
    __device__ __forceinline__ void narrow(const float (&x)[N]) { lnet_narrow(&pack, x); }
    __device__ __forceinline__ void load(const element *row, int64_t i) {
        lnet_read(&pack, row + i * N);
    }
    __device__ __forceinline__ void store(element *row, int64_t i) const {
        lnet_write(row + i * N, pack);
    }
};

template <typename element> struct packet<element, 1> {
    element item;

    __device__ __forceinline__ void widen(float (&x)[1]) const { x[0] = lnet_widen(item); }
    __device__ __forceinline__ void narrow(const float (&x)[1]) { lnet_narrow(&item, x[0]); }
    __device__ __forceinline__ void load(const element *row, int64_t i) { item = row[i]; }
    __device__ __forceinline__ void store(element *row, int64_t i) const { row[i] = item; }
};

/* Elements of a packet of 16 bytes. */
template <typename element>
static constexpr int packet_size = 16 / static_cast<int>(sizeof(element));

/* Packet i of a row, as float32. */
template <typename element, int N>
static __device__ __forceinline__ void load_floats(float (&x)[N], const element *row, int64_t i) {
    packet<element, N> p;
    p.load(row, i);
    p.widen(x);
}

template <typename element, int N>
static __device__ __forceinline__ void store_floats(element *row, int64_t i, const float (&x)[N]) {
    packet<element, N> p;
    p.narrow(x);
    p.store(row, i);
}

/* ---- sums over the threads of a block, or of each warp where blockDim.x is 32 ---- */

static __device__ __forceinline__ float warp_sum(float x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}

/* Both sums, to all threads of the row; `shared` holds 2 x 32 floats. Every thread of the block
 * comes here, or every thread of the warp. */
static __device__ __forceinline__ float2 row_sums(float2 x, float2 *shared) {
    x = make_float2(warp_sum(x.x), warp_sum(x.y));
    if (blockDim.x == 32) return x;
    int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    int warps = static_cast<int>(blockDim.x) / 32;
    __syncthreads(); /* all have read what an earlier call left */
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    x = lane < warps ? shared[lane] : make_float2(0.0f, 0.0f);
    return make_float2(warp_sum(x.x), warp_sum(x.y));
}

static __device__ __forceinline__ float row_sum(float x, float2 *shared) {
    return row_sums(make_float2(x, 0.0f), shared).x;
}

/* ---- launches ---- */

/* Whether packets of 16 bytes may be used on rows of `width` elements in all these tensors; NULL
 * is allowed. */
template <typename... tensors>
static bool in_packets(int64_t width, int size, const tensors *...all) {
    bool aligned = width % size == 0;
    for (const lnet_tensor *tensor : {static_cast<const lnet_tensor *>(all)...})
        aligned = aligned && (tensor == NULL || lnet_is_aligned(tensor->data, 16));
    return aligned;
}

template <typename element> static element *data_of(const lnet_tensor *tensor) {
    return tensor != NULL ? static_cast<element *>(tensor->data) : NULL;
}

static inline int64_t width_of(const lnet_tensor *tensor) {
    return tensor->ndim > 0 ? tensor->shape[tensor->ndim - 1] : 1;
}

/* Elements of all dimensions but the last. */
static inline int64_t rows_of(const lnet_tensor *tensor) {
    int64_t rows = 1;
    for (int32_t i = 0; i < tensor->ndim - 1; i++) rows *= tensor->shape[i];
    return rows;
}

/* As many blocks as the device runs at a time, at most `wanted`. */
template <typename kernel>
static lnet_status resident_blocks(int64_t *blocks, kernel k, dim3 threads, size_t shared,
                                   int64_t wanted, const lnet_stream *stream) {
    int count = 0, multiprocessors = 0;
    lnet_status status;
    LNET_CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &count, k, static_cast<int>(threads.x * threads.y), shared));
    LNET_CUDA_TRY(
        cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, stream->device));
    *blocks = static_cast<int64_t>(count > 0 ? count : 1) * multiprocessors;
    if (*blocks > wanted) *blocks = wanted;
fail:
    return status;
}

/* Element i of int32 or int64 indices. */
struct index_list {
    const void *data;
    bool wide;

    explicit index_list(const lnet_tensor *tensor)
        : data(tensor->data), wide(tensor->dtype == LNET_INT64) {}
    __device__ __forceinline__ int64_t operator[](int64_t i) const {
        return wide ? static_cast<const int64_t *>(data)[i] : static_cast<const int32_t *>(data)[i];
    }
};

#endif
