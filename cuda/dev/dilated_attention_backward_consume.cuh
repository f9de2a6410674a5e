/* The consumer warpgroups of the backward kernel: 64 keys of a tile each. Scores are held
 * transposed, keys by queries, so that P^T and dS^T multiply dO and Q straight from registers;
 * dS^T goes through shared memory only for dQ, which sums over the keys of both warpgroups. */
#ifndef LNET_DILATED_ATTENTION_BACKWARD_CONSUME_CUH
#define LNET_DILATED_ATTENTION_BACKWARD_CONSUME_CUH

#include "dilated_attention_backward.cuh"
#include "dilated_attention_softmax.cuh"
#include "dilated_attention_sync.cuh"
#include "sm90.cuh"
#include "wgmma.cuh"

namespace dilated {

template <int width, bool bfloat16> struct gradient_consumer {
    using L = gradient_layout<width>;
    enum {
        queries = L::queries,
        scores = queries / 2,
        /* dQ of a block: a warpgroup takes 64 of its queries, or all of them and 64 columns */
        split_columns = queries == 64,
        dq_width = width < 64 ? width : 64,
    };
    static_assert(split_columns ? width == 128 : width <= 64, "dQ in two halves");

    const backward &p;
    const key_tile *tiles;
    const char *memory;
    uint32_t shared, barriers;
    int group; /* which warpgroup */
    ring_place<L::ring> tile_place = {0};
    ring_place<L::stages> kv = {0}, q = {0};
    ring_place<L::ds_stages> place = {0}; /* of dS */

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
    __device__ __forceinline__ void issue_scores(float (&d)[scores], int a_at, int b_at) const {
        const uint32_t a = begin(a_at + group * 64 * 128, L::kv_bytes, kv.index(), 16);
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
        issue_scores(s, L::k_at, L::q_at);
        sm90::products_commit();
    }
    __device__ __forceinline__ void begin_dp(float (&dp)[scores]) const {
        sm90::products_begin();
        issue_scores(dp, L::v_at, L::dout_at);
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
                                 L::kv_bytes, kv.index(), KEY_TILE * 128);
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

    /* Scores become probabilities. */
    __device__ __forceinline__ void soften(float (&s)[scores]) const {
        const float2 *lse = reinterpret_cast<const float2 *>(memory + L::lse_at +
                                                             q.index() * queries * 4) +
                            threadIdx.x % 4;
#pragma unroll
        for (int i = 0; i < queries / 8; i++) {
            const float2 x = lse[4 * i];
            s[4 * i + 0] = sm90::exp2_fast(fmaf(s[4 * i + 0], p.scale, -x.x));
            s[4 * i + 1] = sm90::exp2_fast(fmaf(s[4 * i + 1], p.scale, -x.y));
            s[4 * i + 2] = sm90::exp2_fast(fmaf(s[4 * i + 2], p.scale, -x.x));
            s[4 * i + 3] = sm90::exp2_fast(fmaf(s[4 * i + 3], p.scale, -x.y));
        }
    }

    /* dS = P * (dP - delta), with P as it was rounded for dV: there are no registers for both. */
    __device__ __forceinline__ void differentiate(uint32_t (&ds)[scores / 2],
                                                  const uint32_t (&probabilities)[scores / 2],
                                                  const float (&dp)[scores]) const {
        const float2 *delta = reinterpret_cast<const float2 *>(memory + L::delta_at +
                                                               q.index() * queries * 4) +
                              threadIdx.x % 4;
#pragma unroll
        for (int i = 0; i < queries / 8; i++) {
            const float2 x = delta[4 * i];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const float2 y = unpack<bfloat16>(probabilities[2 * i + r]);
                ds[2 * i + r] = pack<bfloat16>(y.x * (dp[4 * i + 2 * r] - x.x),
                                               y.y * (dp[4 * i + 2 * r + 1] - x.y));
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
#pragma unroll
        for (int step = 0; step < queries / 16; step++)
            sm90::store_tiles(to + step / 4 * (KEY_TILE * 128) +
                                  ((step % 4 * 2 + lane / 16) ^ key % 8) * 16,
                              ds + 4 * step);
        sm90::fence_async_shared();
        sm90::named_barrier(1, GRADIENT_WARPS * 32);
    }

    /* Adds two rows a thread, 16 columns at a time, to the sums. */
    template <int columns>
    __device__ __forceinline__ static void add_rows(const float (&x)[columns / 2], float *to,
                                                    int64_t row, int64_t pitch, int rows) {
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

    /* One tile of keys against all queries that see it. */
    __device__ __forceinline__ void visit(const key_tile &t) {
        const int64_t pitch = static_cast<int64_t>(t.step) * width;
        const int row = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
        const int last_key = t.first + t.rows - 1;
        const int dq_row = row + (split_columns ? 0 : group * 64);
        float *dq_to = p.sums + t.dq_at + (split_columns ? group * 64 : 0);
        float s[scores], dp[scores], dk[width / 2], dv[width / 2], dq[dq_width / 2];
        uint32_t probabilities[scores / 2], ds[scores / 2];
#pragma unroll
        for (int i = 0; i < width / 2; i++) dk[i] = dv[i] = 0;
        sm90::barrier_wait(barrier(L::kv_full + kv.index()), kv.parity());
        begin_s(s);
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
            sm90::products_wait<0>();
            sm90::pin(dv);
            sm90::pin(dk);
            sm90::pin(dq);
            give_back();
            place.advance();
            leave(L::q_empty + q.index());
            q.advance();
            float *to = dq_to + from * pitch;
            if (from + queries >= t.keys) {
                add_rows<dq_width>(dq, to, dq_row, pitch, t.keys - from);
                break;
            }
            begin_s(s); /* runs while dQ is added; dP with it would need too many registers */
            add_rows<dq_width>(dq, to, dq_row, pitch, t.keys - from);
            begin_dp(dp);
        }
        leave(L::kv_empty + kv.index());
        kv.advance();
        float *to = p.sums + t.dkv_at + t.first * pitch;
        add_rows<width>(dk, to + p.dk_at, group * 64 + row, pitch, t.rows);
        add_rows<width>(dv, to + p.dv_at, group * 64 + row, pitch, t.rows);
    }

    __device__ __forceinline__ void run() {
        give_back();
        for (;;) {
            sm90::barrier_wait(barrier(L::tile_full + tile_place.index()), tile_place.parity());
            const key_tile &t = tiles[tile_place.index()];
            if (__shfl_sync(~0u, t.level, 0) < 0) break;
            visit(t);
            __syncwarp();
            if (t.counter >= 0 && threadIdx.x % 32 == 0)
                raise_counter(p.counters + 2 + t.counter, 1);
            sm90::barrier_arrive(barrier(L::tile_empty + tile_place.index()));
            tile_place.advance();
        }
    }
};

} // namespace dilated

#endif
