/* Ops that see rows (M, D) and in which a thread keeps V neighbouring columns and walks down rows.
 *
 * A block of blockDim.x times blockDim.y threads has blockDim.x * V columns, a tile, of a chunk of
 * rows; neighbouring blocks have neighbouring tiles. V is a pack's length where every row begins at
 * a multiple of one, else 1. */
#ifndef LNET_CUDA_COLUMNS_CUH
#define LNET_CUDA_COLUMNS_CUH

#include "cuda/packs.cuh"

enum { COLUMN_THREADS = 256 };

struct column_plan {
    int64_t rows, width;
    int64_t tiles;
    int64_t chunk; /* rows of one */
    int64_t chunks;
    dim3 threads;
};

/* With chunks of `batch` rows a thread. */
static inline column_plan plan_columns(int64_t rows, int64_t width, int V, int64_t batch) {
    column_plan plan = {rows, width, 0, 0, 0, dim3(1)};
    int64_t packs = (width + V - 1) / V;
    while (plan.threads.x < 32 && plan.threads.x < packs) plan.threads.x *= 2;
    plan.threads.y = COLUMN_THREADS / plan.threads.x;
    plan.tiles = (packs + plan.threads.x - 1) / plan.threads.x;
    plan.chunk = batch * plan.threads.y;
    plan.chunks = (rows + plan.chunk - 1) / plan.chunk;
    return plan;
}

static inline unsigned column_blocks(const column_plan &plan) {
    const int64_t most = 1 << 24;
    int64_t blocks = plan.tiles * plan.chunks;
    return static_cast<unsigned>(blocks < most ? blocks : most);
}

/* This thread's part of piece b of a plan, b < tiles * chunks; `column` may lie past the width. */
struct column_part {
    int64_t chunk, column;
    int64_t row, end; /* its first row, and that after the chunk's last one */
};

template <int V>
static __device__ __forceinline__ column_part part_of_columns(const column_plan &plan, int64_t b) {
    column_part part;
    part.chunk = b / plan.tiles;
    part.column = ((b - part.chunk * plan.tiles) * blockDim.x + threadIdx.x) * V;
    part.row = part.chunk * plan.chunk;
    part.end = part.row + plan.chunk < plan.rows ? part.row + plan.chunk : plan.rows;
    part.row += threadIdx.y;
    return part;
}

template <typename element, int V>
static __device__ __forceinline__ void read_columns(float (&x)[V], const element *from) {
    if constexpr (V == 1) {
        x[0] = lnet_widen(*from);
    } else {
        lnet_pack<element, V> pack;
        lnet_read(&pack, from);
        lnet_widen(x, pack);
    }
}

template <typename element, int V>
static __device__ __forceinline__ void write_columns(element *to, const float (&x)[V]) {
    if constexpr (V == 1) {
        lnet_narrow(to, x[0]);
    } else {
        lnet_pack<element, V> pack;
        lnet_narrow(&pack, x);
        lnet_write(to, pack);
    }
}

#endif
