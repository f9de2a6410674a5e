/* The scheduling warp of the backward kernel. */
#ifndef LNET_DILATED_ATTENTION_SM90_BACKWARD_SCHEDULE_CUH
#define LNET_DILATED_ATTENTION_SM90_BACKWARD_SCHEDULE_CUH

#include "cuda/dilated_attention_sm90_backward.cuh"
#include "cuda/dilated_attention_sm90_rows.cuh"
#include "cuda/dilated_attention_sm90_sync.cuh"
#include "cuda/sm90.cuh"

namespace dilated_sm90 {

/* A step is the sparser levels of a group, then the densest of the group before: what those left
 * for its keys is there by then. False where there is no such item. */
__device__ __forceinline__ bool key_item_at(const backward &p, int index, item &x) {
    x.group = index / p.group_items;
    index -= x.group * p.group_items;
    x.level = 0;
    while (index >= p.levels[x.level].chunks * p.group_heads)
        index -= p.levels[x.level++].chunks * p.group_heads;
    if (x.level == p.level_count - 1) x.group--;
    if (x.group < 0 || x.group >= p.groups) return false;
    const level &l = p.levels[x.level];
    const group_place g = group_at(p, x.group);
    if (p.segment_chunks > 0) {
        const int alike = p.group_heads * (l.chunks / p.segment_chunks);
        const int part = index / alike, place = index % alike;
        x.chunk = place / p.group_heads * p.segment_chunks + part;
        x.head_of_group = place % p.group_heads;
    } else {
        x.chunk = index % l.chunks;
        x.head_of_group = index / l.chunks;
    }
    x.head = g.head + x.head_of_group;
    x.batch = g.batch;
    x.group_begin = g.begin;
    x.begin = g.begin + static_cast<int>(min(static_cast<int64_t>(x.chunk) * l.chunk,
                                             static_cast<int64_t>(g.rows)));
    x.end = x.begin + min(l.chunk, g.begin + g.rows - x.begin);
    if (x.head >= p.heads) x.end = x.begin;
    return true;
}

/* One warp: which keys of a tile of the densest level other levels have left sums for. */
__device__ __forceinline__ void find_known(const backward &p, const item &x, const sequence &q,
                                           key_tile &t) {
    for (int k = 0; k < KEY_TILE / 32; k++) {
        const int row = t.row + (t.first + k * 32 + static_cast<int>(threadIdx.x % 32)) * t.step;
        bool known = false;
        for (int i = 0; i < x.level; i++)
            known = known ||
                    takes_part(p.levels[i], head_offset(p, x.head, p.levels[i]), q, row);
        t.known[k] = __ballot_sync(~0u, known);
    }
}

/* One warp, until no item is left. `barriers` is the shared address of the first barrier. */
template <int width>
__device__ __forceinline__ void schedule_keys(const backward &p, key_tile *tiles,
                                              uint32_t barriers) {
    using L = gradient_layout<width>;
    const int lane = threadIdx.x % 32, ratio = p.heads / p.kv_heads;
    ring_place<L::ring> ring = {0};
    auto wait_ring = [&]() {
        sm90::barrier_wait(barriers + (L::tile_empty + ring.index()) * 8, ring.parity_before());
    };
    auto push = [&](const key_tile &t) {
        wait_ring();
        if (lane == 0) tiles[ring.index()] = t;
        sm90::barrier_arrive(barriers + (L::tile_full + ring.index()) * 8);
        ring.advance();
    };
    for (;;) {
        wait_ring();
        int index = 0;
        if (lane == 0) index = atomicAdd(&p.counters[0], 1);
        index = __shfl_sync(~0u, index, 0);
        if (index >= p.item_count) break;
        item x;
        if (!key_item_at(p, index, x)) continue;
        const level &l = p.levels[x.level];
        const int step = l.step.value, slot = x.group % p.slots, turn = x.group / p.slots;
        if (lane == 0 && turn > 0)
            wait_counter(p.counters + rounded_counter(p, slot),
                         static_cast<uint32_t>(turn) * p.group_chunks);
        __syncwarp();
        const int counter = x.level < p.level_count - 1
                                ? sparse_counter(p, slot)
                                : dense_counter(p, slot, x.chunk / p.block_chunks);
        int remaining = 0;
        for_each_run(p, x, [&](const run &r, const sequence &) {
            remaining += (r.count + KEY_TILE - 1) / KEY_TILE;
        });
        if (remaining == 0 && lane == 0) raise_counter(p.counters + counter, 1);
        for_each_run(p, x, [&](const run &r, const sequence &q) {
            const uint32_t key = static_cast<uint32_t>(r.key_row) + l.pad;
            const int row = r.key_row - x.group_begin, place = quotient(row, p.sums_spacing);
            for (int at = 0; at < r.count; at += KEY_TILE) {
                key_tile t;
                t.level = x.level;
                t.rows = min(+KEY_TILE, r.count - at);
                t.first = r.first + at;
                t.keys = r.keys;
                /* Neighbours begin apart: they would all add to the same dQ otherwise. */
                t.start = p.causal ? t.first : t.first / L::queries * L::queries;
                t.blocks = (t.keys - (p.causal ? t.first : 0) + L::queries - 1) / L::queries;
                t.step = step;
                t.counter = --remaining == 0 ? counter : -1;
                t.batch = x.batch;
                t.head = x.head;
                t.kv_head = x.head / ratio;
                t.key_j = quotient(key, l.step);
                t.phase = key - t.key_j * step;
                t.stats_at = (static_cast<int64_t>(x.batch) * p.heads + x.head) * p.stats_rows +
                             quotient(r.key_row, p.sums_spacing);
                t.dq_at = slot * p.slot_floats +
                          (static_cast<int64_t>(x.head_of_group) * p.sums_rows + place) * width;
                t.dkv_at =
                    slot * p.slot_floats +
                    (static_cast<int64_t>(x.head_of_group / ratio) * p.group_rows + row) * width;
                t.slot = slot;
                t.sums_head = x.head_of_group;
                t.sums_step = l.sums_step.value;
                t.sums_j = quotient(place + l.sums_pad, l.sums_step);
                t.sums_phase = place + l.sums_pad - t.sums_j * t.sums_step;
                t.row = r.key_row;
                t.direct = p.direct && x.level == p.level_count - 1;
                t.wait = -1;
                if (t.direct) {
                    const int sparse = sparse_counter(p, slot);
                    t.target = (turn + 1u) * p.sparse_items;
                    if (!counter_reached(p.counters + sparse, t.target)) t.wait = sparse;
                    find_known(p, x, q, t);
                }
                push(t);
            }
        });
    }
    key_tile end = {};
    end.level = -1;
    push(end);
}

} // namespace dilated_sm90

#endif
