/* y = x + bias. */
#include "cuda/columns.cuh"

extern "C" {
#include "ops/bias_add.h"
}

enum { BIAS_ROWS = 4 }; /* that a thread has on their way at one time */

template <typename element, int V>
static __global__ void __launch_bounds__(COLUMN_THREADS)
    add_bias(element *y, const element *x, const element *bias, const column_plan plan) {
    for (int64_t b = blockIdx.x; b < plan.tiles * plan.chunks; b += gridDim.x) {
        column_part part = part_of_columns<V>(plan, b);
        float added[V], sums[BIAS_ROWS][V];
        if (part.column >= plan.width) continue;
        read_columns(added, bias + part.column);
#pragma unroll
        for (int u = 0; u < BIAS_ROWS; u++) {
            int64_t row = part.row + u * blockDim.y;
            if (row < part.end) read_columns(sums[u], x + row * plan.width + part.column);
        }
#pragma unroll
        for (int u = 0; u < BIAS_ROWS; u++) {
            int64_t row = part.row + u * blockDim.y;
#pragma unroll
            for (int i = 0; i < V; i++) sums[u][i] += added[i];
            if (row < part.end) write_columns(y + row * plan.width + part.column, sums[u]);
        }
    }
}

template <typename element, int V>
static lnet_status launch(const struct lnet_bias_add_args *args, int64_t rows, int64_t width,
                          lnet_stream *stream) {
    column_plan plan = plan_columns(rows, width, V, BIAS_ROWS);
    add_bias<element, V><<<column_blocks(plan), plan.threads, 0, lnet_cuda_stream(stream)>>>(
        static_cast<element *>(args->y->data), static_cast<const element *>(args->x->data),
        static_cast<const element *>(args->bias->data), plan);
    return lnet_cuda_launched("bias_add");
}

extern "C" lnet_status lnet_cuda_bias_add(const struct lnet_bias_add_args *args,
                                          lnet_stream *stream) {
    int64_t count = lnet_elements_of(args->x), width = args->bias->shape[0];
    if (count == 0) return LNET_OK;
    return lnet_by_dtype(args->x->dtype, [&](auto zero) {
        typedef decltype(zero) element;
        const int V = 16 / sizeof(element);
        bool packs = width % V == 0 && lnet_is_aligned(args->x->data, 16) &&
                     lnet_is_aligned(args->y->data, 16) && lnet_is_aligned(args->bias->data, 16);
        return packs ? launch<element, V>(args, count / width, width, stream)
                     : launch<element, 1>(args, count / width, width, stream);
    });
}
