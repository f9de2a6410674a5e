/* The warps that round a group's finished sums into the gradients and leave zeros for the group that
 * has the place next. Sums pass through shared memory by bulk copies: two warps could not keep
 * enough loads in flight otherwise. */
#ifndef LNET_DILATED_ATTENTION_BACKWARD_ROUND_CUH
#define LNET_DILATED_ATTENTION_BACKWARD_ROUND_CUH

#include "dilated_attention_backward.cuh"
#include "dilated_attention_rows.cuh"
#include "dilated_attention_softmax.cuh"
#include "dilated_attention_sync.cuh"
#include "sm90.cuh"

namespace dilated {

/* Sums hold 16 columns as 4 x (pair, pair 8 columns on): a thread of a product has such 4. */
template <bool bfloat16>
__device__ __forceinline__ void round_columns(const float4 (&x)[4], float scale, uint4 *to,
                                              bool both) {
    uint32_t low[4], high[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        low[i] = pack<bfloat16>(x[i].x * scale, x[i].y * scale);
        high[i] = pack<bfloat16>(x[i].z * scale, x[i].w * scale);
    }
    to[0] = make_uint4(low[0], low[1], low[2], low[3]);
    if (both) to[1] = make_uint4(high[0], high[1], high[2], high[3]);
}

/* Whether a row of a k/v head, or of a query head where `group` is 1, takes part on any level. */
__device__ __forceinline__ bool covered(const problem &p, int batch, int head, int group, int row) {
    const sequence q = sequence_at(p, batch, p.documents ? document_at(p, row) : 0);
    bool any = false;
    for (int h = head * group; h < (head + 1) * group && row < q.end; h++)
        for (int i = 0; i < p.level_count; i++)
            any = any || takes_part(p.levels[i], head_offset(p, h, p.levels[i]), q, row);
    return any;
}

/* ROUNDING_ROWS rows, or as many as there are, of one head of dQ, dK or dV. */
struct rounding {
    float *sums;
    char *to; /* of the first row */
    int64_t pitch;
    float scale;
    int rows;
    int batch, head, group, first; /* for `covered` */
};

/* False where the group has no such head. */
template <int width>
__device__ __forceinline__ bool rounding_at(const backward &p, int index, int group, rounding &r) {
    const int ratio = p.heads / p.kv_heads, kv_heads = p.group_heads / ratio;
    const int head_chunks = (p.group_rows + ROUNDING_ROWS - 1) / ROUNDING_ROWS;
    const group_place g = group_at(p, group);
    const int begin = index % head_chunks * ROUNDING_ROWS;
    int heads = p.heads, head = index / head_chunks;
    int64_t part = 0;
    r.to = static_cast<char *>(p.dq);
    r.scale = p.gradient_scale;
    r.group = 1;
    if (head >= p.group_heads) {
        head -= p.group_heads;
        heads = p.kv_heads;
        r.group = ratio;
        part = p.dk_at;
        r.to = static_cast<char *>(p.dk);
        if (head >= kv_heads) {
            head -= kv_heads;
            part = p.dv_at;
            r.to = static_cast<char *>(p.dv);
            r.scale = 1;
        }
    }
    r.sums = p.sums + group % p.slots * p.slot_floats + part +
             (static_cast<int64_t>(head) * p.group_rows + begin) * width;
    r.pitch = static_cast<int64_t>(heads) * p.width * 2;
    r.head = head + g.head / r.group;
    r.batch = g.batch;
    r.first = g.begin + begin;
    r.rows = min(+ROUNDING_ROWS, g.rows - begin);
    r.to += (static_cast<int64_t>(g.batch) * p.rows + r.first) * r.pitch +
            static_cast<int64_t>(r.head) * p.width * 2;
    return r.head < heads;
}

template <int width, bool bfloat16> struct rounder {
    using L = gradient_layout<width>;
    enum { chunk_rows = L::round_rows, row_bytes = width * 4, pieces = width / 16 };

    const backward &p;
    char *buffers, *zeros;
    uint32_t barriers; /* this warp's first */
    ring_place<L::round_buffers> loaded = {0}, rounded = {0};

    /* Which of a chunk's rows have sums: bit i for row `begin` + i. */
    __device__ __forceinline__ uint32_t rows_of(const rounding &r, int begin) const {
        const int lane = threadIdx.x % 32, row = begin + lane;
        bool mine = lane < chunk_rows && row < r.rows;
        if (mine && p.uncovered) mine = covered(p, r.batch, r.head, r.group, r.first + row);
        return __ballot_sync(~0u, mine);
    }

    /* A copy for all rows where all have sums, else one for each that has. */
    __device__ __forceinline__ void load(const rounding &r, int begin) {
        const int lane = threadIdx.x % 32, buffer = loaded.index();
        const uint32_t rows = rows_of(r, begin), barrier = barriers + buffer * 8;
        const uint32_t to = sm90::shared_address(buffers + buffer * L::round_bytes);
        const float *from = r.sums + static_cast<int64_t>(begin) * width;
        if (lane == 0) sm90::barrier_arrive_expect(barrier, __popc(rows) * row_bytes);
        __syncwarp();
        if (rows == (1u << chunk_rows) - 1) {
            if (lane == 0) sm90::load_bytes(to, from, L::round_bytes, barrier);
        } else if (rows >> lane & 1) {
            sm90::load_bytes(to + lane * row_bytes, from + lane * width, row_bytes, barrier);
        }
        loaded.advance();
    }

    __device__ __forceinline__ void round(const rounding &r, int begin) {
        const int lane = threadIdx.x % 32, buffer = rounded.index();
        const uint32_t rows = rows_of(r, begin);
        const char *from = buffers + buffer * L::round_bytes;
        sm90::barrier_wait(barriers + buffer * 8, rounded.parity());
        float *sums = r.sums + static_cast<int64_t>(begin) * width;
        if (rows == (1u << chunk_rows) - 1) {
            if (lane == 0) sm90::store_bytes(sums, sm90::shared_address(zeros), L::round_bytes);
        } else if (rows >> lane & 1) {
            sm90::store_bytes(sums + lane * width, sm90::shared_address(zeros), row_bytes);
        }
        for (int i = lane; i < chunk_rows * pieces; i += 32) {
            const int row = i / pieces, column = i % pieces * 16;
            if (begin + row >= r.rows || column >= p.width) continue;
            float4 x[4];
#pragma unroll
            for (int k = 0; k < 4; k++)
                x[k] = rows >> row & 1
                           ? reinterpret_cast<const float4 *>(from + i * 64)[k]
                           : make_float4(0, 0, 0, 0);
            round_columns<bfloat16>(
                x, r.scale,
                reinterpret_cast<uint4 *>(r.to + (begin + row) * r.pitch + column * 2),
                column + 8 < p.width);
        }
        __syncwarp();
        rounded.advance();
    }

    /* Until every group is rounded: takes parts of one, and waits for the tiles that add to it. */
    __device__ __forceinline__ void run() {
        for (;;) {
            int index = 0;
            if (threadIdx.x % 32 == 0) index = atomicAdd(&p.counters[1], 1);
            index = __shfl_sync(~0u, index, 0);
            const int group = index / p.group_chunks, slot = group % p.slots;
            if (group >= p.groups) return;
            wait_counter(p.counters + 2 + slot,
                         (group / p.slots + 1u) * p.group_items * GRADIENT_WARPS);
            sm90::fence_async();
            __syncwarp();
            rounding r;
            if (rounding_at<width>(p, index - group * p.group_chunks, group, r)) {
                int ahead = 0;
                for (int begin = 0; begin < r.rows; begin += chunk_rows) {
                    for (; ahead < r.rows && ahead < begin + L::round_buffers * chunk_rows;
                         ahead += chunk_rows)
                        load(r, ahead);
                    round(r, begin);
                }
            }
            sm90::stores_wait();
            __syncwarp();
            if (threadIdx.x % 32 == 0) raise_counter(p.counters + 2 + p.slots + slot, 1);
        }
    }
};

} // namespace dilated

#endif
