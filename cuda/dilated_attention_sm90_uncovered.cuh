/* Rows that take part on no level: zeros, written by the copy engine. */
#ifndef LNET_DILATED_ATTENTION_SM90_UNCOVERED_CUH
#define LNET_DILATED_ATTENTION_SM90_UNCOVERED_CUH

#include "cuda/dilated_attention_sm90_rows.cuh"
#include "cuda/sm90.cuh"

namespace dilated_sm90 {

/* The lowest `count` bits. */
__device__ __forceinline__ uint32_t low_bits(int count) {
    return count <= 0 ? 0 : count >= 32 ? ~0u : (1u << count) - 1;
}

/* Bit i: head `first` + i has this offset on the level. */
__device__ __forceinline__ uint32_t heads_with(const problem &p, const level &l, int offset,
                                               int first) {
    if (p.offsets_grouped) {
        const int each = (p.heads + static_cast<uint32_t>(l.rate) - 1) / l.rate;
        return low_bits(offset * each + each - first) & ~low_bits(offset * each - first);
    }
    uint32_t bits = 1;
#pragma unroll 1
    for (int step = l.rate; step < 32; step *= 2) bits |= bits << step;
    int place = offset;
    if (first > 0) place -= first % l.rate;
    if (place < 0) place += l.rate;
    return place < 32 ? bits << place : 0;
}

/* Bit i: a level covers this row of head `first` + i. */
__device__ __forceinline__ uint32_t covering_heads(const problem &p, const sequence &q, int row,
                                                   int first) {
    uint32_t covered = 0;
#pragma unroll 1
    for (int k = 0; k < p.level_count && row < q.end; k++) {
        const level &l = p.levels[k];
        covered |= heads_with(p, l, row_offset(l, q, row), first);
    }
    return covered;
}

/* Zeros for the heads in `empty` of the row; those beside each other at once. */
__device__ __forceinline__ void send_zeros(char *row, uint32_t empty, int head_bytes,
                                           uint32_t zeros, int zero_bytes) {
    const int most = zero_bytes / head_bytes;
    while (empty) {
        const int head = __ffs(empty) - 1;
        const uint32_t covered = ~(empty >> head);
        const int count = min(covered ? __ffs(covered) - 1 : 32, most);
        sm90::store_bytes(row + head * head_bytes, zeros, count * head_bytes);
        empty &= ~(low_bits(count) << head);
    }
}

/* One of `warps` warps of the grid. Zeros for rows (B, N, H, D) of `tensors` that no level covers,
 * an element being `bytes`, from `zero_bytes` of them in shared memory: stores take longer where
 * tiles do (cuda/dev/NOTES.md; the backward stores). `at_once` rows of a warp are sent once those sent `ahead` times
 * before are written: more on their way keep loads of keys waiting. Calls
 * f(batch, row, first, heads) with them too: bit i stands for head `first` + i. */
template <int at_once, int ahead, int bytes, int count, typename F>
__device__ __forceinline__ void write_uncovered(const problem &p, int warp, int warps,
                                                void *const (&tensors)[count], uint32_t zeros,
                                                int zero_bytes, F f) {
    const int lane = threadIdx.x % 32, head_bytes = p.width * bytes;
    const int64_t rows = static_cast<int64_t>(warps) * 32;
    constexpr int turns = 32 / at_once;
    int batch = 0;
    for (int64_t at = warp * 32 + lane;; at += rows) {
        /* of whole warps, as `at` is the lane's row of the batch item */
        while (at / 32 * 32 >= p.rows && batch < p.batch) {
            at -= (p.rows + 31) / 32 * 32;
            batch++;
        }
        if (batch >= p.batch) break;
        const int row = static_cast<int>(at);
        sequence q = {0, 0};
        if (row < p.rows) q = sequence_at(p, batch, p.documents ? document_at(p, row) : 0);
        const int64_t token = static_cast<int64_t>(batch) * p.rows + row;
        for (int first = 0; first < p.heads; first += 32) {
            const int heads = min(p.heads - first, 32);
            const uint32_t empty =
                row < p.rows ? ~covering_heads(p, q, row, first) & low_bits(heads) : 0;
            f(batch, row, first, empty);
            const int64_t to = (token * p.heads + first) * head_bytes;
            for (int turn = 0; turn < turns; turn++) {
                if (lane / at_once == turn) {
#pragma unroll
                    for (int i = 0; i < count; i++)
                        send_zeros(static_cast<char *>(tensors[i]) + to, empty, head_bytes, zeros,
                                   zero_bytes);
                }
                if (lane / at_once == (turn + turns - ahead) % turns) sm90::sent_wait();
                __syncwarp();
            }
        }
    }
    if (ahead > 0) sm90::sent_wait();
}

} // namespace dilated_sm90

#endif
