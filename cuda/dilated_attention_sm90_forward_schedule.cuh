/* The scheduling warp: takes items, waits for what they need, and describes their tiles and rows to
 * the loading warp and the consumers. */
#ifndef LNET_DILATED_ATTENTION_SM90_FORWARD_SCHEDULE_CUH
#define LNET_DILATED_ATTENTION_SM90_FORWARD_SCHEDULE_CUH

#include "cuda/dilated_attention_sm90_rows.cuh"
#include "cuda/dilated_attention_sm90_sync.cuh"
#include "cuda/sm90.cuh"

namespace dilated_sm90 {

/* False where the step has no such item. Of several levels, items that share keys come one after
 * the other, and those that see most of them first. Of one level the longest of a group come first,
 * so that the last blocks of threads end together. */
__device__ __forceinline__ bool item_at(const forward &p, int index, item &x) {
    const int step = quotient(index, p.step_items);
    index -= step * p.step_items.value;
    x.level = 0;
    while (index >= p.levels[x.level].chunks * p.group_heads)
        index -= p.levels[x.level++].chunks * p.group_heads;
    x.group = step - x.level;
    if (x.group < 0 || x.group >= p.groups) return false;
    const level &l = p.levels[x.level];
    int piece, part; /* of the head, range of the piece counted from its end */
    if (p.level_count == 1) {
        const int place = quotient(index, l.pieces); /* part, then head */
        piece = index - place * l.pieces.value;
        part = place / p.group_heads;
        x.head_of_group = place - part * p.group_heads;
    } else {
        x.head_of_group = quotient(index, l.head_chunks);
        index -= x.head_of_group * l.chunks;
        piece = quotient(index, l.piece_chunks);
        part = index - piece * l.piece_chunks.value;
        piece = l.pieces.value - 1 - piece;
    }
    const int rest = quotient(x.group, p.group_heads_across);
    x.head = (x.group - rest * p.head_groups) * p.group_heads + x.head_of_group;
    x.batch = quotient(rest, p.group_rows_along);
    x.group_begin = (rest - x.batch * p.row_groups) * p.group_rows;
    const int64_t rows = min(p.group_rows, p.rows - x.group_begin);
    const int64_t begin = static_cast<int64_t>(piece) * l.piece;
    const int64_t end = begin + l.piece - static_cast<int64_t>(part) * l.chunk;
    x.begin = x.group_begin + static_cast<int>(min(max(begin, end - l.chunk), rows));
    x.end = x.group_begin + static_cast<int>(min(end, rows));
    if (x.head >= p.heads) x.end = x.begin;
    return true;
}

/* Waits until the items of this level are done for `groups` groups that had the slot. */
__device__ __forceinline__ void wait_level(const forward &p, int slot, int level, int groups) {
    wait_counter(p.counters + 2 + slot * p.level_count + level,
                 groups * p.levels[level].chunks * p.group_heads);
}

/* What the last level's items write nobody reads: that they have read is all that is waited for,
 * and what they have computed with they have read. */
__device__ __forceinline__ void raise_level(const forward &p, int counter, bool last_level) {
    if (last_level)
        raise_counter_relaxed(p.counters + 2 + counter, 1);
    else
        raise_counter(p.counters + 2 + counter, 1);
}

/* Flags of a row of one level that another level covers too. */
__device__ __forceinline__ uint32_t marked(uint32_t flags, int other, int own) {
    return other < own ? flags | ROW_KNOWN : flags & ~ROW_FINAL;
}

/* One warp: the table of a tile's rows. */
template <int tile_rows>
__device__ __forceinline__ void fill_table(const forward &p, const item &x, const sequence &q,
                                           const tile &t, int slot, uint32_t *table) {
    constexpr int each = tile_rows / 32;
    const int lane = threadIdx.x % 32, first = t.row + lane * t.step;
    uint32_t flags[each];
#pragma unroll
    for (int k = 0; k < each; k++) flags[k] = ROW_FINAL;
    for (int i = 0; i < p.level_count; i++) {
        if (i == x.level) continue;
        const level &l = p.levels[i];
        if (l.rate == 1) { /* covers all rows */
#pragma unroll
            for (int k = 0; k < each; k++) flags[k] = marked(flags[k], i, x.level);
            continue;
        }
        const uint32_t s = head_offset(p, x.head, l);
        const divisor &period = l.nested ? l.step : l.segment;
        uint32_t at = remainder(first - q.begin, period);
        const uint32_t advance = remainder(32 * t.step, period);
#pragma unroll
        for (int k = 0; k < each; k++) {
            if ((l.nested ? at : remainder(at, l.step)) == s)
                flags[k] = marked(flags[k], i, x.level);
            at += advance;
            if (at >= period.value) at -= period.value;
        }
    }
    const uint32_t place = (slot * p.group_heads + x.head_of_group) * p.slot_rows;
#pragma unroll
    for (int k = 0; k < each; k++)
        if (lane + k * 32 < t.rows)
            table[lane + k * 32] =
                flags[k] |
                (place + quotient(first + k * 32 * t.step - x.group_begin, p.row_spacing));
    __syncwarp();
}

/* One warp, until no item is left. `barriers` is the shared address of the first barrier. */
template <int width>
__device__ __forceinline__ void schedule(const forward &p, tile *tiles, uint32_t *tables,
                                         uint32_t barriers) {
    using L = layout<width>;
    const int lane = threadIdx.x % 32;
    ring_place<L::ring> place = {0};
    auto wait_place = [&]() {
        sm90::barrier_wait(barriers + (L::tile_empty + place.index()) * 8, place.parity_before());
    };
    auto publish = [&]() {
        sm90::barrier_arrive(barriers + (L::tile_full + place.index()) * 8);
        place.advance();
    };
    for (;;) {
        wait_place(); /* not before: whoever takes an item early makes others wait for it */
        int index = 0;
        if (lane == 0) index = atomicAdd(&p.counters[0], 1);
        index = __shfl_sync(~0u, index, 0);
        if (index >= p.item_count) break;
        item x;
        if (!item_at(p, index, x)) continue;
        const level &l = p.levels[x.level];
        const int turn = quotient(x.group, p.group_slots), slot = x.group - turn * p.slots;
        if (lane == 0 && p.level_count > 1) {
            if (x.level > 0)
                wait_level(p, slot, x.level - 1, turn + 1);
            else if (turn > 0)
                wait_level(p, slot, p.level_count - 1, turn);
        }
        __syncwarp();
        bool described = false; /* a tile that nobody has been told of */
        for_each_run(p, x, [&](const run &r, const sequence &q) {
            if (described) publish();
            described = true;
            wait_place();
            const uint32_t key = static_cast<uint32_t>(r.key_row) + l.pad;
            tile t;
            t.level = x.level;
            t.rows = r.count;
            t.first = r.first;
            t.keys = r.keys;
            t.zero_keys = r.zero_keys;
            t.row = r.row;
            t.step = l.step.value;
            t.counter = -1;
            t.batch = x.batch;
            t.head = x.head;
            t.kv_head = quotient(x.head, p.head_share);
            t.key_j = quotient(key, l.step);
            t.phase = key - t.key_j * t.step;
            if (lane == 0) tiles[place.index()] = t;
            fill_table<L::tile_rows>(p, x, q, t, slot, tables + place.index() * L::tile_rows);
        });
        if (lane == 0 && p.level_count > 1) { /* with the item's last tile */
            const int counter = slot * p.level_count + x.level;
            if (described)
                tiles[place.index()].counter = counter;
            else
                raise_level(p, counter, false);
        }
        if (described) publish();
    }
    wait_place();
    if (lane == 0) tiles[place.index()].level = -1;
    publish();
}

/* One warp, until no tile is left: says of items that they are done. It waits in place of the
 * consumers until their stores are seen everywhere. */
template <int width>
__device__ __forceinline__ void finish_items(const forward &p, const tile *tiles,
                                             uint32_t barriers) {
    using L = layout<width>;
    ring_place<L::ring> place = {0};
    for (;;) {
        sm90::barrier_wait(barriers + (L::tile_full + place.index()) * 8, place.parity());
        const int level = tiles[place.index()].level, counter = tiles[place.index()].counter;
        if (level < 0) break;
        const uint32_t empty = barriers + (L::tile_empty + place.index()) * 8;
        sm90::barrier_arrive(empty);
        sm90::barrier_wait(empty, place.parity());
        if (counter >= 0 && threadIdx.x % 32 == 0)
            raise_level(p, counter, level == p.level_count - 1);
        place.advance();
    }
}

} // namespace dilated_sm90

#endif
