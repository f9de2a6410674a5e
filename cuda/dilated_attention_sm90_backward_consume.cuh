/* The consumer warpgroups of the backward kernel: 64 keys of a tile each. Scores are held
 * transposed, keys by queries, so that P^T and dS^T multiply dO and Q straight from registers;
 * dS^T goes through shared memory to the warpgroup that makes dQ, a sum over the keys of both. */
#ifndef LNET_DILATED_ATTENTION_SM90_BACKWARD_CONSUME_CUH
#define LNET_DILATED_ATTENTION_SM90_BACKWARD_CONSUME_CUH

#include "cuda/dilated_attention_sm90_backward.cuh"
#include "cuda/dilated_attention_sm90_softmax.cuh"
#include "cuda/dilated_attention_sm90_store.cuh"
#include "cuda/dilated_attention_sm90_sync.cuh"
#include "cuda/sm90.cuh"
#include "cuda/wgmma.cuh"

namespace dilated_sm90 {

/* Adds x, two rows a thread, to the sums: row 0 of `rows` is the tile's or block's first. */
template <int columns>
__device__ __forceinline__ void add_rows(const float (&x)[columns / 2], float *to, int row,
                                         int64_t pitch, int rows) {
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

template <int width, bool bfloat16, bool float32> struct gradient_consumer {
    using L = gradient_layout<width>;
    enum { queries = L::queries, scores = queries / 2, steps = width / 16 };

    const backward &p;
    const key_tile *tiles;
    const char *memory;
    uint32_t shared;
    int group;                                /* which warpgroup */
    uint32_t tile_count = 0, block_count = 0; /* places in all rings */
    uint32_t kept_k[steps][4], kept_v[steps][4];

    __device__ __forceinline__ ring_place<L::ring> tile_place() const { return {tile_count}; }
    __device__ __forceinline__ ring_place<L::stages> k() const { return {tile_count}; }
    __device__ __forceinline__ ring_place<L::v_stages> v() const { return {tile_count}; }
    __device__ __forceinline__ ring_place<L::stages> q() const { return {block_count}; }
    __device__ __forceinline__ ring_place<L::stages> ds() const { return {block_count}; }

    __device__ __forceinline__ uint32_t barrier(int index) const {
        return shared + L::barriers_at + index * 8;
    }
    __device__ __forceinline__ void leave(int index) const {
        __syncwarp();
        if (threadIdx.x % 32 == 0) sm90::barrier_arrive(barrier(index));
    }
    /* Every lane says so: each has read LSE and delta, and is seen to have by racecheck. */
    __device__ __forceinline__ void leave_queries() const {
        sm90::barrier_arrive(barrier(L::q_empty + q().index()));
    }
    /* The descriptor of a buffer of a ring, the same in all threads. */
    __device__ __forceinline__ uint32_t begin(int at, int bytes, int index, int leading) const {
        return __shfl_sync(~0u, sm90::tile_begin(shared + at, leading) + index * (bytes >> 4), 0);
    }

    /* The warpgroup's keys or values as operands of products. */
    __device__ __forceinline__ void keep(uint32_t (&x)[steps][4], int at, int index) const {
        const int lane = threadIdx.x % 32;
        const int key = group * 64 + threadIdx.x / 32 % 4 * 16 + lane / 8 % 2 * 8 + lane % 8;
        const uint32_t from = shared + at + index * L::kv_bytes + key * 128;
#pragma unroll
        for (int step = 0; step < steps; step++)
            sm90::load_tiles(x[step], from + ((step * 2 + lane / 16) ^ key % 8) * 16);
    }

    /* d (64 keys, queries) = the warpgroup's keys or values times the rows of B at place `at`. */
    __device__ __forceinline__ void issue_scores(float (&d)[scores],
                                                 const uint32_t (&kept)[steps][4], int a_at,
                                                 int a_index, int b_at,
                                                 const ring_place<L::stages> &at) const {
        const uint32_t b = begin(b_at, L::q_bytes, at.index(), 16);
        uint32_t a = 0;
        if (!L::keep) a = begin(a_at + group * 64 * 128, L::kv_bytes, a_index, 16);
#pragma unroll
        for (int step = 0; step < steps; step++) {
            const uint64_t rows =
                sm90::tile_descriptor(b, step / 4 * (queries * 128) + step % 4 * 32);
            if constexpr (L::keep)
                sm90::products<queries, bfloat16>::kept(d, kept[step], rows, step != 0);
            else
                sm90::products<queries, bfloat16>::shared(
                    d, sm90::tile_descriptor(a, step / 4 * (KEY_TILE * 128) + step % 4 * 32), rows,
                    step != 0);
        }
    }

    /* S^T of the block whose queries are at place `at`. */
    __device__ __forceinline__ void begin_s(float (&s)[scores],
                                            const ring_place<L::stages> &at) const {
        sm90::barrier_wait(barrier(L::q_full + at.index()), at.parity());
        sm90::products_begin();
        issue_scores(s, kept_k, L::k_at, k().index(), L::q_at, at);
        sm90::products_commit();
    }

    /* d (64 keys, D) += x (64 keys, queries) times B (queries, D). */
    __device__ __forceinline__ void issue_keys(float (&d)[width / 2],
                                               const uint32_t (&x)[scores / 2], int b_at) const {
        const uint32_t b = begin(b_at, L::q_bytes, q().index(), queries * 128);
#pragma unroll
        for (int step = 0; step < queries / 16; step++)
            sm90::products<width, bfloat16>::registers(d, x + 4 * step,
                                                       sm90::tile_descriptor(b, step * 2048));
    }

    /* Zeros where the query `from` + column does not see a key of the tile. */
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

    /* LSE or, `queries` later, delta of the thread's columns 8 i and 8 i + 1 at [4 i]. */
    __device__ __forceinline__ const float2 *stats(int from) const {
        return reinterpret_cast<const float2 *>(memory + L::stats_at +
                                                q().index() * L::stats_bytes + from * 4) +
               threadIdx.x % 4;
    }

    /* Scores become probabilities. */
    __device__ __forceinline__ void soften(float (&s)[scores], const float2 *lse) const {
#pragma unroll
        for (int i = 0; i < queries / 8; i++) {
            const float2 x = lse[4 * i];
            s[4 * i + 0] = sm90::exp2_fast(fmaf(s[4 * i + 0], p.scale, -x.x));
            s[4 * i + 1] = sm90::exp2_fast(fmaf(s[4 * i + 1], p.scale, -x.y));
            s[4 * i + 2] = sm90::exp2_fast(fmaf(s[4 * i + 2], p.scale, -x.x));
            s[4 * i + 3] = sm90::exp2_fast(fmaf(s[4 * i + 3], p.scale, -x.y));
        }
    }

    /* P becomes dS = P * (dP - delta), with P as it was rounded for dV: there are no registers for
     * both. */
    __device__ __forceinline__ void differentiate(uint32_t (&x)[scores / 2],
                                                  const float (&dp)[scores],
                                                  const float2 *delta) const {
#pragma unroll
        for (int i = 0; i < queries / 8; i++) {
            const float2 z = delta[4 * i];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const float2 y = unpack<bfloat16>(x[2 * i + r]);
                x[2 * i + r] = pack<bfloat16>(y.x * (dp[4 * i + 2 * r] - z.x),
                                              y.y * (dp[4 * i + 2 * r + 1] - z.y));
            }
        }
    }

    /* dS^T of the warpgroup's keys into shared memory: panels of 64 queries, keys by rows. */
    __device__ __forceinline__ void share(const uint32_t (&x)[scores / 2]) const {
        const int lane = threadIdx.x % 32;
        const int key = group * 64 + threadIdx.x / 32 % 4 * 16 + lane / 8 % 2 * 8 + lane % 8;
        const uint32_t to = shared + L::ds_at + ds().index() * L::ds_bytes + key * 128;
        sm90::barrier_wait(barrier(L::ds_empty + ds().index()), ds().parity_before());
#pragma unroll
        for (int step = 0; step < queries / 16; step++)
            sm90::store_tiles(to + step / 4 * (KEY_TILE * 128) +
                                  ((step % 4 * 2 + lane / 16) ^ key % 8) * 16,
                              x + 4 * step);
        sm90::fence_async_shared();
        leave(L::ds_full + ds().index());
    }

    /* What other levels have left for a tile's dK or dV, a thread's part. It becomes zeros. */
    struct leftover {
        float4 x[2][width / 16];
    };
    __device__ __forceinline__ static int row_of_tile(int group) {
        return group * 64 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
    }
    __device__ __forceinline__ leftover take(const key_tile &t, float *sums) const {
        const int row = row_of_tile(group);
        const int64_t pitch = static_cast<int64_t>(t.step) * width;
        float4 *from = reinterpret_cast<float4 *>(sums + (t.first + row) * pitch) + threadIdx.x % 4;
        leftover y;
        bool known[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int key = row + 8 * r;
            known[r] = key < t.rows && (t.known[key / 32] >> key % 32 & 1);
#pragma unroll
            for (int c = 0; c < width / 16; c++)
                y.x[r][c] =
                    known[r] ? __ldcg(from + r * 2 * pitch + c * 4) : make_float4(0, 0, 0, 0);
        }
#pragma unroll
        for (int r = 0; r < 2; r++)
#pragma unroll
            for (int c = 0; c < width / 16; c++)
                if (known[r]) __stcg(from + r * 2 * pitch + c * 4, make_float4(0, 0, 0, 0));
        return y;
    }

    /* Writes a tile's dK or dV, with what was left for it. */
    __device__ __forceinline__ void write_keys(float (&x)[width / 2], const leftover &y,
                                               const key_tile &t, float scale, void *to) const {
        const int row = row_of_tile(group);
#pragma unroll
        for (int r = 0; r < 2; r++) {
#pragma unroll
            for (int c = 0; c < width / 16; c++) {
                x[8 * c + 2 * r] += y.x[r][c].x;
                x[8 * c + 2 * r + 1] += y.x[r][c].y;
                x[8 * c + 2 * r + 4] += y.x[r][c].z;
                x[8 * c + 2 * r + 5] += y.x[r][c].w;
            }
            const int64_t n = t.row + static_cast<int64_t>(t.first + row + 8 * r) * t.step;
            const int64_t token = static_cast<int64_t>(t.batch) * p.rows + n;
            const bool valid = row + 8 * r < t.rows;
            char *out = static_cast<char *>(to) +
                        (token * p.kv_heads + t.kv_head) * p.width * gradient_bytes<float32>;
            if constexpr (float32)
                store_row_whole<width>(x, r, scale, valid, out, p.width);
            else
                store_row<width, bfloat16>(x, r, scale, valid, out, p.width);
        }
    }

    /* The warpgroups take their exponentials in turn: one's run under the other's products. */
    __device__ __forceinline__ void wait_turn() const {
        sm90::named_barrier(2 + group, GRADIENT_WARPS * 32);
    }
    __device__ __forceinline__ void give_turn() const {
        sm90::named_barrier_arrive(2 + (group ^ 1), GRADIENT_WARPS * 32);
    }

    /* One tile of keys against all queries that see it. */
    __device__ __forceinline__ void visit(const key_tile &t) {
        const int last_key = t.first + t.rows - 1;
        float s[scores];        /* S, then dP */
        uint32_t x[scores / 2]; /* P, then dS */
        float dk[width / 2], dv[width / 2];
#pragma unroll
        for (int i = 0; i < width / 2; i++) dk[i] = dv[i] = 0;
        sm90::barrier_wait(barrier(L::k_full + k().index()), k().parity());
        if constexpr (L::keep) keep(kept_k, L::k_at, k().index());
        begin_s(s, q());
        sm90::barrier_wait(barrier(L::v_full + v().index()), v().parity());
        if constexpr (L::keep) {
            keep(kept_v, L::v_at, v().index());
            leave(L::v_empty + v().index());
        }
        int from = t.start;
        for (int left = t.blocks;; left--) {
            wait_turn();
            sm90::products_wait<0>();
            sm90::pin(s);
            soften(s, stats(0));
            if (t.rows < KEY_TILE || (p.causal && from < last_key)) hide(s, t, from);
#pragma unroll
            for (int i = 0; i < scores / 2; i++) x[i] = pack<bfloat16>(s[2 * i], s[2 * i + 1]);
            give_turn();
            sm90::products_begin();
            issue_scores(s, kept_v, L::v_at, v().index(), L::dout_at, q());
            issue_keys(dv, x, L::dout_at);
            sm90::products_commit();
            sm90::products_wait<0>();
            sm90::pin(s);
            sm90::pin(dv);
            if (left == 1 && !L::keep) leave(L::v_empty + v().index());
            differentiate(x, s, stats(queries));
            sm90::products_begin();
            issue_keys(dk, x, L::q_at);
            sm90::products_commit();
            share(x);
            if (left == 1) break;
            from += queries;
            if (from >= t.keys) from = 0;
            begin_s(s, {block_count + 1});
            sm90::products_wait<1>();
            sm90::pin(dk);
            leave_queries();
            block_count++;
        }
        sm90::products_wait<0>();
        sm90::pin(dk);
        leave_queries();
        leave(L::k_empty + k().index());
        block_count++;
        float *to = p.sums + t.dkv_at;
        if (t.direct) {
            constexpr bool both = width <= 64; /* at once, as registers allow */
            if (t.wait >= 0) wait_counter(p.counters + t.wait, t.target);
            const leftover left_k = take(t, to + p.dk_at);
            if constexpr (both) {
                const leftover left_v = take(t, to + p.dv_at);
                write_keys(dk, left_k, t, p.gradient_scale, p.dk);
                write_keys(dv, left_v, t, 1, p.dv);
            } else {
                write_keys(dk, left_k, t, p.gradient_scale, p.dk);
                write_keys(dv, take(t, to + p.dv_at), t, 1, p.dv);
            }
        } else {
            const int64_t pitch = static_cast<int64_t>(t.step) * width;
            const int row = row_of_tile(group);
            add_rows<width>(dk, to + p.dk_at + t.first * pitch, row, pitch, t.rows);
            add_rows<width>(dv, to + p.dv_at + t.first * pitch, row, pitch, t.rows);
        }
    }

    __device__ __forceinline__ void run() {
        if (group == 1) give_turn();
        for (;;) {
            sm90::barrier_wait(barrier(L::tile_full + tile_place().index()), tile_place().parity());
            const key_tile &t = tiles[tile_place().index()];
            if (__shfl_sync(~0u, t.level, 0) < 0) break;
            visit(t);
            leave(L::tile_done + tile_place().index());
            sm90::barrier_arrive(barrier(L::tile_empty + tile_place().index()));
            tile_count++;
        }
        if (group == 0) wait_turn();
    }
};

} // namespace dilated_sm90

#endif
