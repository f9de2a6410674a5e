/* Dilated attention, backward, on sm_90a: one pass for delta, which clears
 * counters and sums, then one launch for all levels. Equations: csrc/ops/dilated_attention.h. */
#include "cuda/dilated_attention_sm90_backward_consume.cuh"
#include "cuda/dilated_attention_sm90_backward_plan.cuh"
#include "cuda/dilated_attention_sm90_backward_queries.cuh"
#include "cuda/dilated_attention_sm90_backward_round.cuh"
#include "cuda/dilated_attention_sm90_backward_schedule.cuh"
#include "cuda/dilated_attention_sm90_uncovered_stores.cuh"

namespace dilated_sm90 {

/* The loading warp: keys and values of the tiles in order, then their queries and dO. */
template <int width> struct gradient_loader {
    using L = gradient_layout<width>;

    const backward &p;
    char *memory;
    uint32_t barriers;
    uint32_t raw = 0;

    __device__ __forceinline__ uint32_t barrier(int index) const { return barriers + index * 8; }

    /* Rows j .. j + rows of a head. Rows past the `present` ones are another segment's, or anything
     * at all where none exist: they become zeros, as 0 * NaN would not be 0. */
    template <int rows>
    __device__ __forceinline__ void load(const CUtensorMap *map, int to, int head, int full,
                                         const key_tile &t, int j, int present) {
        const int lane = threadIdx.x % 32;
        const bool tail = present < rows;
        const uint32_t by = barrier(tail ? +L::raw : full);
        if (lane == 0) {
            sm90::barrier_arrive_expect(by, rows * 128 * L::panels);
            for (int c = 0; c < L::panels; c++)
                sm90::load_box(sm90::shared_address(memory + to) + c * rows * 128, map, by, c * 64,
                               head, t.phase, t.key_j + j, t.batch);
        }
        if (!tail) {
            if (lane > 0) sm90::barrier_arrive(by);
            return;
        }
        sm90::barrier_wait(by, raw);
        raw ^= 1;
        for (int c = 0; c < L::panels; c++)
            for (int at = present * 8 + lane; at < rows * 8; at += 32)
                reinterpret_cast<int4 *>(memory + to + c * rows * 128)[at] = make_int4(0, 0, 0, 0);
        sm90::fence_async_shared();
        sm90::barrier_arrive(barrier(full));
    }

    /* Without waiting for them. LSE and delta of a query that does not exist are zeros as its Q and
     * dO are: P = 1 then, dP = 0 and dS = 0, and nothing is added. */
    __device__ __forceinline__ void load_stats(const key_tile &t, int buffer, int from,
                                               int present) const {
        const int lane = threadIdx.x % 32;
        const float2 *source = p.stats + t.stats_at + static_cast<int64_t>(from) * t.sums_step;
        float *target = reinterpret_cast<float *>(memory + L::stats_at) + buffer * L::queries * 2;
        const uint32_t full = barrier(L::q_full + buffer);
#pragma unroll
        for (int k = 0; k < L::queries / 32; k++) {
            const int i = lane + k * 32;
            const bool there = i < present;
            const float2 *x = source + (there ? static_cast<int64_t>(i) * t.sums_step : 0);
            sm90::copy_four(sm90::shared_address(target + i), &x->x, there);
            sm90::copy_four(sm90::shared_address(target + L::queries + i), &x->y, there);
        }
        sm90::barrier_arrive_copied(full);
    }

    __device__ __forceinline__ void run(const key_tile *tiles) {
        ring_place<L::ring> place = {0};
        ring_place<L::stages> k = {0};
        ring_place<L::stages> q = {0};
        ring_place<L::v_stages> v = {0};
        for (;;) {
            sm90::barrier_wait(barrier(L::tile_full + place.index()), place.parity());
            const key_tile &t = tiles[place.index()];
            if (t.level < 0) break;
            const level &l = p.levels[t.level];
            sm90::barrier_wait(barrier(L::k_empty + k.index()), k.parity_before());
            load<KEY_TILE>(&l.k, L::k_at + k.index() * L::kv_bytes, t.kv_head,
                           L::k_full + k.index(), t, t.first, t.rows);
            k.advance();
            int from = t.start;
            for (int block = 0; block < t.blocks; block++) {
                const int present = min(+L::queries, t.keys - from), buffer = q.index();
                sm90::barrier_wait(barrier(L::q_empty + buffer), q.parity_before());
                load<L::queries>(&l.q, L::q_at + buffer * L::q_bytes, t.head, L::q_full + buffer, t,
                                 from, present);
                load<L::queries>(&l.dout, L::dout_at + buffer * L::q_bytes, t.head,
                                 L::q_full + buffer, t, from, present);
                load_stats(t, buffer, from, present);
                q.advance();
                from += L::queries;
                if (from >= t.keys) from = 0;
                if (block > 0) continue;
                /* after the first queries: its buffer may be in use for longer */
                sm90::barrier_wait(barrier(L::v_empty + v.index()), v.parity_before());
                load<KEY_TILE>(&l.v, L::v_at + v.index() * L::kv_bytes, t.kv_head,
                               L::v_full + v.index(), t, t.first, t.rows);
                v.advance();
            }
            sm90::barrier_arrive(barrier(L::tile_empty + place.index()));
            place.advance();
        }
    }
};

enum { FENCE_ROWS = 8 }; /* whose zeros a warp has on their way at once */

/* Zeros for rows that no level covers, but where rounding writes them. */
template <bool float32> __device__ __forceinline__ void write_zeros(const backward &p) {
    constexpr int bytes = gradient_bytes<float32>;
    if (p.direct) {
        void *const to[] = {p.dq, p.dk, p.dv};
        store_uncovered<bytes, FENCE_ROWS>(p, p.counters + 2, to);
    } else {
        void *const to[] = {p.dq};
        store_uncovered<bytes, FENCE_ROWS>(p, p.counters + 2, to);
    }
}

template <int width> __device__ __forceinline__ void init_gradient_barriers(uint32_t barriers) {
    using L = gradient_layout<width>;
    auto init = [&](int first, int count, int arrivals) {
        for (int i = 0; i < count; i++) sm90::barrier_init(barriers + (first + i) * 8, arrivals);
    };
    init(L::k_full, L::stages, 32);
    init(L::k_empty, L::stages, GRADIENT_WARPS + QUERY_WARPS);
    init(L::v_full, L::v_stages, 32);
    init(L::v_empty, L::v_stages, GRADIENT_WARPS);
    init(L::q_full, L::stages, 3 * 32);
    init(L::q_empty, L::stages, GRADIENT_WARPS * 32);
    init(L::ds_full, L::stages, GRADIENT_WARPS);
    init(L::ds_empty, L::stages, QUERY_WARPS);
    init(L::tile_full, L::ring, 32);
    init(L::tile_empty, L::ring, (GRADIENT_WARPS + QUERY_WARPS + 1) * 32);
    init(L::tile_done, L::ring, GRADIENT_WARPS + QUERY_WARPS);
    init(L::raw, 1, 1);
    init(L::round_full, L::round_buffers * 2, 1);
    sm90::barrier_init_fence();
}

template <int width, bool bfloat16, bool float32>
__global__ void __launch_bounds__(gradient_layout<width>::threads, 1)
    differentiate(const __grid_constant__ backward p) {
    using L = gradient_layout<width>;
    extern __shared__ __align__(1024) char memory[];
    key_tile *tiles = reinterpret_cast<key_tile *>(memory + L::tiles_at);
    const uint32_t barriers = sm90::shared_address(memory + L::barriers_at);
    if (threadIdx.x == 0) init_gradient_barriers<width>(barriers);
    for (int at = threadIdx.x * 16; at < L::round_bytes; at += L::threads * 16)
        *reinterpret_cast<int4 *>(memory + L::zeros_at + at) = make_int4(0, 0, 0, 0);
    sm90::fence_async_shared();
    __syncthreads();
    if (threadIdx.x >= (GRADIENT_WARPS + QUERY_WARPS) * 32) {
        sm90::give_registers<L::spare>();
        const int warp = threadIdx.x / 32 - GRADIENT_WARPS - QUERY_WARPS;
        if (warp == 0) {
            gradient_loader<width> loader = {p, memory, barriers};
            loader.run(tiles);
        } else if (warp == 1) {
            schedule_keys<width>(p, tiles, barriers);
        } else {
            const int which = warp - 2;
            if (which == 1 && p.uncovered) write_zeros<float32>(p);
            rounder<width, bfloat16, float32> r = {
                p, memory + L::round_at + which * L::round_buffers * L::round_bytes,
                memory + L::zeros_at, barriers + (L::round_full + which * L::round_buffers) * 8};
            r.run();
        }
    } else if (threadIdx.x >= GRADIENT_WARPS * 32) {
        sm90::give_registers<L::query_registers>();
        query_consumer<width, bfloat16> c = {p, tiles, sm90::shared_address(memory), barriers};
        c.run();
    } else {
        sm90::take_registers<L::key_registers>();
        gradient_consumer<width, bfloat16, float32> c = {
            p, tiles, memory, sm90::shared_address(memory),
            static_cast<int>(__shfl_sync(~0u, threadIdx.x / 128, 0)),
        };
        c.run();
    }
}

/* stats = (LSE * log2(e), delta = rowsum(dO * O)) of the rows that can take part: all, or those of
 * a single level that lie apart. A row that no level covers has no probability. A warp takes 32
 * rows of a head and loads from several at once. Then zeros for the counters and sums. */
template <bool bfloat16> __global__ void __launch_bounds__(256) prepare(const backward p) {
    constexpr int ahead = 4;
    const int lane = threadIdx.x % 32, pieces = p.width / 8, spacing = p.sums_spacing.value;
    const int row_chunks = (p.stats_rows + 31) / 32;
    const int64_t chunks = static_cast<int64_t>(p.batch) * row_chunks * p.heads;
    const int64_t warps = static_cast<int64_t>(gridDim.x) * 8;
    int lanes = 1; /* of a row */
    while (lanes < pieces) lanes *= 2;
    const int together = 32 / lanes, piece = lane % lanes;
    const int64_t pitch = static_cast<int64_t>(spacing) * p.heads * pieces; /* row to row */
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * 8 + threadIdx.x / 32; i < chunks;
         i += warps) {
        const int head = static_cast<int>(i % p.heads);
        const int64_t rest = i / p.heads, batch = rest / row_chunks;
        const int64_t batch_head = batch * p.heads + head, place = rest % row_chunks * 32;
        const int64_t first =
            place * spacing + (spacing > 1 ? head_offset(p, head, p.levels[0]) : 0);
        const int64_t row = first + static_cast<int64_t>(lane) * spacing;
        const float lse = row < p.rows ? p.lse[batch_head * p.rows + row] : -INFINITY;
        const uint32_t covered = __ballot_sync(~0u, lse != -INFINITY);
        const int64_t begin = ((batch * p.rows + first) * p.heads + head) * pieces + piece;
        float delta = 0;
        for (int at = 0; at < lanes; at += ahead) {
            uint4 x[ahead], y[ahead];
#pragma unroll
            for (int u = 0; u < ahead; u++) {
                const int of = (at + u) * together + lane / lanes;
                x[u] = y[u] = make_uint4(0, 0, 0, 0);
                if (piece < pieces && of < 32 && covered >> of & 1) {
                    x[u] = __ldg(static_cast<const uint4 *>(p.out) + begin + of * pitch);
                    y[u] = __ldg(static_cast<const uint4 *>(p.dout) + begin + of * pitch);
                }
            }
#pragma unroll
            for (int u = 0; u < ahead; u++) {
                const uint32_t a[4] = {x[u].x, x[u].y, x[u].z, x[u].w};
                const uint32_t b[4] = {y[u].x, y[u].y, y[u].z, y[u].w};
                float sum = 0;
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    const float2 c = unpack<bfloat16>(a[k]), d = unpack<bfloat16>(b[k]);
                    sum = fmaf(c.x, d.x, sum);
                    sum = fmaf(c.y, d.y, sum);
                }
                for (int k = lanes / 2; k > 0; k /= 2) sum += __shfl_xor_sync(~0u, sum, k);
                const float own = __shfl_sync(~0u, sum, lane % together * lanes);
                if (lane / together == at + u) delta = own;
            }
        }
        if (place + lane < p.stats_rows)
            p.stats[batch_head * p.stats_rows + place + lane] =
                make_float2(lse == -INFINITY ? INFINITY : lse * 1.4426950408889634f, delta);
    }
    float4 *zeros = reinterpret_cast<float4 *>(p.counters);
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x; i < p.zero_floats / 4;
         i += static_cast<int64_t>(gridDim.x) * 256)
        zeros[i] = make_float4(0, 0, 0, 0);
}

template <int width, bool bfloat16, bool float32>
static cudaError_t launch_gradients(const backward &p, int processors, cudaStream_t stream) {
    using L = gradient_layout<width>;
    cudaError_t error =
        cudaFuncSetAttribute(differentiate<width, bfloat16, float32>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize, L::bytes);
    if (error != cudaSuccess) return error;
    prepare<bfloat16><<<processors * 4, 256, 0, stream>>>(p);
    error = cudaGetLastError();
    if (error != cudaSuccess) return error;
    differentiate<width, bfloat16, float32>
        <<<processors, L::threads, L::bytes, stream>>>(p);
    return cudaGetLastError();
}

template <int width>
static cudaError_t launch_width(const backward &p, bool bfloat16, bool float32, int processors,
                                cudaStream_t stream) {
    if (float32)
        return bfloat16 ? launch_gradients<width, true, true>(p, processors, stream)
                        : launch_gradients<width, false, true>(p, processors, stream);
    return bfloat16 ? launch_gradients<width, true, false>(p, processors, stream)
                    : launch_gradients<width, false, false>(p, processors, stream);
}

int block_queries(int width) {
    return width <= 64 ? +gradient_shape<64>::queries : +gradient_shape<128>::queries;
}

cudaError_t launch(const backward &p, int width, bool bfloat16, bool float32, int processors,
                   cudaStream_t stream) {
    switch (width) {
    case 48:
        return launch_width<48>(p, bfloat16, float32, processors, stream);
    case 64:
        return launch_width<64>(p, bfloat16, float32, processors, stream);
    default:
        return launch_width<128>(p, bfloat16, float32, processors, stream);
    }
}

} // namespace dilated_sm90
