/* The sum of squares, in float64 and in two steps: what each block finds, then their sums. The
 * order of additions depends on the number of elements and the dtype alone. */
#include "cuda/packs.cuh"

extern "C" {
#include "ops/sum_squares.h"
}

enum {
    THREADS = 256,
    PACKS = 4,          /* that a thread has on their way at one time */
    MOST_BLOCKS = 2048, /* enough for any GPU, and few to add up */
};

/* The sum over the block, in its first thread. */
static __device__ double sum_of_block(double sum) {
    __shared__ double sums[THREADS / 32];
#pragma unroll
    for (int n = 16; n > 0; n /= 2) sum += __shfl_down_sync(0xFFFFFFFF, sum, n);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int i = 1; i < THREADS / 32; i++) sum += sums[i];
    return sum;
}

template <bool whole, typename element, int V>
static __device__ __forceinline__ void add_tile(double (&sums)[4], const element *x, int64_t begin,
                                                int64_t count) {
    lnet_pack<element, V> packs[PACKS];
#pragma unroll
    for (int u = 0; u < PACKS; u++) {
        int64_t first = begin + (u * THREADS + threadIdx.x) * V;
        if (whole)
            lnet_read(&packs[u], x + first);
        else
            lnet_read_part(&packs[u], x + first, count - first);
    }
#pragma unroll
    for (int u = 0; u < PACKS; u++) {
        float numbers[V];
        lnet_widen(numbers, packs[u]);
#pragma unroll
        for (int i = 0; i < V; i++) {
            double number = numbers[i];
            sums[i % 4] += number * number;
        }
    }
}

/* The sum to `out`, where one block does it all, or each block's to `partials`. */
template <typename element, int V>
static __global__ void __launch_bounds__(THREADS)
    sum_blocks(float *out, double *partials, const element *x, int64_t count, bool aligned) {
    const int64_t tile = THREADS * PACKS * V;
    double sums[4] = {}, sum;
    for (int64_t begin = blockIdx.x * tile; begin < count; begin += gridDim.x * tile)
        if (aligned && begin + tile <= count)
            add_tile<true, element, V>(sums, x, begin, count);
        else
            add_tile<false, element, V>(sums, x, begin, count);
    sum = sum_of_block((sums[0] + sums[1]) + (sums[2] + sums[3]));
    if (threadIdx.x != 0) return;
    if (partials != NULL)
        partials[blockIdx.x] = sum;
    else
        *out = static_cast<float>(sum);
}

static __global__ void __launch_bounds__(THREADS)
    sum_partials(float *out, const double *partials, int count) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += partials[i];
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) *out = static_cast<float>(sum);
}

template <typename element>
static lnet_status sum_squares(const struct lnet_sum_squares_args *args, lnet_stream *stream) {
    const int V = 16 / sizeof(element);
    int64_t count = lnet_elements_of(args->x), tile = THREADS * PACKS * V;
    int64_t tiles = count > 0 ? (count + tile - 1) / tile : 1;
    int blocks = static_cast<int>(tiles < MOST_BLOCKS ? tiles : MOST_BLOCKS);
    int64_t bytes = blocks * static_cast<int64_t>(sizeof(double));
    float *out = static_cast<float *>(args->out->data);
    cudaStream_t queue = lnet_cuda_stream(stream);
    void *partials = NULL;
    lnet_status status;
    if (blocks > 1) LNET_TRY(lnet_cuda_host->alloc(&partials, bytes, stream));
    sum_blocks<element, V><<<blocks, THREADS, 0, queue>>>(
        out, static_cast<double *>(partials), static_cast<const element *>(args->x->data), count,
        lnet_is_aligned(args->x->data, 16));
    status = lnet_cuda_launched("sum_squares");
    if (blocks == 1) return status;
    if (status == LNET_OK) {
        sum_partials<<<1, THREADS, 0, queue>>>(out, static_cast<double *>(partials), blocks);
        status = lnet_cuda_launched("sum_squares");
    }
    lnet_cuda_host->free(partials, bytes, stream);
fail:
    return status;
}

extern "C" lnet_status lnet_cuda_sum_squares(const struct lnet_sum_squares_args *args,
                                             lnet_stream *stream) {
    return lnet_by_dtype(args->x->dtype, [&](auto zero) {
        return sum_squares<decltype(zero)>(args, stream);
    });
}
