/* The queue of items on the device: taking one, waiting for those before it, saying that it is
 * done; and where the sums rest that other levels go on with. */
#ifndef LNET_DILATED_ATTENTION_SM80_QUEUE_CUH
#define LNET_DILATED_ATTENTION_SM80_QUEUE_CUH

#include "cuda/dilated_attention_sm80_items.cuh"

namespace dilated_sm80 {

struct queue {
    plan p;
    unsigned long long *taken; /* items */
    uint32_t *done;            /* (groups, levels) items */
};

/* Float32 sums (slots, slot_rows, heads of a group, D), or a float32 output. */
struct resting_sums {
    float *data;
    bool in_output; /* then (B, N or Nq, heads, D) */
    uint32_t heads; /* of a row: of a group, or all */
};

/* One thread: the next item, its level -1 past the last one. */
__device__ inline void take_item(const queue &q, item *out) {
    int64_t index = static_cast<int64_t>(atomicAdd(q.taken, 1ull));
    if (!item_at(q.p, index, out)) out->level = -1;
}

/* One thread: returns when all that the item goes on with is done. */
__device__ inline void wait_for_others(const queue &q, const item &it) {
    dependence before = dependence_of(q.p, it);
    if (before.count == 0) return;
    const uint32_t *counter = q.done + before.group * q.p.level_count + before.level;
    uint32_t found;
    for (;;) {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(found) : "l"(counter) : "memory");
        if (found >= before.count) return;
        __nanosleep(100);
    }
}

/* All threads: the item is done. */
__device__ inline void finish_item(const queue &q, const item &it) {
    __syncthreads();
    if (threadIdx.x != 0) return;
    __threadfence();
    atomicAdd(q.done + it.group * q.p.level_count + it.level, 1u);
}

enum { EARLIER = 1, LATER = 2 }; /* levels that take a row too */

/* All threads: flags[i] says which other levels take row begin + i of the item's strip for any of
 * `heads` heads from `head` on. Complete after the next barrier. */
__device__ inline void flag_rows(const plan &p, const item &it, uint32_t head, uint32_t heads,
                                 uint8_t *flags) {
    uint32_t rate = p.levels[it.level].rate, first = it.first_row - it.sequence_row;
    for (uint32_t i = threadIdx.x; it.begin + i < it.end; i += blockDim.x) {
        uint32_t position = first + (it.begin + i) * rate;
        flags[i] = (covered(p, 0, it.level, position, head, heads) ? EARLIER : 0) |
                   (covered(p, it.level + 1, p.level_count, position, head, heads) ? LATER : 0);
    }
}

/* Where the sums of a strip's rows rest, on one head. */
struct resting_rows {
    float *data;
    int64_t step; /* floats from a row of scratch to the next */
    uint32_t offset, rate, spacing;

    __device__ float *at(uint32_t row) const {
        return data + (offset + row * rate) / spacing * step;
    }
};

/* `first_head` is the group's first. */
__device__ inline resting_rows resting_rows_of(const plan &p, const resting_sums &sums,
                                               const item &it, uint32_t head,
                                               uint32_t first_head) {
    int64_t row, column;
    resting_rows rows;
    rows.step = static_cast<int64_t>(sums.heads) * p.width;
    rows.rate = p.levels[it.level].rate;
    if (sums.in_output) {
        row = static_cast<int64_t>(it.batch) * p.own_rows;
        column = head;
        rows.offset = it.first_row - p.first_own; /* modulo 2^32: not all of the strip is there */
        rows.spacing = 1;
    } else {
        row = static_cast<int64_t>(it.slot) * p.slot_rows;
        column = head - first_head;
        rows.offset = it.first_row - it.group_row;
        rows.spacing = p.row_spacing;
    }
    rows.data = sums.data + (row * sums.heads + column) * p.width;
    return rows;
}

/* The strip's row 0 on a head of k (B, N, Hk, D) or a tensor like it. */
template <typename T>
__device__ inline T *keys_of(const plan &p, T *tensor, const item &it, uint32_t kv_head) {
    int64_t row = static_cast<int64_t>(it.batch) * p.rows + it.first_row;
    return tensor + (row * p.kv_heads + kv_head) * p.width;
}

/* Likewise of q (B, Nq, H, D), whether the tensor has that row or begins at a later one. */
template <typename T>
__device__ inline T *queries_of(const plan &p, T *tensor, const item &it, uint32_t head) {
    int64_t row = static_cast<int64_t>(it.batch) * p.queries + it.first_row - p.first_query;
    return tensor + (row * p.heads + head) * p.width;
}

/* Likewise of a tensor (B, H, Nq). */
template <typename T>
__device__ inline T *statistics_of(const plan &p, T *tensor, const item &it, uint32_t head) {
    return tensor + (static_cast<int64_t>(it.batch) * p.heads + head) * p.queries + it.first_row -
           p.first_query;
}

} // namespace dilated_sm80

#endif
