/* The warpgroup that makes dQ = dS K of a block from what the consumers leave in shared memory, and
 * sends it off to be added to the sums. It says when a tile is done, too. */
#ifndef LNET_DILATED_ATTENTION_SM90_BACKWARD_QUERIES_CUH
#define LNET_DILATED_ATTENTION_SM90_BACKWARD_QUERIES_CUH

#include "cuda/dilated_attention_sm90_backward_consume.cuh"

namespace dilated_sm90 {

template <int width, bool bfloat16> struct query_consumer {
    using L = gradient_layout<width>;
    enum { split_columns = L::split_columns, columns = L::dq_columns };
    static_assert(split_columns ? width == 128 : width <= 64, "dQ in two halves");

    const backward &p;
    const key_tile *tiles;
    uint32_t shared, barriers;
    ring_place<L::ring> tile_place = {0};
    ring_place<L::stages> k = {0}, place = {0}; /* place: of dS */

    __device__ __forceinline__ uint32_t barrier(int index) const { return barriers + index * 8; }
    __device__ __forceinline__ void leave(int index) const {
        __syncwarp();
        if (threadIdx.x % 32 == 0) sm90::barrier_arrive(barrier(index));
    }
    __device__ __forceinline__ uint32_t begin(int at, int bytes, int index) const {
        return __shfl_sync(
            ~0u, sm90::tile_begin(shared + at, KEY_TILE * 128) + index * (bytes >> 4), 0);
    }

    /* A part of dQ = dS (queries, keys) times K. */
    __device__ __forceinline__ void issue(float (&d)[columns / 2], int part) const {
        const int first = part * columns;
        const int a_at = split_columns ? 0 : part * (KEY_TILE * 128);
        const int b_at = split_columns ? first / 64 * (KEY_TILE * 128) + first % 64 * 2 : 0;
        const uint32_t a = begin(L::ds_at + a_at, L::ds_bytes, place.index());
        const uint32_t b = begin(L::k_at + b_at, L::kv_bytes, k.index());
        sm90::products_begin();
#pragma unroll
        for (int step = 0; step < KEY_TILE / 16; step++)
            sm90::products<columns, bfloat16>::transposed(
                d, sm90::tile_descriptor(a, step * 2048), sm90::tile_descriptor(b, step * 2048),
                step != 0);
        sm90::products_commit();
    }

    /* Sends 16 rows a warp to be added to the sums, by way of the shared memory at `panel`, unless
     * some of them are not of this segment. `first` is the warp's first query. */
    __device__ __forceinline__ void send(const float (&x)[columns / 2], const key_tile &t,
                                         int first, int column, uint32_t panel) const {
        const int lane = threadIdx.x % 32;
        if (first + 16 > t.keys) {
            const int64_t pitch = static_cast<int64_t>(t.sums_step) * width;
            add_rows<columns>(x, p.sums + t.dq_at + first * pitch + column, lane / 4, pitch,
                               t.keys - first);
            return;
        }
        /* Panels of 32 columns, swizzled. Odd rows take pairs of pieces in the other order: the
         * eight threads of a store then write to different banks. */
        const int row = lane / 4, odd = row % 2;
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int c = 0; c < columns / 16; c++) {
                const bool pair = (c ^ 1) < columns / 16;
                const int a = 8 * c + 2 * r, b = pair ? 8 * (c ^ 1) + 2 * r : a;
                const bool other = odd && pair;
                const int piece = (other ? c ^ 1 : c) % 2 * 4 + lane % 4;
                sm90::store_four(panel + c / 2 * (64 * 128) + (row + 8 * r) * 128 +
                                     (piece ^ row) * 16,
                                 other ? x[b] : x[a], other ? x[b + 1] : x[a + 1],
                                 other ? x[b + 4] : x[a + 4], other ? x[b + 5] : x[a + 5]);
            }
        sm90::fence_async_shared();
        __syncwarp();
        if (lane == 0)
#pragma unroll
            for (int c = 0; c < (columns + 31) / 32; c++)
                sm90::add_box(&p.levels[t.level].sums, panel + c * (64 * 128), column + c * 32,
                              t.sums_phase, t.sums_j + first, t.sums_head, t.slot);
    }

    /* The dQ of one tile of keys for all queries that see it. */
    __device__ __forceinline__ void visit(const key_tile &t) {
        const int warp = threadIdx.x / 32 % 4;
        sm90::barrier_wait(barrier(L::k_full + k.index()), k.parity());
        int from = t.start;
        for (int left = t.blocks; left > 0; left--) {
            sm90::barrier_wait(barrier(L::ds_full + place.index()), place.parity());
#pragma unroll
            for (int part = 0; part < L::dq_parts; part++) {
                float x[columns / 2];
                issue(x, part);
                if (split_columns)
                    sm90::sent_wait_read<L::dq_stages - 1>();
                else if (part == 0)
                    sm90::sent_wait_read();
                if (!split_columns && part == 0 && place.count > 0)
                    leave(L::ds_empty + place.before().index());
                sm90::products_wait<0>();
                sm90::pin(x);
                /* all have read what is written over */
                if (!split_columns) sm90::named_barrier(1, QUERY_WARPS * 32);
                const uint32_t panel =
                    split_columns ? shared + L::dq_at + part % L::dq_stages * L::dq_bytes
                                  : shared + L::ds_at + place.index() * L::ds_bytes +
                                        part * KEY_TILE * 128;
                __syncwarp();
                if (split_columns && part == L::dq_parts - 1) leave(L::ds_empty + place.index());
                send(x, t, from + (split_columns ? 0 : part * 64) + warp * 16,
                     split_columns ? part * columns : 0, panel + warp * 16 * 128);
            }
            place.advance();
            from += L::queries;
            if (from >= t.keys) from = 0;
        }
        leave(L::k_empty + k.index());
        k.advance();
    }

    __device__ __forceinline__ void run() {
        for (;;) {
            const int at = tile_place.index();
            sm90::barrier_wait(barrier(L::tile_full + at), tile_place.parity());
            const key_tile &t = tiles[at];
            if (__shfl_sync(~0u, t.level, 0) < 0) break;
            visit(t);
            if (t.counter >= 0) sm90::sent_wait();
            leave(L::tile_done + at);
            if (threadIdx.x % 128 == 0) {
                sm90::barrier_wait(barrier(L::tile_done + at), tile_place.parity());
                if (t.counter >= 0) raise_counter(p.counters + t.counter, 1);
            }
            __syncwarp();
            sm90::barrier_arrive(barrier(L::tile_empty + at));
            tile_place.advance();
        }
        sm90::sent_wait();
    }
};

} // namespace dilated_sm90

#endif
