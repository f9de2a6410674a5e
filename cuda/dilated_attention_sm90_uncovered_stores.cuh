/* Zeros for rows that take part on no level, as `write_uncovered` sends them, by stores of warps
 * that have time beside the tiles: the copy engine keeps its loads waiting behind them. */
#ifndef LNET_DILATED_ATTENTION_SM90_UNCOVERED_STORES_CUH
#define LNET_DILATED_ATTENTION_SM90_UNCOVERED_STORES_CUH

#include "cuda/dilated_attention_sm90_uncovered.cuh"

namespace dilated_sm90 {

/* Calls f(at, heads, most) for the lane's row of every 32 rows that no warp has taken yet: bit i of
 * `heads` is set where no level covers the row for head `first` + i, for every 32nd head `first`;
 * `at` is the element of a tensor (B, N, H, D) where the row of that head begins, `most` how many
 * heads there are from it on. `taken` counts groups of 32 rows. */
template <typename F>
__device__ __forceinline__ void take_uncovered(const problem &p, uint32_t *taken, F f) {
    const int lane = threadIdx.x % 32, row_chunks = (p.rows + 31) / 32;
    const uint32_t chunks = static_cast<uint32_t>(p.batch) * row_chunks;
    uint32_t next = 0;
    if (lane == 0) next = atomicAdd(taken, 1u);
    for (;;) {
        const uint32_t chunk = __shfl_sync(~0u, next, 0);
        if (chunk >= chunks) break;
        if (lane == 0) next = atomicAdd(taken, 1u); /* the answer comes during this chunk */
        const int batch = chunk / row_chunks;
        const int row = (chunk - batch * row_chunks) * 32 + lane;
        sequence q = {0, 0};
        if (row < p.rows) q = sequence_at(p, batch, p.documents ? document_at(p, row) : 0);
        const int64_t token = static_cast<int64_t>(batch) * p.rows + row;
        for (int first = 0; first < p.heads; first += 32) {
            const int most = min(p.heads - first, 32);
            const uint32_t heads =
                row < p.rows ? ~covering_heads(p, q, row, first) & low_bits(most) : 0;
            f((token * p.heads + first) * p.width, heads, most);
        }
    }
}

/* Zeros for those heads of `tensors`, whose elements have so many bytes. A store of
 * the warp writes a few heads, `whole` where they are its 512 bytes. The loops are lean, as one or
 * two warps of a processor have to keep up with the memory. After `fence_rows` rows what
 * was stored is waited for: the fewer zeros on their way, the sooner come the tiles' loads. */
template <int bytes, int fence_rows, bool whole, int count>
__device__ __forceinline__ void store_zeros(const problem &p, uint32_t *taken,
                                            void *const (&tensors)[count]) {
    constexpr int unrolled = 4;
    const int lane = threadIdx.x % 32, head_bytes = p.width * bytes, pieces = head_bytes / 16;
    const int some = 32 / pieces, own = lane / pieces; /* heads of a store, the lane's of those */
    const uint32_t any = own < some ? ~0u : 0;
    const int step = whole ? 512 : some * head_bytes, turn = unrolled * some;
    take_uncovered(p, taken, [&](int64_t at, uint32_t heads, int most) {
        const int pitch = p.heads * head_bytes - (most - 1) / turn * (unrolled * step);
        char *to[count];
#pragma unroll
        for (int k = 0; k < count; k++) {
            to[k] = static_cast<char *>(tensors[k]) + __shfl_sync(~0u, at, 0) * bytes + lane * 16;
            asm volatile("" : "+l"(to[k])); /* not to be computed again for each store */
        }
#pragma unroll 4
        for (int row = 0; row < 32; row++) {
            uint32_t empty = (__shfl_sync(~0u, heads, row) & any) >> own;
            for (int head = 0;;) {
#pragma unroll
                for (int i = 0; i < unrolled; i++) {
                    if (empty & 1)
#pragma unroll
                        for (int k = 0; k < count; k++)
                            __stcs(reinterpret_cast<uint4 *>(to[k] + i * step),
                                   make_uint4(0, 0, 0, 0));
                    empty >>= some;
                }
                head += turn;
                if (head >= most) break;
#pragma unroll
                for (int k = 0; k < count; k++) to[k] += unrolled * step;
            }
#pragma unroll
            for (int k = 0; k < count; k++) to[k] += pitch;
            if ((row + 1) % fence_rows == 0) asm volatile("fence.acq_rel.gpu;" ::: "memory");
        }
    });
}

/* A warp's part of that, for any head dim. */
template <int bytes, int fence_rows, int count>
__device__ __forceinline__ void store_uncovered(const problem &p, uint32_t *taken,
                                                void *const (&tensors)[count]) {
    if (512 % (p.width * bytes) == 0)
        store_zeros<bytes, fence_rows, true>(p, taken, tensors);
    else
        store_zeros<bytes, fence_rows, false>(p, taken, tensors);
}

} // namespace dilated_sm90

#endif
