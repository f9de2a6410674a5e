/* The scheduling warp of the backward kernel, and the warps that round finished groups. */
#ifndef LNET_DILATED_ATTENTION_BACKWARD_SCHEDULE_CUH
#define LNET_DILATED_ATTENTION_BACKWARD_SCHEDULE_CUH

#include "dilated_attention_backward.cuh"
#include "dilated_attention_rows.cuh"
#include "dilated_attention_softmax.cuh"
#include "dilated_attention_sync.cuh"
#include "sm90.cuh"

namespace dilated {

/* Which rows and heads a group is. */
struct group_place {
    int batch, head, begin, rows;
};

__device__ __forceinline__ group_place group_at(const problem &p, int group) {
    const int rest = group / p.head_groups;
    group_place g;
    g.head = group % p.head_groups * p.group_heads;
    g.batch = rest / p.row_groups;
    g.begin = rest % p.row_groups * p.group_rows;
    g.rows = min(p.group_rows, p.rows - g.begin);
    return g;
}

/* Level after level, head after head; neighbours share queries. */
__device__ __forceinline__ item key_item_at(const backward &p, int index) {
    item x;
    x.group = index / p.group_items;
    index -= x.group * p.group_items;
    x.level = 0;
    while (index >= p.levels[x.level].chunks * p.group_heads)
        index -= p.levels[x.level++].chunks * p.group_heads;
    const level &l = p.levels[x.level];
    const group_place g = group_at(p, x.group);
    const int chunk = index % l.chunks;
    x.head_of_group = index / l.chunks;
    x.head = g.head + x.head_of_group;
    x.batch = g.batch;
    x.group_begin = g.begin;
    x.begin = g.begin + static_cast<int>(min(static_cast<int64_t>(chunk) * l.chunk,
                                             static_cast<int64_t>(g.rows)));
    x.end = x.begin + min(l.chunk, g.begin + g.rows - x.begin);
    if (x.head >= p.heads) x.end = x.begin;
    return x;
}

/* One warp, until no item is left. `barriers` is the shared address of the first barrier. */
template <int width>
__device__ __forceinline__ void schedule_keys(const backward &p, key_tile *tiles,
                                              uint32_t barriers) {
    using L = gradient_layout<width>;
    const int lane = threadIdx.x % 32, ratio = p.heads / p.kv_heads;
    uint32_t *done = p.counters + 2;
    const uint32_t *rounded = done + p.slots;
    ring_place<L::ring> place = {0};
    auto wait_place = [&]() {
        sm90::barrier_wait(barriers + (L::tile_empty + place.index()) * 8, place.parity_before());
    };
    auto push = [&](const key_tile &t) {
        wait_place();
        if (lane == 0) tiles[place.index()] = t;
        sm90::barrier_arrive(barriers + (L::tile_full + place.index()) * 8);
        place.advance();
    };
    for (;;) {
        wait_place();
        int index = 0;
        if (lane == 0) index = atomicAdd(&p.counters[0], 1);
        index = __shfl_sync(~0u, index, 0);
        if (index >= p.item_count) break;
        const item x = key_item_at(p, index);
        const level &l = p.levels[x.level];
        const int step = l.step.value, slot = x.group % p.slots, turn = x.group / p.slots;
        if (lane == 0 && turn > 0)
            wait_counter(rounded + slot, static_cast<uint32_t>(turn) * p.group_chunks);
        __syncwarp();
        int remaining = 0;
        for_each_run(p, x, [&](const run &r, const sequence &) {
            remaining += (r.count + KEY_TILE - 1) / KEY_TILE;
        });
        if (remaining == 0 && lane == 0) raise_counter(done + slot, GRADIENT_WARPS);
        for_each_run(p, x, [&](const run &r, const sequence &) {
            const uint32_t key = static_cast<uint32_t>(r.key_row) + l.pad;
            const int64_t row = r.key_row - x.group_begin;
            for (int at = 0; at < r.count; at += KEY_TILE) {
                key_tile t;
                t.level = x.level;
                t.rows = min(+KEY_TILE, r.count - at);
                t.first = r.first + at;
                t.keys = r.keys;
                t.begin = p.causal ? t.first : 0;
                t.step = step;
                t.counter = --remaining == 0 ? slot : -1;
                t.batch = x.batch;
                t.head = x.head;
                t.kv_head = x.head / ratio;
                t.key_j = quotient(key, l.step);
                t.phase = key - t.key_j * step;
                t.stats_at = (static_cast<int64_t>(x.batch) * p.heads + x.head) * p.rows +
                             r.key_row;
                t.dq_at = slot * p.slot_floats +
                          (static_cast<int64_t>(x.head_of_group) * p.group_rows + row) * width;
                t.dkv_at =
                    slot * p.slot_floats +
                    (static_cast<int64_t>(x.head_of_group / ratio) * p.group_rows + row) * width;
                push(t);
            }
        });
    }
    key_tile end = {};
    end.level = -1;
    push(end);
}

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

/* Rounds `rows` rows of one head's sums into (.., heads, D), and leaves zeros. One warp. */
template <int width, bool bfloat16>
__device__ __forceinline__ void round_rows(float *sums, int rows, float scale, char *to,
                                           int64_t pitch, int columns) {
    constexpr int pieces = width / 16, unroll = 1;
    const int lane = threadIdx.x % 32, count = rows * pieces;
    for (int from = 0; from < count; from += 32 * unroll) {
        float4 x[unroll][4];
#pragma unroll
        for (int u = 0; u < unroll; u++) {
            const int i = from + u * 32 + lane;
            const float4 *at = reinterpret_cast<const float4 *>(sums + i * 16);
#pragma unroll
            for (int k = 0; k < 4; k++)
                if (i < count) x[u][k] = __ldcg(at + k);
        }
#pragma unroll
        for (int u = 0; u < unroll; u++) {
            const int i = from + u * 32 + lane;
            if (i >= count) continue;
            float4 *at = reinterpret_cast<float4 *>(sums + i * 16);
#pragma unroll
            for (int k = 0; k < 4; k++) __stcg(at + k, make_float4(0, 0, 0, 0));
            const int column = i % pieces * 16;
            if (column < columns)
                round_columns<bfloat16>(
                    x[u], scale, reinterpret_cast<uint4 *>(to + i / pieces * pitch + column * 2),
                    column + 8 < columns);
        }
    }
}

/* One warp, until every group is rounded: takes chunks of ROUNDING_ROWS rows of dQ, dK or dV of a
 * head, and waits until the tiles that add to them are done. */
template <int width, bool bfloat16>
__device__ __forceinline__ void round_groups(const backward &p) {
    const uint32_t *done = p.counters + 2;
    const int ratio = p.heads / p.kv_heads, kv_heads = p.group_heads / ratio;
    const int head_chunks = (p.group_rows + ROUNDING_ROWS - 1) / ROUNDING_ROWS;
    for (;;) {
        int index = 0;
        if (threadIdx.x % 32 == 0) index = atomicAdd(&p.counters[1], 1);
        index = __shfl_sync(~0u, index, 0);
        const int group = index / p.group_chunks, slot = group % p.slots;
        if (group >= p.groups) return;
        index -= group * p.group_chunks;
        wait_counter(done + slot,
                     (group / p.slots + 1u) * p.group_items * GRADIENT_WARPS);
        __syncwarp();
        const group_place g = group_at(p, group);
        const int begin = index % head_chunks * ROUNDING_ROWS;
        const int rows = min(+ROUNDING_ROWS, g.rows - begin);
        int heads = p.heads, head = index / head_chunks;
        int64_t part = 0;
        char *to = static_cast<char *>(p.dq);
        float scale = p.gradient_scale;
        if (head >= p.group_heads) {
            head -= p.group_heads;
            heads = p.kv_heads;
            part = p.dk_at;
            to = static_cast<char *>(p.dk);
            if (head >= kv_heads) {
                head -= kv_heads;
                part = p.dv_at;
                to = static_cast<char *>(p.dv);
                scale = 1;
            }
        }
        float *sums = p.sums + slot * p.slot_floats + part +
                      (static_cast<int64_t>(head) * p.group_rows + begin) * width;
        const int64_t pitch = static_cast<int64_t>(heads) * p.width * 2;
        head += heads == p.heads ? g.head : g.head / ratio;
        to += (static_cast<int64_t>(g.batch) * p.rows + g.begin + begin) * pitch +
              static_cast<int64_t>(head) * p.width * 2;
        if (head < heads)
            round_rows<width, bfloat16>(sums, rows, scale, to, pitch, p.width);
        __syncwarp();
        if (threadIdx.x % 32 == 0) raise_counter(p.counters + 2 + p.slots + slot, 1);
    }
}

} // namespace dilated

#endif
