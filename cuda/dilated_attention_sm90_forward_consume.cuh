/* A consumer warpgroup: 64 rows of each tile against the keys that they see.
 *
 * Blocks of keys are visited from the last, which may be masked, to the first. While the scores of
 * one block become probabilities, the product of the block before with its values runs. */
#ifndef LNET_DILATED_ATTENTION_SM90_FORWARD_CONSUME_CUH
#define LNET_DILATED_ATTENTION_SM90_FORWARD_CONSUME_CUH

#include "cuda/dilated_attention_sm90_forward.cuh"
#include "cuda/dilated_attention_sm90_forward_schedule.cuh"
#include "cuda/dilated_attention_sm90_softmax.cuh"
#include "cuda/dilated_attention_sm90_store.cuh"
#include "cuda/wgmma.cuh"

namespace dilated_sm90 {

/* A number that is the same in all threads, so that the compiler knows. */
__device__ __forceinline__ int uniform(int x) {
    return __shfl_sync(~0u, x, 0);
}

/* What earlier levels left for a thread's part of its two rows. */
template <int width> struct kept_rows {
    float4 o[2][width / 16];
    float2 sums[2]; /* m, l */
};

template <int width>
__device__ __forceinline__ void load_rows(kept_rows<width> &kept, const float *state,
                                          const uint32_t (&entry)[2]) {
    const int quad = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float *from =
            state + static_cast<int64_t>(entry[r] & ROW_PLACE) * layout<width>::state_stride;
        const bool known = entry[r] & ROW_KNOWN;
        kept.sums[r] = make_float2(-INFINITY, 0);
#pragma unroll
        for (int c = 0; c < width / 16; c++) kept.o[r][c] = make_float4(0, 0, 0, 0);
        if (known) {
#pragma unroll
            for (int c = 0; c < width / 16; c++)
                kept.o[r][c] = __ldcg(reinterpret_cast<const float4 *>(from + c * 16 + quad * 4));
            kept.sums[r] = __ldcg(reinterpret_cast<const float2 *>(from + width));
        }
    }
}

/* Rows go on from there, or see nothing yet. */
template <int width>
__device__ __forceinline__ void begin_rows(float (&o)[width / 2], row_pair &rows,
                                           kept_rows<width> &kept, int zero_keys) {
    const int quad = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
#pragma unroll
        for (int c = 0; c < width / 16; c++) {
            float4 &x = kept.o[r][c];
            /* not before here: the loads take as long as the first scores */
            asm volatile("" : "+f"(x.x), "+f"(x.y), "+f"(x.z), "+f"(x.w));
            o[8 * c + 2 * r + 0] = x.x;
            o[8 * c + 2 * r + 1] = x.y;
            o[8 * c + 2 * r + 4] = x.z;
            o[8 * c + 2 * r + 5] = x.w;
        }
        rows.m[r] = kept.sums[r].x;
        rows.l[r] = quad == 0 ? kept.sums[r].y : 0;
        if (zero_keys > 0) {
            float top = fmaxf(rows.m[r], 0.0f), shrink = sm90::exp2_fast(rows.m[r] - top);
            rows.l[r] = rows.l[r] * shrink + (quad == 0 ? zero_keys * sm90::exp2_fast(-top) : 0);
            rows.m[r] = top;
#pragma unroll
            for (int i = 0; i < width / 2; i++)
                if (i / 2 % 2 == r) o[i] *= shrink;
        }
    }
}

/* Leaves one row for later levels. */
template <int width>
__device__ __forceinline__ void keep_row(const float (&o)[width / 2], int r, float m, float l,
                                         float *to) {
    const int quad = threadIdx.x % 4;
#pragma unroll
    for (int c = 0; c < width / 16; c++)
        __stcg(reinterpret_cast<float4 *>(to + c * 16 + quad * 4),
               make_float4(o[8 * c + 2 * r + 0], o[8 * c + 2 * r + 1], o[8 * c + 2 * r + 4],
                           o[8 * c + 2 * r + 5]));
    if (quad == 0) __stcg(reinterpret_cast<float2 *>(to + width), make_float2(m, l));
}

/* The scores of one warp's rows once more, by itself. */
template <int width, bool bfloat16, int count>
__device__ __forceinline__ void warp_scores(float (&s)[count], uint32_t q, uint32_t k) {
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane % 16;
#pragma unroll
    for (int i = 0; i < count; i++) s[i] = 0;
#pragma unroll 1
    for (int step = 0; step < width / 16; step++) {
        const int piece = step % 4 * 2;
        uint32_t a[4], b[4];
        sm90::load_tiles(a, q + step / 4 * (WARPGROUP_ROWS * 128) + row * 128 +
                                ((piece + lane / 16) ^ row % 8) * 16);
        const int key = lane % 8 + lane / 16 * 8;
        uint32_t panel =
            k + step / 4 * (count * 2 * 128) + key * 128 + ((piece + lane / 8 % 2) ^ key % 8) * 16;
#pragma unroll
        for (int pair = 0; pair < count / 8; pair++) {
            sm90::load_tiles(b, panel + pair * 16 * 128);
            sm90::warp_product<bfloat16>(s + pair * 8, a, b[0], b[1]);
            sm90::warp_product<bfloat16>(s + pair * 8 + 4, a, b[2], b[3]);
        }
    }
}

template <int width, bool bfloat16> struct consumer {
    using L = layout<width>;
    using S = shape<width>;
    enum { keys = S::keys, scores = keys / 2 };

    const forward &p;
    const tile *tiles;
    const uint32_t *tables;
    uint32_t shared, barriers;
    ring_place<L::ring> tile_place = {0};
    ring_place<S::q_buffers> q_place = {0};
    /* the block whose keys are next; its values come one block later */
    ring_place<S::stages> place = {0};

    __device__ __forceinline__ uint32_t barrier(int index) const { return barriers + index * 8; }
    __device__ __forceinline__ void leave(int index) const {
        if (threadIdx.x % 32 == 0) sm90::barrier_arrive(barrier(index));
    }

    __device__ __forceinline__ void issue_scores(float (&s)[scores], uint32_t q) const {
        const uint32_t a = sm90::tile_begin(q, 16);
        const uint32_t b =
            uniform(sm90::tile_begin(shared + L::k_at, 16) + place.index() * (L::kv_bytes >> 4));
        sm90::products_begin();
#pragma unroll
        for (int step = 0; step < width / 16; step++)
            sm90::products<keys, bfloat16>::shared(
                s, sm90::tile_descriptor(a, step / 4 * (WARPGROUP_ROWS * 128) + step % 4 * 32),
                sm90::tile_descriptor(b, step / 4 * (keys * 128) + step % 4 * 32), step != 0);
        sm90::products_commit();
    }

    __device__ __forceinline__ void
    issue_values(float (&o)[width / 2], const uint32_t (&probabilities)[scores / 2]) const {
        const uint32_t b = uniform(sm90::tile_begin(shared + L::v_at, keys * 128) +
                                   place.before().index() * (L::kv_bytes >> 4));
        sm90::products_begin();
#pragma unroll
        for (int step = 0; step < keys / 16; step++)
            sm90::products<width, bfloat16>::registers(o, probabilities + 4 * step,
                                                       sm90::tile_descriptor(b, step * 2048));
        sm90::products_commit();
    }

    __device__ __forceinline__ void wait_k() const {
        sm90::barrier_wait(barrier(L::k_full + place.index()), place.parity());
    }
    __device__ __forceinline__ void wait_v() const {
        const ring_place<S::stages> v = place.before();
        sm90::barrier_wait(barrier(L::v_full + v.index()), v.parity());
    }
    __device__ __forceinline__ void leave_k() const {
        leave(L::k_empty + place.index());
    }
    __device__ __forceinline__ void leave_v() const {
        leave(L::v_empty + place.before().index());
    }

    /* The warpgroups issue their products in turn, so that one's exponentials run under the
     * products of the others. */
    __device__ __forceinline__ void wait_turn(int group) const {
        sm90::named_barrier(2 + group, 256);
    }
    __device__ __forceinline__ void pass_turn(int group) const {
        sm90::named_barrier_arrive(2 + (group + 1 == S::warpgroups ? 0 : group + 1), 256);
    }

    __device__ __forceinline__ static void pack_scores(uint32_t (&probabilities)[scores / 2],
                                                       const float (&s)[scores]) {
#pragma unroll
        for (int i = 0; i < scores / 2; i++)
            probabilities[i] = pack<bfloat16>(s[2 * i], s[2 * i + 1]);
    }

    /* The columns of block `index` that a thread's two rows do not see begin here. */
    __device__ __forceinline__ void limits(int (&limit)[2], const tile &t, int row,
                                           int index) const {
        const int from = index * keys + threadIdx.x % 4 * 2;
#pragma unroll
        for (int r = 0; r < 2; r++)
            limit[r] = (p.causal ? min(t.keys, t.first + row + 8 * r + 1) : t.keys) - from;
    }

    /* Scores become probabilities, and the softmax of the rows goes on with them. Leaves the keys. */
    __device__ __forceinline__ void soften(float (&s)[scores], float (&o)[width / 2],
                                           row_pair &rows, const tile &t, int row, uint32_t q,
                                           int index, int whole, bool first) {
        int limit[2];
        if (index >= whole) {
            limits(limit, t, row, index);
            mask(s, limit, p.scale);
        }
        if (first) start_rows(s, rows, p.scale);
        float sum[2];
        const bool done = __all_sync(~0u, try_block<bfloat16>(s, rows.m, p.scale, sum));
        sm90::barrier_arrive_if(barrier(L::k_empty + place.index()),
                                done && threadIdx.x % 32 == 0);
        /* Not in the branches: a warp may be alone in taking the second, and the four of a
         * warpgroup must wait at one place. The arrival keeps this below the exponentials. */
        sm90::products_wait<0>();
        sm90::pin(s);
        sm90::pin(o);
        if (__builtin_expect(done, 1)) {
            rows.l[0] += sum[0];
            rows.l[1] += sum[1];
        } else {
            warp_scores<width, bfloat16>(s, q, shared + L::k_at + place.index() * L::kv_bytes);
            limits(limit, t, row, index);
            block(s, rows, o, p.scale, limit);
            leave_k();
        }
    }

    /* Blocks `blocks` - 1 .. 0. */
    __device__ __forceinline__ void visit(float (&o)[width / 2], row_pair &rows, const tile &t,
                                          int row, int group, const uint32_t (&entry)[2],
                                          uint32_t q, int blocks) {
        float s[scores];
        uint32_t probabilities[scores / 2];
        /* the first row of the warpgroup sees all of the blocks below this one */
        const int first = t.first + group * WARPGROUP_ROWS;
        const int whole = uniform((p.causal ? min(t.keys, first + 1) : t.keys) / keys);
        kept_rows<width> kept;
        load_rows<width>(kept, p.state, entry);
        wait_k();
        wait_turn(group);
        issue_scores(s, q);
        pass_turn(group);
        sm90::products_wait<0>();
        sm90::pin(s);
        begin_rows<width>(o, rows, kept, t.zero_keys);
        soften(s, o, rows, t, row, q, blocks - 1, whole, true);
        place.advance();
        pack_scores(probabilities, s);
        for (int index = blocks - 2; index >= 0; index--) {
            wait_k();
            wait_turn(group);
            issue_scores(s, q);
            wait_v();
            issue_values(o, probabilities);
            pass_turn(group);
            sm90::products_wait<1>();
            sm90::pin(s);
            soften(s, o, rows, t, row, q, index, whole, false);
            leave_v();
            place.advance();
            pack_scores(probabilities, s);
        }
        wait_v();
        issue_values(o, probabilities);
        sm90::products_wait<0>();
        sm90::pin(o);
        leave_v();
    }

    __device__ __forceinline__ void finish(float (&o)[width / 2], row_pair &rows, const tile &t,
                                           const uint32_t (&entry)[2], int row) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float l = rows.l[r];
            l += __shfl_xor_sync(~0u, l, 1);
            l += __shfl_xor_sync(~0u, l, 2);
            const bool exists = row + 8 * r < t.rows;
            const bool final = exists && (entry[r] & ROW_FINAL);
            if (exists && !final)
                keep_row<width>(o, r, rows.m[r], l,
                                p.state +
                                    static_cast<int64_t>(entry[r] & ROW_PLACE) * L::state_stride);
            const int64_t n = t.row + static_cast<int64_t>(row + 8 * r) * t.step;
            const int64_t token = static_cast<int64_t>(t.batch) * p.rows + n;
            char *out = static_cast<char *>(p.out) + (token * p.heads + t.head) * p.width * 2;
            store_row<width, bfloat16>(o, r, 1.0f / l, final, out, p.width);
            if (final && threadIdx.x % 4 == 0)
                p.lse[(static_cast<int64_t>(t.batch) * p.heads + t.head) * p.rows + n] =
                    0.6931471805599453f * (rows.m[r] + log2f(l));
        }
    }

    __device__ __forceinline__ void run() {
        const int group = uniform(threadIdx.x / 128);
        const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4; /* of the tile */
        if (group == S::warpgroups - 1) pass_turn(group);
        for (;;) {
            sm90::barrier_wait(barrier(L::tile_full + tile_place.index()), tile_place.parity());
            const tile &t = tiles[tile_place.index()];
            if (uniform(t.level) < 0) break;
            const int own = uniform(min(t.rows - group * WARPGROUP_ROWS, +WARPGROUP_ROWS));
            int all = t.keys, mine = own > 0 ? t.keys : 0;
            if (p.causal) {
                all = min(all, t.first + min(t.rows, S::warpgroups * WARPGROUP_ROWS));
                mine = min(mine, t.first + group * WARPGROUP_ROWS + own);
            }
            all = uniform((all + keys - 1) / keys);
            mine = uniform((max(mine, 0) + keys - 1) / keys);
            uint32_t entry[2];
            float o[width / 2];
            row_pair rows;
            if (own > 0) {
                const uint32_t *table = tables + tile_place.index() * L::tile_rows;
#pragma unroll
                for (int r = 0; r < 2; r++)
                    entry[r] = row + 8 * r < t.rows ? table[row + 8 * r] : 0;
            }
            for (int skip = all - mine; skip > 0; skip--) {
                wait_turn(group);
                pass_turn(group);
                wait_k();
                leave_k();
                place.advance();
                wait_v();
                leave_v();
            }
            if (own > 0) {
                const int buffer = group * S::q_buffers + q_place.index();
                sm90::barrier_wait(barrier(L::q_full + buffer), q_place.parity());
                visit(o, rows, t, row, group, entry, shared + L::q_at + buffer * L::q_bytes, mine);
                leave(L::q_empty + buffer);
                q_place.advance();
                finish(o, rows, t, entry, row);
            }
            sm90::barrier_arrive(barrier(L::tile_empty + tile_place.index()));
            tile_place.advance();
        }
    }
};

} // namespace dilated_sm90

#endif
