/* The warps that round a group's finished sums into the gradients and leave zeros for the group that
 * has the place next. Sums pass through shared memory by bulk copies: two warps could not keep
 * enough loads in flight otherwise. */
#ifndef LNET_DILATED_ATTENTION_SM90_BACKWARD_ROUND_CUH
#define LNET_DILATED_ATTENTION_SM90_BACKWARD_ROUND_CUH

#include "cuda/dilated_attention_sm90_backward.cuh"
#include "cuda/dilated_attention_sm90_rows.cuh"
#include "cuda/dilated_attention_sm90_softmax.cuh"
#include "cuda/dilated_attention_sm90_sync.cuh"
#include "cuda/sm90.cuh"

namespace dilated_sm90 {

/* Sums hold 16 columns as 4 x (pair, pair 8 columns on): a thread of a product has such 4. They
 * become float32 columns in order, or 16-bit ones. */
template <bool bfloat16, bool float32>
__device__ __forceinline__ void round_columns(const float4 (&x)[4], float scale, char *at,
                                              bool both) {
    if constexpr (float32) {
        float4 *to = reinterpret_cast<float4 *>(at);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float4 a = x[2 * i], b = x[2 * i + 1];
            to[i] = make_float4(a.x * scale, a.y * scale, b.x * scale, b.y * scale);
            if (both) to[2 + i] = make_float4(a.z * scale, a.w * scale, b.z * scale, b.w * scale);
        }
        return;
    }
    uint4 *to = reinterpret_cast<uint4 *>(at);
    uint32_t low[4], high[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        low[i] = pack<bfloat16>(x[i].x * scale, x[i].y * scale);
        high[i] = pack<bfloat16>(x[i].z * scale, x[i].w * scale);
    }
    to[0] = make_uint4(low[0], low[1], low[2], low[3]);
    if (both) to[1] = make_uint4(high[0], high[1], high[2], high[3]);
}

/* Whether a row of a k/v head, or of a query head where `group` is 1, takes part on any of the
 * first `levels` levels. */
__device__ __forceinline__ bool covered(const problem &p, int batch, int head, int group, int row,
                                        int levels) {
    const sequence q = sequence_at(p, batch, p.documents ? document_at(p, row) : 0);
    bool any = false;
    for (int h = head * group; h < (head + 1) * group && row < q.end; h++)
        for (int i = 0; i < levels; i++)
            any = any || takes_part(p.levels[i], head_offset(p, h, p.levels[i]), q, row);
    return any;
}

/* ROUNDING_ROWS rows of sums, or as many as there are, of one head of dQ, dK or dV. */
struct rounding {
    float *sums;
    char *to; /* of the first row */
    int64_t pitch;
    float scale;
    int rows;
    int batch, head, group, first; /* for `covered` */
    bool written;                  /* rows of the densest level are, by its tiles */
};

/* Of each row whether it has sums, and whether it is to be written. */
struct row_marks {
    uint32_t sums[ROUNDING_ROWS / 32], write[ROUNDING_ROWS / 32];
};

/* False where the group has no such rows or head. `bytes` of an element of the gradients. */
template <int width, int bytes>
__device__ __forceinline__ bool rounding_at(const backward &p, int index, int group, rounding &r) {
    const int ratio = p.heads / p.kv_heads, kv_heads = p.group_heads / ratio;
    const int spacing = p.sums_spacing.value, block_sums = (p.block_rows + spacing - 1) / spacing;
    const int head_chunks = (block_sums + ROUNDING_ROWS - 1) / ROUNDING_ROWS;
    const int block = index / (p.group_chunks / p.blocks);
    index -= block * (p.group_chunks / p.blocks);
    const group_place g = group_at(p, group);
    const int begin = block * block_sums + index % head_chunks * ROUNDING_ROWS;
    int heads = p.heads, head = index / head_chunks;
    int64_t part = 0;
    r.to = static_cast<char *>(p.dq);
    r.scale = p.gradient_scale;
    r.group = 1;
    r.written = false;
    if (head >= p.group_heads) {
        head -= p.group_heads;
        heads = p.kv_heads;
        r.group = ratio;
        r.written = p.direct;
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
             (static_cast<int64_t>(head) * p.sums_rows + begin) * width;
    r.head = head + g.head / r.group;
    r.batch = g.batch;
    const int offset = spacing > 1 ? head_offset(p, r.head, p.levels[0]) : 0;
    const int sums = (g.rows - offset + spacing - 1) / spacing;
    r.first = g.begin + begin * spacing + offset;
    r.rows = min(min(+ROUNDING_ROWS, sums - begin), (block + 1) * block_sums - begin);
    r.pitch = static_cast<int64_t>(heads) * p.width * bytes;
    r.to += (static_cast<int64_t>(g.batch) * p.rows + r.first) * r.pitch +
            static_cast<int64_t>(r.head) * p.width * bytes;
    r.pitch *= spacing;
    return r.head < heads && r.rows > 0;
}

/* Likewise as `wait_counter`, for those who wait long and are in no hurry. */
__device__ __forceinline__ void wait_counter_long(const uint32_t *counter, uint32_t target) {
    while (!counter_reached(counter, target)) __nanosleep(1000);
}

template <int width, bool bfloat16, bool float32> struct rounder {
    using L = gradient_layout<width>;
    enum { bytes = gradient_bytes<float32> };
    enum { chunk_rows = L::round_rows, row_bytes = width * 4, pieces = width / 16 };

    const backward &p;
    char *buffers, *zeros;
    uint32_t barriers; /* this warp's first */
    ring_place<L::round_buffers> loaded = {0}, rounded = {0};

    __device__ __forceinline__ row_marks mark(const rounding &r) const {
        const int spacing = p.sums_spacing.value;
        row_marks m;
#pragma unroll
        for (int k = 0; k < ROUNDING_ROWS / 32; k++) {
            const int place = k * 32 + threadIdx.x % 32, row = r.first + place * spacing;
            bool sums = place < r.rows, write = sums;
            if (sums && (p.uncovered || r.written)) {
                const int levels = p.level_count - r.written;
                sums = covered(p, r.batch, r.head, r.group, row, levels);
                if (p.uncovered && r.group == 1) write = sums; /* the others: zeros */
                if (r.written) {
                    const sequence q =
                        sequence_at(p, r.batch, p.documents ? document_at(p, row) : 0);
                    const level &l = p.levels[levels];
                    write = write && (row >= q.end ||
                                      !takes_part(l, head_offset(p, r.head, l), q, row));
                    sums = sums && write;
                }
            }
            m.sums[k] = __ballot_sync(~0u, sums);
            m.write[k] = __ballot_sync(~0u, write);
        }
        return m;
    }

    /* The bits of the chunk of rows that begins at `begin`. */
    __device__ __forceinline__ static uint32_t bits(const uint32_t (&x)[ROUNDING_ROWS / 32],
                                                    int begin) {
        uint32_t word = x[0];
#pragma unroll
        for (int k = 1; k < ROUNDING_ROWS / 32; k++) word = begin / 32 == k ? x[k] : word;
        return word >> begin % 32 & ((1u << chunk_rows) - 1);
    }

    /* A copy for all rows where all have sums, else one for each that has. */
    __device__ __forceinline__ void load(const rounding &r, uint32_t rows, int begin) {
        const int lane = threadIdx.x % 32, buffer = loaded.index();
        const uint32_t barrier = barriers + buffer * 8;
        const uint32_t to = sm90::shared_address(buffers + buffer * L::round_bytes);
        const float *from = r.sums + begin * width;
        if (lane == 0) sm90::barrier_arrive_expect(barrier, __popc(rows) * row_bytes);
        __syncwarp();
        if (rows == (1u << chunk_rows) - 1) {
            if (lane == 0) sm90::load_bytes(to, from, L::round_bytes, barrier);
        } else if (rows >> lane & 1) {
            sm90::load_bytes(to + lane * row_bytes, from + lane * width, row_bytes, barrier);
        }
        loaded.advance();
    }

    __device__ __forceinline__ void round(const rounding &r, uint32_t rows, uint32_t write,
                                          int begin) {
        const int lane = threadIdx.x % 32, buffer = rounded.index();
        const char *from = buffers + buffer * L::round_bytes;
        sm90::barrier_wait(barriers + buffer * 8, rounded.parity());
        float *sums = r.sums + begin * width;
        if (rows == (1u << chunk_rows) - 1) {
            if (lane == 0) sm90::store_bytes(sums, sm90::shared_address(zeros), L::round_bytes);
        } else if (rows >> lane & 1) {
            sm90::store_bytes(sums + lane * width, sm90::shared_address(zeros), row_bytes);
        }
        for (int i = lane; i < chunk_rows * pieces; i += 32) {
            const int row = i / pieces, column = i % pieces * 16;
            if (!(write >> row & 1) || column >= p.width) continue;
            float4 x[4];
#pragma unroll
            for (int k = 0; k < 4; k++)
                x[k] = rows >> row & 1 ? reinterpret_cast<const float4 *>(from + i * 64)[k]
                                       : make_float4(0, 0, 0, 0);
            round_columns<bfloat16, float32>(x, r.scale,
                                             r.to + (begin + row) * r.pitch + column * bytes,
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
            index -= group * p.group_chunks;
            const int block = index / (p.group_chunks / p.blocks);
            const int dense = p.levels[p.level_count - 1].chunks - block * p.block_chunks;
            const uint32_t turns = group / p.slots + 1u;
            if (threadIdx.x % 32 == 0) {
                wait_counter_long(p.counters + sparse_counter(p, slot), turns * p.sparse_items);
                wait_counter_long(p.counters + dense_counter(p, slot, block),
                                  turns * p.group_heads * min(dense, p.block_chunks));
            }
            __syncwarp();
            sm90::fence_async();
            __syncwarp();
            rounding r;
            if (rounding_at<width, bytes>(p, index, group, r)) {
                const row_marks m = mark(r);
                int ahead = 0;
                for (int begin = 0; begin < r.rows; begin += chunk_rows) {
                    for (; ahead < r.rows && ahead < begin + L::round_buffers * chunk_rows;
                         ahead += chunk_rows)
                        load(r, bits(m.sums, ahead), ahead);
                    round(r, bits(m.sums, begin), bits(m.write, begin), begin);
                }
            }
            sm90::sent_wait();
            __syncwarp();
            if (threadIdx.x % 32 == 0) raise_counter(p.counters + rounded_counter(p, slot), 1);
        }
    }
};

} // namespace dilated_sm90

#endif
