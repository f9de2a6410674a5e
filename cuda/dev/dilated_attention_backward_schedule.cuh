/* The scheduling warp of the backward kernel. */
#ifndef LNET_DILATED_ATTENTION_BACKWARD_SCHEDULE_CUH
#define LNET_DILATED_ATTENTION_BACKWARD_SCHEDULE_CUH

#include "dilated_attention_backward.cuh"
#include "dilated_attention_rows.cuh"
#include "dilated_attention_sync.cuh"
#include "sm90.cuh"

namespace dilated {

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

} // namespace dilated

#endif
