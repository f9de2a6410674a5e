/* Rows that take part on no level: O = 0, LSE = -inf. */
#ifndef LNET_DILATED_ATTENTION_SM90_UNCOVERED_CUH
#define LNET_DILATED_ATTENTION_SM90_UNCOVERED_CUH

#include "cuda/dilated_attention_sm90_rows.cuh"
#include "cuda/sm90.cuh"

namespace dilated_sm90 {

enum { ROWS_AT_ONCE = 8 }; /* of a warp, on their way: more keep loads of keys waiting */

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

/* A row's heads in `empty`; those beside each other at once. */
__device__ __forceinline__ void write_zeros(char *row, uint32_t empty, int head_bytes,
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

/* One of `warps` warps of the grid. The copy engine writes the zeros, from `zero_bytes` of them in
 * shared memory: with stores of its own a warp takes several times as long. */
__device__ __forceinline__ void write_uncovered(const forward &p, int warp, int warps,
                                                uint32_t zeros, int zero_bytes) {
    const int lane = threadIdx.x % 32, row_bytes = p.width * 2;
    const int64_t rows = static_cast<int64_t>(warps) * 32;
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
            uint32_t empty = row < p.rows ? ~covering_heads(p, q, row, first) & low_bits(heads) : 0;
            float *lse = p.lse + (static_cast<int64_t>(batch) * p.heads + first) * p.rows + row;
            for (uint32_t rest = empty; rest; rest >>= 8, lse += 8 * static_cast<int64_t>(p.rows)) {
#pragma unroll
                for (int i = 0; i < 8; i++)
                    if (rest >> i & 1) __stcs(lse + i * static_cast<int64_t>(p.rows), -INFINITY);
            }
            char *out = static_cast<char *>(p.out) + (token * p.heads + first) * row_bytes;
            for (int turn = 0; turn < 32 / ROWS_AT_ONCE; turn++) {
                if (lane / ROWS_AT_ONCE == turn) {
                    write_zeros(out, empty, row_bytes, zeros, zero_bytes);
                    sm90::sent_wait();
                }
                __syncwarp();
            }
        }
    }
}

} // namespace dilated_sm90

#endif
