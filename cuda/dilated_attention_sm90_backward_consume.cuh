/* The consumer warpgroups of the backward kernel: 64 keys of a tile each. Scores are held
 * transposed, keys by queries, so that P^T and dS^T multiply dO and Q straight from registers;
 * dS^T goes through shared memory only for dQ, which sums over the keys of both warpgroups. */
#ifndef LNET_DILATED_ATTENTION_SM90_BACKWARD_CONSUME_CUH
#define LNET_DILATED_ATTENTION_SM90_BACKWARD_CONSUME_CUH

#include "cuda/dilated_attention_sm90_backward.cuh"
#include "cuda/dilated_attention_sm90_softmax.cuh"
#include "cuda/dilated_attention_sm90_store.cuh"
#include "cuda/dilated_attention_sm90_sync.cuh"
#include "cuda/sm90.cuh"
#include "cuda/wgmma.cuh"

namespace dilated_sm90 {

template <int width, bool bfloat16> struct gradient_consumer {
    using L = gradient_layout<width>;
    enum {
        queries = L::queries,
        scores = queries / 2,
        split_columns = L::split_columns,
        dq_width = L::dq_width,
    };
    static_assert(split_columns ? width == 128 : width <= 64, "dQ in two halves");

    const backward &p;
    const key_tile *tiles;
    const char *memory;
    uint32_t shared, barriers;
    int group; /* which warpgroup */
    ring_place<L::ring> tile_place = {0};
    ring_place<L::stages> k = {0}, q = {0};
    ring_place<L::v_stages> v = {0};
    ring_place<L::ds_stages> place = {0}; /* of dS */
    int counter = -1;                     /* still to raise for the tile before */

    __device__ __forceinline__ uint32_t barrier(int index) const { return barriers + index * 8; }
    __device__ __forceinline__ void leave(int index) const {
        __syncwarp();
        if (threadIdx.x % 32 == 0) sm90::barrier_arrive(barrier(index));
    }
    /* The descriptor of a buffer of a ring, the same in all threads. */
    __device__ __forceinline__ uint32_t begin(int at, int bytes, int index, int leading) const {
        return __shfl_sync(
            ~0u, sm90::tile_begin(shared + at, leading) + index * (bytes >> 4), 0);
    }

    /* d (64 keys, queries) = A's rows of this warpgroup times B's rows. */
    __device__ __forceinline__ void issue_scores(float (&d)[scores], int a_at, int a_index,
                                                 int b_at) const {
        const uint32_t a = begin(a_at + group * 64 * 128, L::kv_bytes, a_index, 16);
        const uint32_t b = begin(b_at, L::q_bytes, q.index(), 16);
#pragma unroll
        for (int step = 0; step < width / 16; step++)
            sm90::products<queries, bfloat16>::shared(
                d, sm90::tile_descriptor(a, step / 4 * (KEY_TILE * 128) + step % 4 * 32),
                sm90::tile_descriptor(b, step / 4 * (queries * 128) + step % 4 * 32), step != 0);
    }

    /* S^T and dP^T of the block that is next. */
    __device__ __forceinline__ void begin_s(float (&s)[scores]) const {
        sm90::barrier_wait(barrier(L::q_full + q.index()), q.parity());
        sm90::products_begin();
        issue_scores(s, L::k_at, k.index(), L::q_at);
        sm90::products_commit();
    }
    __device__ __forceinline__ void begin_dp(float (&dp)[scores]) const {
        sm90::products_begin();
        issue_scores(dp, L::v_at, v.index(), L::dout_at);
        sm90::products_commit();
    }

    /* d (64 keys, D) += x (64 keys, queries) times B (queries, D). */
    __device__ __forceinline__ void issue_keys(float (&d)[width / 2],
                                               const uint32_t (&x)[scores / 2], int b_at) const {
        const uint32_t b = begin(b_at, L::q_bytes, q.index(), queries * 128);
        sm90::products_begin();
#pragma unroll
        for (int step = 0; step < queries / 16; step++)
            sm90::products<width, bfloat16>::registers(d, x + 4 * step,
                                                       sm90::tile_descriptor(b, step * 2048));
        sm90::products_commit();
    }

    /* d (64 queries, dq_width) = dS (queries, keys) times K. */
    __device__ __forceinline__ void issue_queries(float (&d)[dq_width / 2]) const {
        const uint32_t a = begin(L::ds_at + (split_columns ? 0 : group * KEY_TILE * 128),
                                 L::ds_bytes, place.index(), KEY_TILE * 128);
        const uint32_t b = begin(L::k_at + (split_columns ? group * KEY_TILE * 128 : 0),
                                 L::kv_bytes, k.index(), KEY_TILE * 128);
        sm90::products_begin();
#pragma unroll
        for (int step = 0; step < KEY_TILE / 16; step++)
            sm90::products<dq_width, bfloat16>::transposed(
                d, sm90::tile_descriptor(a, step * 2048), sm90::tile_descriptor(b, step * 2048),
                step != 0);
        sm90::products_commit();
    }

    /* Where query `from` + c sees key r of the tile, c being a column of the thread: at or past
     * these columns, and below count. */
    __device__ __forceinline__ void hide(float (&s)[scores], const key_tile &t, int from) const {
        const int quad = threadIdx.x % 4 * 2;
        const int row = group * 64 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int key = row + 8 * r;
            int first = p.causal ? t.first + key - from - quad : 0;
            if (key >= t.rows) first = queries;
#pragma unroll
            for (int i = 0; i < queries / 8; i++)
#pragma unroll
                for (int j = 0; j < 2; j++)
                    if (8 * i + j < first) s[4 * i + 2 * r + j] = 0;
        }
    }

    /* (LSE, delta) of the thread's columns 8 i and 8 i + 1 at [4 i]. */
    __device__ __forceinline__ const float4 *stats() const {
        return reinterpret_cast<const float4 *>(memory + L::stats_at +
                                                q.index() * L::stats_bytes) +
               threadIdx.x % 4;
    }

    /* Scores become probabilities. */
    __device__ __forceinline__ void soften(float (&s)[scores]) const {
        const float4 *lse = stats();
#pragma unroll
        for (int i = 0; i < queries / 8; i++) {
            const float4 x = lse[4 * i];
            s[4 * i + 0] = sm90::exp2_fast(fmaf(s[4 * i + 0], p.scale, -x.x));
            s[4 * i + 1] = sm90::exp2_fast(fmaf(s[4 * i + 1], p.scale, -x.z));
            s[4 * i + 2] = sm90::exp2_fast(fmaf(s[4 * i + 2], p.scale, -x.x));
            s[4 * i + 3] = sm90::exp2_fast(fmaf(s[4 * i + 3], p.scale, -x.z));
        }
    }

    /* dS = P * (dP - delta), with P as it was rounded for dV: there are no registers for both. */
    __device__ __forceinline__ void differentiate(uint32_t (&ds)[scores / 2],
                                                  const uint32_t (&probabilities)[scores / 2],
                                                  const float (&dp)[scores]) const {
        const float4 *delta = stats();
#pragma unroll
        for (int i = 0; i < queries / 8; i++) {
            const float4 x = delta[4 * i];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const float2 y = unpack<bfloat16>(probabilities[2 * i + r]);
                ds[2 * i + r] = pack<bfloat16>(y.x * (dp[4 * i + 2 * r] - x.y),
                                               y.y * (dp[4 * i + 2 * r + 1] - x.w));
            }
        }
    }

    /* Says to the other warpgroup that this one has done with dS. */
    __device__ __forceinline__ void give_back() const {
        if (L::ds_stages == 1)
            sm90::named_barrier_arrive(2 + (group ^ 1), GRADIENT_WARPS * 32);
    }

    /* dS^T of the warpgroup's keys into shared memory: panels of 64 queries, keys by rows. */
    __device__ __forceinline__ void share(const uint32_t (&ds)[scores / 2]) const {
        const int lane = threadIdx.x % 32;
        const int key = group * 64 + threadIdx.x / 32 % 4 * 16 + lane / 8 % 2 * 8 + lane % 8;
        const uint32_t to = shared + L::ds_at + place.index() * L::ds_bytes + key * 128;
        if (L::ds_stages == 1) sm90::named_barrier(2 + group, GRADIENT_WARPS * 32);
        else sm90::sent_wait_read(); /* the dQ before, which the other buffer holds */
#pragma unroll
        for (int step = 0; step < queries / 16; step++)
            sm90::store_tiles(to + step / 4 * (KEY_TILE * 128) +
                                  ((step % 4 * 2 + lane / 16) ^ key % 8) * 16,
                              ds + 4 * step);
        sm90::fence_async_shared();
        sm90::named_barrier(1, GRADIENT_WARPS * 32);
    }

    /* Adds x, two rows a thread, to the sums: row 0 of `rows` is the tile's or block's first. */
    template <int columns>
    __device__ __forceinline__ static void add_rows(const float (&x)[columns / 2], float *to,
                                                    int row, int64_t pitch, int rows) {
        float *at = to + row * pitch + threadIdx.x % 4 * 4;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (row + 8 * r >= rows) return;
#pragma unroll
            for (int c = 0; c < columns / 16; c++)
                sm90::add_four(at + c * 16, x[8 * c + 2 * r], x[8 * c + 2 * r + 1],
                               x[8 * c + 2 * r + 4], x[8 * c + 2 * r + 5]);
            at += 8 * pitch;
        }
    }

    /* Sends dQ of a block off to be added to the sums: 16 rows a warp, by way of shared memory,
     * unless some of them are not of this segment. `from` is the block's first query. */
    __device__ __forceinline__ void send_queries(const float (&x)[dq_width / 2], const key_tile &t,
                                                 int from) const {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
        const int first = from + (split_columns ? 0 : group * 64) + warp * 16;
        const int column = split_columns ? group * 64 : 0;
        if (first + 16 > t.keys) {
            const int64_t pitch = static_cast<int64_t>(t.step) * width;
            add_rows<dq_width>(x, p.sums + t.dq_at + first * pitch + column, lane / 4, pitch,
                               t.keys - first);
            return;
        }
        if (split_columns) sm90::sent_wait_read(); /* else `share` has waited */
        __syncwarp();
        const uint32_t panel =
            shared + (split_columns
                          ? L::dq_at + group * L::dq_bytes
                          : L::ds_at + place.index() * L::ds_bytes + group * KEY_TILE * 128) +
            warp * 16 * 128;
        /* Panels of 32 columns, swizzled. Odd rows take pairs of pieces in the other order: the
         * eight threads of a store then write to different banks. */
        const int row = lane / 4, odd = row % 2;
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int c = 0; c < dq_width / 16; c++) {
                const bool pair = (c ^ 1) < dq_width / 16;
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
            for (int c = 0; c < (dq_width + 31) / 32; c++)
                sm90::add_box(&p.levels[t.level].sums, panel + c * (64 * 128), column + c * 32,
                              t.sums_phase, t.sums_j + first, t.sums_head, t.slot);
    }

    /* Writes a tile's dK or dV, with what other levels have left for it, which becomes zeros. */
    __device__ __forceinline__ void write_keys(float (&x)[width / 2], const key_tile &t, float *sums,
                                               float scale, void *to) const {
        const int row = group * 64 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
        const int64_t pitch = static_cast<int64_t>(t.step) * width;
        float4 *from = reinterpret_cast<float4 *>(sums + (t.first + row) * pitch) + threadIdx.x % 4;
        float4 left[2][width / 16];
        bool known[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int key = row + 8 * r;
            known[r] = key < t.rows && (t.known[key / 32] >> key % 32 & 1);
#pragma unroll
            for (int c = 0; c < width / 16; c++)
                left[r][c] =
                    known[r] ? __ldcg(from + r * 2 * pitch + c * 4) : make_float4(0, 0, 0, 0);
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
#pragma unroll
            for (int c = 0; c < width / 16; c++) {
                x[8 * c + 2 * r] += left[r][c].x;
                x[8 * c + 2 * r + 1] += left[r][c].y;
                x[8 * c + 2 * r + 4] += left[r][c].z;
                x[8 * c + 2 * r + 5] += left[r][c].w;
                if (known[r]) __stcg(from + r * 2 * pitch + c * 4, make_float4(0, 0, 0, 0));
            }
            const int64_t n = t.row + static_cast<int64_t>(t.first + row + 8 * r) * t.step;
            const int64_t token = static_cast<int64_t>(t.batch) * p.rows + n;
            store_row<width, bfloat16>(
                x, r, scale, row + 8 * r < t.rows,
                static_cast<char *>(to) + (token * p.kv_heads + t.kv_head) * p.width * 2, p.width);
        }
    }

    /* Says that the tile before is done. What it added takes a while to get there, so this comes as
     * late as it may: before the first dQ of the next tile is sent, or before waiting for one. */
    __device__ __forceinline__ void finish_tile() {
        if (counter < 0) return;
        sm90::sent_wait();
        __syncwarp();
        if (threadIdx.x % 32 == 0) raise_counter(p.counters + counter, 1);
        counter = -1;
    }

    /* One tile of keys against all queries that see it. */
    __device__ __forceinline__ void visit(const key_tile &t) {
        const int last_key = t.first + t.rows - 1;
        float s[scores], dp[scores], dk[width / 2], dv[width / 2], dq[dq_width / 2];
        uint32_t probabilities[scores / 2], ds[scores / 2];
#pragma unroll
        for (int i = 0; i < width / 2; i++) dk[i] = dv[i] = 0;
        sm90::barrier_wait(barrier(L::k_full + k.index()), k.parity());
        begin_s(s);
        sm90::barrier_wait(barrier(L::v_full + v.index()), v.parity());
        begin_dp(dp);
        for (int from = t.begin;; from += queries) {
            sm90::products_wait<1>();
            sm90::pin(s);
            soften(s);
            if (t.rows < KEY_TILE || (p.causal && from < last_key)) hide(s, t, from);
#pragma unroll
            for (int i = 0; i < scores / 2; i++)
                probabilities[i] = pack<bfloat16>(s[2 * i], s[2 * i + 1]);
            issue_keys(dv, probabilities, L::dout_at);
            sm90::products_wait<1>();
            sm90::pin(dp);
            differentiate(ds, probabilities, dp);
            issue_keys(dk, ds, L::q_at);
            share(ds);
            issue_queries(dq);
            finish_tile();
            sm90::products_wait<0>();
            sm90::pin(dv);
            sm90::pin(dk);
            sm90::pin(dq);
            give_back();
            leave(L::q_empty + q.index());
            q.advance();
            const bool last = from + queries >= t.keys;
            if (last) {
                send_queries(dq, t, from);
                break;
            }
            begin_s(s); /* runs while dQ is sent; dP with it would need too many registers */
            send_queries(dq, t, from);
            place.advance();
            begin_dp(dp);
        }
        place.advance();
        leave(L::k_empty + k.index());
        leave(L::v_empty + v.index());
        k.advance();
        v.advance();
        float *to = p.sums + t.dkv_at;
        if (t.wait >= 0) {
            wait_counter(p.counters + t.wait, t.target);
            write_keys(dk, t, to + p.dk_at, p.gradient_scale, p.dk);
            write_keys(dv, t, to + p.dv_at, 1, p.dv);
        } else {
            const int64_t pitch = static_cast<int64_t>(t.step) * width;
            const int row = group * 64 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
            add_rows<width>(dk, to + p.dk_at + t.first * pitch, row, pitch, t.rows);
            add_rows<width>(dv, to + p.dv_at + t.first * pitch, row, pitch, t.rows);
        }
        counter = t.counter;
    }

    __device__ __forceinline__ void run() {
        give_back();
        for (;;) {
            const uint32_t described = barrier(L::tile_full + tile_place.index());
            if (!__all_sync(~0u, sm90::barrier_test(described, tile_place.parity()))) {
                finish_tile();
                sm90::barrier_wait(described, tile_place.parity());
            }
            const key_tile &t = tiles[tile_place.index()];
            if (__shfl_sync(~0u, t.level, 0) < 0) break;
            visit(t);
            sm90::barrier_arrive(barrier(L::tile_empty + tile_place.index()));
            tile_place.advance();
        }
        finish_tile();
    }
};

} // namespace dilated_sm90

#endif
