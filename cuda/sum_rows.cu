/* Sums over all rows, in two steps: chunks of rows, then their sums. The order of additions depends
 * on the shape and the dtype, and on whether rows begin at multiples of 16 bytes. */
#include "cuda/columns.cuh"

extern "C" {
#include "ops/sum_rows.h"
}

enum {
    SUM_ROWS = 8,      /* that a thread has on their way at one time */
    MOST_CHUNKS = 256, /* so that the second step is short */
    BLOCKS = 4096,     /* enough for any GPU */
};

/* Adds up every SUM_ROWS-th of a thread's rows side by side, in pairs. */
template <typename In, int V>
static __device__ __forceinline__ void sum_part(float (&total)[V], const In *x, int64_t width,
                                                const column_part &part) {
    int64_t step = blockDim.y, row = part.row;
    x += part.column;
    for (; row + (SUM_ROWS - 1) * step < part.end; row += SUM_ROWS * step) {
        float sums[SUM_ROWS][V];
#pragma unroll
        for (int u = 0; u < SUM_ROWS; u++) read_columns(sums[u], x + (row + u * step) * width);
#pragma unroll
        for (int i = 0; i < V; i++) {
#pragma unroll
            for (int n = SUM_ROWS / 2; n > 0; n /= 2)
#pragma unroll
                for (int u = 0; u < n; u++) sums[u][i] += sums[u + n][i];
            total[i] += sums[0][i];
        }
    }
    for (; row < part.end; row += step) {
        float one[V];
        read_columns(one, x + row * width);
#pragma unroll
        for (int i = 0; i < V; i++) total[i] += one[i];
    }
}

/* out (chunks, D): the sum of each chunk's rows. */
template <typename Out, typename In, int V>
static __global__ void __launch_bounds__(COLUMN_THREADS)
    sum_chunks(Out *out, const In *x, const column_plan plan) {
    __shared__ float shared[V][COLUMN_THREADS];
    int thread = threadIdx.y * blockDim.x + threadIdx.x;
    for (int64_t b = blockIdx.x; b < plan.tiles * plan.chunks; b += gridDim.x) {
        column_part part = part_of_columns<V>(plan, b);
        float total[V] = {};
        if (part.column < plan.width) sum_part(total, x, plan.width, part);
        for (int half = blockDim.y / 2; half > 0; half /= 2) {
            bool gives = threadIdx.y >= half && threadIdx.y < 2 * half;
#pragma unroll
            for (int i = 0; i < V; i++)
                if (gives) shared[i][thread] = total[i];
            __syncthreads();
#pragma unroll
            for (int i = 0; i < V; i++)
                if (threadIdx.y < half) total[i] += shared[i][thread + half * blockDim.x];
            __syncthreads();
        }
        if (threadIdx.y != 0 || part.column >= plan.width) continue;
#pragma unroll
        for (int i = 0; i < V; i++)
            lnet_narrow(out + part.chunk * plan.width + part.column + i, total[i]);
    }
}

template <typename Out, typename In, int V>
static lnet_status launch(void *out, const void *x, const column_plan &plan, lnet_stream *stream) {
    sum_chunks<Out, In, V><<<column_blocks(plan), plan.threads, 0, lnet_cuda_stream(stream)>>>(
        static_cast<Out *>(out), static_cast<const In *>(x), plan);
    return lnet_cuda_launched("sum_rows");
}

/* One chunk: of the chunks' sums, or of few rows. */
template <typename Out, typename In, int V>
static lnet_status sum_once(void *out, const void *x, int64_t rows, int64_t width,
                            lnet_stream *stream) {
    column_plan plan = plan_columns(rows, width, V, 1);
    plan.chunk = rows;
    plan.chunks = 1;
    return launch<Out, In, V>(out, x, plan, stream);
}

template <typename element, int V>
static lnet_status sum_rows(void *out, const void *x, int64_t rows, int64_t width,
                            lnet_stream *stream) {
    column_plan plan = plan_columns(rows, width, V, SUM_ROWS);
    int64_t batch = plan.chunk, chunks = BLOCKS / plan.tiles;
    int64_t bytes;
    void *sums;
    lnet_status status;
    chunks = chunks < 1 ? 1 : chunks > MOST_CHUNKS ? MOST_CHUNKS : chunks;
    plan.chunk = ((rows + chunks - 1) / chunks + batch - 1) / batch * batch;
    if (plan.chunk >= rows) return sum_once<element, element, V>(out, x, rows, width, stream);
    plan.chunks = (rows + plan.chunk - 1) / plan.chunk;
    bytes = plan.chunks * width * static_cast<int64_t>(sizeof(float));
    LNET_TRY(lnet_cuda_host->alloc(&sums, bytes, stream));
    status = launch<float, element, V>(sums, x, plan, stream);
    if (status == LNET_OK)
        status = V > 1 ? sum_once<element, float, 4>(out, sums, plan.chunks, width, stream)
                       : sum_once<element, float, 1>(out, sums, plan.chunks, width, stream);
    lnet_cuda_host->free(sums, bytes, stream);
fail:
    return status;
}

extern "C" lnet_status lnet_cuda_sum_rows(const struct lnet_sum_rows_args *args,
                                          lnet_stream *stream) {
    int64_t width = args->out->shape[0], rows;
    if (width == 0) return LNET_OK;
    rows = lnet_elements_of(args->x) / width;
    return lnet_by_dtype(args->x->dtype, [&](auto zero) {
        typedef decltype(zero) element;
        const int V = 16 / sizeof(element);
        bool packs = width % V == 0 && lnet_is_aligned(args->x->data, 16);
        return packs ? sum_rows<element, V>(args->out->data, args->x->data, rows, width, stream)
                     : sum_rows<element, 1>(args->out->data, args->x->data, rows, width, stream);
    });
}
