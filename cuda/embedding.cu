/* Rows of a table. A token that is out of range makes its row of `out` NaN. */
#include "cuda/rows.cuh"

extern "C" {
#include "ops/embedding.h"
}

enum { WARPS = 8, AHEAD = 4 /* packets of `out` that a lane has on their way at one time */ };

/* N elements of a row of the table: 16 bytes or more, or one element. */
template <typename element, int N> struct table_part {
    static constexpr int SIZE = N == 1 ? 1 : packet_size<element>;
    packet<element, SIZE> items[N / SIZE];

    __device__ __forceinline__ void load(const element *row, int64_t i) {
#pragma unroll
        for (int j = 0; j < N / SIZE; j++) items[j].load(row, i * (N / SIZE) + j);
    }
    __device__ __forceinline__ void widen(float (&x)[N]) const {
#pragma unroll
        for (int j = 0; j < N / SIZE; j++) {
            float part[SIZE];
            items[j].widen(part);
#pragma unroll
            for (int i = 0; i < SIZE; i++) x[j * SIZE + i] = part[i];
        }
    }
};

/* A warp has one row of `out` at a time. */
template <typename element, typename table, int N>
static __global__ void __launch_bounds__(32 * WARPS)
    look_up(element *out, const table *weight, const index_list tokens, int64_t rows, int64_t width,
            int64_t vocabulary, float scale) {
    const int64_t count = width / N;
    for (int64_t m = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.y; m < rows;
         m += static_cast<int64_t>(gridDim.x) * WARPS) {
        const int64_t token = tokens[m];
        const bool valid = token >= 0 && token < vocabulary;
        const table *const from = weight + (valid ? token : 0) * width;
        const float factor = valid ? scale : NAN;
        for (int64_t first = threadIdx.x; first < count; first += 32 * AHEAD) {
            table_part<table, N> ahead[AHEAD];
#pragma unroll
            for (int j = 0; j < AHEAD; j++)
                if (valid && first + 32 * j < count) ahead[j].load(from, first + 32 * j);
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                float x[N] = {};
                if (first + 32 * j >= count) break;
                if (valid) ahead[j].widen(x);
#pragma unroll
                for (int i = 0; i < N; i++) x[i] *= factor;
                store_floats(out + m * width, first + 32 * j, x);
            }
        }
    }
}

template <typename element, typename table>
static lnet_status launch(const struct lnet_embedding_args *a, lnet_stream *stream) {
    constexpr int N = packet_size<element>;
    const int64_t rows = lnet_elements_of(a->tokens), width = a->weight->shape[1];
    const int64_t most_blocks = 1 << 20, blocks = (rows + WARPS - 1) / WARPS;
    auto *kernel = in_packets(width, N, a->out, a->weight) ? look_up<element, table, N>
                                                           : look_up<element, table, 1>;
    if (rows == 0 || width == 0) return LNET_OK;
    kernel<<<static_cast<unsigned>(blocks < most_blocks ? blocks : most_blocks), dim3(32, WARPS), 0,
             lnet_cuda_stream(stream)>>>(data_of<element>(a->out), data_of<table>(a->weight),
                                         index_list(a->tokens), rows, width, a->weight->shape[0],
                                         static_cast<float>(a->scale));
    return lnet_cuda_launched("look_up");
}

extern "C" lnet_status lnet_cuda_embedding(const struct lnet_embedding_args *a,
                                           lnet_stream *stream) {
    return lnet_by_dtype(a->out->dtype, [&](auto zero) {
        using element = decltype(zero);
        return a->weight->dtype == LNET_FLOAT32 ? launch<element, float>(a, stream)
                                                : launch<element, element>(a, stream);
    });
}
