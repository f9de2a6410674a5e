/* The scheduling warp: takes items, waits for what they need, and describes their tiles and rows to
 * the loading warp and the consumers. */
#ifndef LNET_DILATED_ATTENTION_SM90_FORWARD_SCHEDULE_CUH
#define LNET_DILATED_ATTENTION_SM90_FORWARD_SCHEDULE_CUH

#include "cuda/dilated_attention_sm90_rows.cuh"
#include "cuda/dilated_attention_sm90_sync.cuh"
#include "cuda/sm90.cuh"

namespace dilated_sm90 {

/* False where the step has no such item. Items that share keys come one after the other, and those
 * that see most of them first. */
__device__ __forceinline__ bool item_at(const forward &p, int index, item &x) {
    const int step = index / p.step_items;
    index %= p.step_items;
    x.level = 0;
    while (index >= p.levels[x.level].chunks * p.group_heads)
        index -= p.levels[x.level++].chunks * p.group_heads;
    x.group = step - x.level;
    if (x.group < 0 || x.group >= p.groups) return false;
    const level &l = p.levels[x.level];
    x.head_of_group = index / l.chunks;
    x.chunk = l.chunks - 1 - index % l.chunks;
    const int rest = x.group / p.head_groups;
    x.head = x.group % p.head_groups * p.group_heads + x.head_of_group;
    x.batch = rest / p.row_groups;
    x.group_begin = rest % p.row_groups * p.group_rows;
    const int end = min(p.group_rows, p.rows - x.group_begin);
    x.begin = x.group_begin + min(static_cast<int64_t>(x.chunk) * l.chunk, static_cast<int64_t>(end));
    x.end = x.begin + min(l.chunk, x.group_begin + end - x.begin);
    if (x.head >= p.heads) x.end = x.begin;
    return true;
}

/* Waits until the warps that finish items of this level have raised its counter for the group. */
__device__ __forceinline__ void wait_level(const forward &p, int group, int level, int warps) {
    wait_counter(p.counters + 2 + group % p.slots * p.level_count + level,
                 (group / p.slots + 1) * p.levels[level].chunks * p.group_heads * warps);
}

/* What the last level's items write nobody reads: that they have read is all that is waited for,
 * and what they have computed with they have read. */
__device__ __forceinline__ void raise_level(const forward &p, int counter, bool last_level,
                                            uint32_t by) {
    if (last_level)
        raise_counter_relaxed(p.counters + 2 + counter, by);
    else
        raise_counter(p.counters + 2 + counter, by);
}

/* One warp: the table of a tile's rows. */
template <int tile_rows>
__device__ __forceinline__ void fill_table(const forward &p, const item &x, const sequence &q,
                                           const tile &t, uint32_t *table) {
    constexpr int each = tile_rows / 32;
    const int lane = threadIdx.x % 32, first = t.row + lane * t.step;
    uint32_t flags[each];
#pragma unroll
    for (int k = 0; k < each; k++) flags[k] = ROW_FINAL;
    for (int i = 0; i < p.level_count; i++) {
        if (i == x.level) continue;
        const level &l = p.levels[i];
        const int s = head_offset(p, x.head, l);
#pragma unroll
        for (int k = 0; k < each; k++) {
            if (!takes_part(l, s, q, first + k * 32 * t.step)) continue;
            if (i < x.level)
                flags[k] |= ROW_KNOWN;
            else
                flags[k] &= ~ROW_FINAL;
        }
    }
    const uint32_t slot = (x.group % p.slots * p.group_heads + x.head_of_group) * p.slot_rows;
#pragma unroll
    for (int k = 0; k < each; k++)
        if (lane + k * 32 < t.rows)
            table[lane + k * 32] =
                flags[k] |
                (slot + quotient(first + k * 32 * t.step - x.group_begin, p.row_spacing));
    __syncwarp();
}

/* One warp, until no item is left. `barriers` is the shared address of the first barrier. */
template <int width>
__device__ __forceinline__ void schedule(const forward &p, tile *tiles, uint32_t *tables,
                                         uint32_t barriers) {
    using L = layout<width>;
    const int lane = threadIdx.x % 32, warps = L::S::warpgroups * 4;
    ring_place<L::ring> place = {0};
    auto push = [&](const tile &t) {
        if (lane == 0) tiles[place.index()] = t;
        sm90::barrier_arrive(barriers + (L::tile_full + place.index()) * 8);
        place.advance();
    };
    auto wait_place = [&]() {
        sm90::barrier_wait(barriers + (L::tile_empty + place.index()) * 8, place.parity_before());
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
        const int step = l.step.value;
        if (lane == 0 && p.level_count > 1) {
            if (x.level > 0)
                wait_level(p, x.group, x.level - 1, warps);
            else if (x.group >= p.slots)
                wait_level(p, x.group - p.slots, p.level_count - 1, warps);
        }
        __syncwarp();
        const int counter = p.level_count > 1 ? x.group % p.slots * p.level_count + x.level : -1;
        int remaining = 0;
        for_each_run(p, x, [&](const run &r, const sequence &) {
            remaining += (r.count + L::tile_rows - 1) / L::tile_rows;
        });
        if (remaining == 0 && counter >= 0 && lane == 0) raise_level(p, counter, false, warps);
        for_each_run(p, x, [&](const run &r, const sequence &q) {
            const uint32_t key = static_cast<uint32_t>(r.key_row) + l.pad;
            /* tiles alike, rather than a last one with work for one warpgroup only */
            const int parts = (r.count + WARPGROUP_ROWS - 1) / WARPGROUP_ROWS;
            const int count = (parts + L::S::warpgroups - 1) / L::S::warpgroups;
            for (int k = 0, done = 0; k < count; k++) {
                const int rows = (parts * (k + 1) / count - parts * k / count) * WARPGROUP_ROWS;
                tile t;
                t.level = x.level;
                t.rows = min(rows, r.count - done);
                t.first = r.first + done;
                t.keys = r.keys;
                t.zero_keys = r.zero_keys;
                t.row = r.row + done * step;
                t.step = step;
                t.counter = --remaining == 0 ? counter : -1;
                t.batch = x.batch;
                t.head = x.head;
                t.kv_head = x.head / (p.heads / p.kv_heads);
                t.key_j = quotient(key, l.step);
                t.phase = key - t.key_j * step;
                wait_place();
                fill_table<L::tile_rows>(p, x, q, t, tables + place.index() * L::tile_rows);
                push(t);
                done += rows;
            }
        });
    }
    wait_place();
    tile end = {};
    end.level = -1;
    push(end);
}

/* One of `warps` warps of the grid. O = 0 and LSE = -inf where a row takes part on no level. */
__device__ __forceinline__ void write_uncovered(const forward &p, int warp, int warps) {
    const int lane = threadIdx.x % 32;
    const int pieces = p.width / 8, at_once = 32 / pieces; /* 16-byte pieces; whole rows at once */
    const int chunks = (p.rows + 31) / 32;
    for (int i = warp; i < chunks * p.batch; i += warps) {
        const int batch = i / chunks, begin = i % chunks * 32, row = begin + lane;
        sequence q = {0, 0};
        if (row < p.rows) q = sequence_at(p, batch, p.documents ? document_at(p, row) : 0);
        const int64_t token = static_cast<int64_t>(batch) * p.rows + begin;
        int4 *out = reinterpret_cast<int4 *>(p.out) + token * p.heads * pieces;
        float *lse = p.lse + static_cast<int64_t>(batch) * p.heads * p.rows + row;
        for (int head = 0; head < p.heads; head++) {
            bool covered = row >= p.rows;
            for (int k = 0; k < p.level_count && row < q.end; k++)
                covered =
                    covered || takes_part(p.levels[k], head_offset(p, head, p.levels[k]), q, row);
            const uint32_t empty = __ballot_sync(~0u, !covered);
            if (!covered) lse[static_cast<int64_t>(head) * p.rows] = -INFINITY;
            if (lane >= at_once * pieces) continue;
#pragma unroll 4
            for (int j = lane / pieces; j < 32; j += at_once)
                if (empty >> j & 1)
                    out[(static_cast<int64_t>(j) * p.heads + head) * pieces + lane % pieces] =
                        make_int4(0, 0, 0, 0);
        }
    }
}

} // namespace dilated_sm90

#endif
