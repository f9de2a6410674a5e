/* Dilated attention, forward, on sm_90a: one launch, no memory for partial results beyond a scratch
 * of some rows a block. Equations: csrc/ops/dilated_attention.h. */
#include "cuda/dilated_attention_sm90_forward_consume.cuh"
#include "cuda/dilated_attention_sm90_forward_plan.cuh"
#include "cuda/dilated_attention_sm90_uncovered.cuh"

#include <type_traits>

namespace dilated_sm90 {

/* The loading warp: queries, keys and values of the tiles, in order. */
template <int width>
__device__ __forceinline__ void load_tiles(const forward &p, const tile *tiles, char *memory,
                                           uint32_t barriers) {
    using L = layout<width>;
    using S = shape<width>;
    const uint32_t shared = sm90::shared_address(memory);
    const int lane = threadIdx.x % 32;
    ring_place<L::ring> place = {0};
    ring_place<S::stages> kv = {0};
    ring_place<S::q_buffers> q[S::warpgroups] = {};
    uint32_t raw = 0;
    auto barrier = [&](int index) { return barriers + index * 8; };
    for (;;) {
        sm90::barrier_wait(barrier(L::tile_full + place.index()), place.parity());
        const tile &t = tiles[place.index()];
        if (t.level < 0) break;
        const level &l = p.levels[t.level];
#pragma unroll
        for (int g = 0; g < S::warpgroups; g++) {
            if (g * WARPGROUP_ROWS >= t.rows) continue;
            const int buffer = g * S::q_buffers + q[g].index();
            sm90::barrier_wait(barrier(L::q_empty + buffer), q[g].parity_before());
            if (lane == 0) {
                sm90::barrier_arrive_expect(barrier(L::q_full + buffer), L::q_bytes);
                for (int c = 0; c < L::panels; c++)
                    sm90::load_box(shared + L::q_at + buffer * L::q_bytes +
                                       c * WARPGROUP_ROWS * 128,
                                   &l.q, barrier(L::q_full + buffer), c * 64, t.head, t.phase,
                                   t.key_j + t.first + g * WARPGROUP_ROWS, t.batch);
            }
            q[g].advance();
        }
        int seen = t.keys;
        if (p.causal) seen = min(seen, t.first + min(t.rows, S::warpgroups * WARPGROUP_ROWS));
        for (int block = (seen - 1) / S::keys; block >= 0; block--) {
            const int j = t.key_j + block * S::keys;
            const int present = t.keys - block * S::keys;
            sm90::barrier_wait(barrier(L::k_empty + kv.index()), kv.parity_before());
            if (lane == 0) {
                sm90::barrier_arrive_expect(barrier(L::k_full + kv.index()), L::kv_bytes);
                for (int c = 0; c < L::panels; c++)
                    sm90::load_box(shared + L::k_at + kv.index() * L::kv_bytes + c * S::keys * 128,
                                   &l.k, barrier(L::k_full + kv.index()), c * 64, t.kv_head,
                                   t.phase, j, t.batch);
            }
            sm90::barrier_wait(barrier(L::v_empty + kv.index()), kv.parity_before());
            /* Values past the segment are another segment's, or anything at all where rows do not
             * exist: they become zeros, as 0 * NaN would not be 0. */
            const bool tail = present < S::keys;
            const uint32_t full = barrier(tail ? +L::v_raw : L::v_full + kv.index());
            char *v = memory + L::v_at + kv.index() * L::kv_bytes;
            if (lane == 0) {
                sm90::barrier_arrive_expect(full, L::kv_bytes);
                for (int c = 0; c < L::panels; c++)
                    sm90::load_box(sm90::shared_address(v) + c * S::keys * 128, &l.v, full, c * 64,
                                   t.kv_head, t.phase, j, t.batch);
            }
            if (tail) {
                sm90::barrier_wait(full, raw);
                raw ^= 1;
                for (int c = 0; c < L::panels; c++)
                    for (int at = present * 8 + lane; at < S::keys * 8; at += 32)
                        reinterpret_cast<int4 *>(v + c * S::keys * 128)[at] = make_int4(0, 0, 0, 0);
                sm90::fence_async_shared();
                __syncwarp();
                if (lane == 0) sm90::barrier_arrive(barrier(L::v_full + kv.index()));
            }
            kv.advance();
        }
        sm90::barrier_arrive(barrier(L::tile_empty + place.index()));
        place.advance();
    }
}

template <int width>
__device__ __forceinline__ void init_barriers(uint32_t barriers, int finishers) {
    using L = layout<width>;
    using S = shape<width>;
    const int warps = S::warpgroups * 4;
    auto init = [&](int first, int count, int arrivals) {
        for (int i = 0; i < count; i++) sm90::barrier_init(barriers + (first + i) * 8, arrivals);
    };
    init(L::k_full, S::stages, 1);
    init(L::k_empty, S::stages, warps);
    init(L::v_full, S::stages, 1);
    init(L::v_empty, S::stages, warps);
    init(L::q_full, S::warpgroups * S::q_buffers, 1);
    init(L::q_empty, S::warpgroups * S::q_buffers, 4);
    init(L::tile_full, L::ring, 32);
    init(L::tile_empty, L::ring, (warps + 1 + finishers) * 32);
    init(L::v_raw, 1, 1);
    sm90::barrier_init_fence();
}

/* LSE = -inf for the heads in `empty` of a row. */
__device__ __forceinline__ void no_keys(const forward &p, int batch, int row, int first,
                                        uint32_t empty) {
    float *lse = p.lse + (static_cast<int64_t>(batch) * p.heads + first) * p.rows + row;
    for (; empty; empty >>= 8, lse += 8 * static_cast<int64_t>(p.rows)) {
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (empty >> i & 1) __stcs(lse + i * static_cast<int64_t>(p.rows), -INFINITY);
    }
}

template <int width, bool bfloat16>
__global__ void __launch_bounds__(layout<width>::threads, 1)
    attend(const __grid_constant__ forward p) {
    using L = layout<width>;
    using S = shape<width>;
    extern __shared__ __align__(1024) char memory[];
    tile *tiles = reinterpret_cast<tile *>(memory + L::tiles_at);
    uint32_t *tables = reinterpret_cast<uint32_t *>(memory + L::tables_at);
    const uint32_t barriers = sm90::shared_address(memory + L::barriers_at);
    if (threadIdx.x == 0) init_barriers<width>(barriers, p.level_count > 1);
    if (threadIdx.x < L::zeros_bytes / 16)
        reinterpret_cast<int4 *>(memory + L::zeros_at)[threadIdx.x] = make_int4(0, 0, 0, 0);
    sm90::fence_async_shared();
    __syncthreads();
    if (threadIdx.x >= S::warpgroups * 128) {
        sm90::give_registers<S::spare>();
        const int warp = threadIdx.x / 32 - S::warpgroups * 4;
        if (warp == 0) {
            load_tiles<width>(p, tiles, memory, barriers);
        } else if (warp == 1) {
            schedule<width>(p, tiles, tables, barriers);
        } else if (warp == 2 && p.level_count > 1) {
            finish_items<width>(p, tiles, barriers);
        } else if (p.uncovered) {
            const int writers = p.level_count > 1 ? 1 : 2;
            void *const to[] = {p.out};
            write_uncovered<8, 0, 2>(p, blockIdx.x * writers + warp % writers, gridDim.x * writers,
                                     to, sm90::shared_address(memory + L::zeros_at), L::zeros_bytes,
                                     [&](int batch, int row, int first, uint32_t empty) {
                                         no_keys(p, batch, row, first, empty);
                                     });
        }
    } else {
        sm90::take_registers<S::registers>();
        consumer<width, bfloat16> c = {
            p, tiles, tables, sm90::shared_address(memory), barriers,
        };
        c.run();
    }
}

namespace {

template <int width, bool bfloat16>
cudaError_t launch_instance(const forward &p, int blocks, cudaStream_t stream) {
    using L = layout<width>;
    cudaError_t error = cudaFuncSetAttribute(attend<width, bfloat16>,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize, L::bytes);
    if (error != cudaSuccess) return error;
    attend<width, bfloat16><<<blocks, L::threads, L::bytes, stream>>>(p);
    return cudaGetLastError();
}

} // namespace

/* Calls f(instance) with the constant that `width` is. */
template <typename F> auto with_width(int width, F f) {
    switch (width) {
    case 48:
        return f(std::integral_constant<int, 48>());
    case 64:
        return f(std::integral_constant<int, 64>());
    default:
        return f(std::integral_constant<int, 128>());
    }
}

int state_stride(int width) {
    return with_width(width, [](auto w) { return static_cast<int>(layout<w()>::state_stride); });
}

int tile_rows(int width) {
    return with_width(width, [](auto w) { return static_cast<int>(layout<w()>::tile_rows); });
}

int block_keys(int width) {
    return with_width(width, [](auto w) { return static_cast<int>(shape<w()>::keys); });
}

cudaError_t launch(const forward &p, int width, bool bfloat16, int blocks, cudaStream_t stream) {
    return with_width(width, [&](auto w) {
        return bfloat16 ? launch_instance<w(), true>(p, blocks, stream)
                        : launch_instance<w(), false>(p, blocks, stream);
    });
}

} // namespace dilated_sm90
