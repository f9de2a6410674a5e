/* Which pairs of a query and a key dropout keeps; the counters are ops/dilated_attention.h's.
 *
 * One call of Philox serves four keys of a query. The lanes that hold their sums share the calls
 * out among them, one call a lane for 16 x 8 pairs, and pass on what they found. */
#ifndef LNET_DILATED_ATTENTION_SM80_DROPOUT_CUH
#define LNET_DILATED_ATTENTION_SM80_DROPOUT_CUH

#include "cuda/dilated_attention_sm80_items.cuh"

namespace dilated_sm80 {

struct dropout {
    bool on;
    uint32_t threshold; /* a word below it drops the pair */
    float factor;       /* 1 / (1 - p) */
    uint64_t seed;      /* with the high half of segments' first rows, which is the same for all */
    uint32_t first_row, first_level; /* what a row and a level count from */
};

/* The high half of the counters of a strip on one head. */
__device__ inline uint64_t dropout_high(const dropout &d, const plan &p, const item &it,
                                        uint32_t head) {
    uint32_t batch_head = it.batch * p.heads + head;
    uint32_t level = static_cast<uint32_t>(it.level) + d.first_level;
    return (it.start + d.first_row) | static_cast<uint64_t>(level | batch_head << 6) << 32;
}

/* Philox4x32-10, as lnet/random.h's: bit i is set where word i is at or above the threshold. */
__device__ inline uint32_t keep_four(const dropout &d, uint64_t high, uint32_t quad,
                                     uint32_t query) {
    uint32_t k0 = static_cast<uint32_t>(d.seed), k1 = static_cast<uint32_t>(d.seed >> 32);
    uint32_t c0 = quad, c1 = query;
    uint32_t c2 = static_cast<uint32_t>(high), c3 = static_cast<uint32_t>(high >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint32_t h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
        uint32_t h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
        c0 = h1 ^ c1 ^ k0;
        c1 = l1;
        c2 = h0 ^ c3 ^ k1;
        c3 = l0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    uint32_t bits = c0 >= d.threshold;
    bits |= (c1 >= d.threshold) << 1;
    bits |= (c2 >= d.threshold) << 2;
    return bits | (c3 >= d.threshold) << 3;
}

/* Bit i: keep sums[i] of a product whose rows are queries from `query` on and whose columns are
 * keys from `key` on, a multiple of 8. */
__device__ inline uint32_t keep_of_queries(const dropout &d, uint64_t high, uint32_t query,
                                           uint32_t key) {
    uint32_t lane = threadIdx.x % 32, odd = lane % 2;
    uint32_t mine = keep_four(d, high, key / 4 + lane % 4 / 2, query + lane / 4 + 8 * odd);
    uint32_t other = __shfl_xor_sync(0xFFFFFFFF, mine, 1);
    uint32_t upper = (odd ? other : mine) >> 2 * odd, lower = (odd ? mine : other) >> 2 * odd;
    return (upper & 3) | (lower & 3) << 2;
}

/* The same where rows are keys from `key` on, a multiple of 16, and columns are queries. */
__device__ inline uint32_t keep_of_keys(const dropout &d, uint64_t high, uint32_t query,
                                        uint32_t key) {
    uint32_t lane = threadIdx.x % 32, row = lane / 4, column = lane % 4, kept = 0;
    uint32_t mine = keep_four(d, high, key / 4 + row / 4 + row % 4 / 2 * 2,
                              query + 2 * column + row % 2);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t found = __shfl_sync(0xFFFFFFFF, mine, (row / 4 * 4 + i) * 4 + column);
        kept |= (found >> row % 4 & 1) << i;
    }
    return kept;
}

} // namespace dilated_sm80

#endif
