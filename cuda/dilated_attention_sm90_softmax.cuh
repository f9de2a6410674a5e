/* The online softmax of two rows a thread (rows t % 32 / 4 and 8 more of a warp's 16).
 *
 * Scores are in units of log2: p = 2^(scale * s - m). The reference m need not be the largest
 * score so far: any score that the row has seen will do as long as p and its sums stay finite. So a
 * row begins with the score of one key, a block of scores is first tried with the m at hand
 * (`try_block`: no maximum, no rescaling, no exchange between threads), and only when a sum shows
 * that m is too low is the block done again with a new maximum (`block`). */
#ifndef LNET_DILATED_ATTENTION_SM90_SOFTMAX_CUH
#define LNET_DILATED_ATTENTION_SM90_SOFTMAX_CUH

#include "cuda/sm90.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace dilated_sm90 {

struct row_pair {
    float m[2], l[2]; /* l: this thread's share of the row's sum */
};

template <bool bfloat16> __device__ __forceinline__ uint32_t pack(float low, float high) {
    uint32_t x;
    if constexpr (bfloat16)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
    else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
    return x;
}

template <bool bfloat16> __device__ __forceinline__ float2 unpack(uint32_t x) {
    if constexpr (bfloat16)
        return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
    else
        return __half22float2(*reinterpret_cast<const __half2 *>(&x));
}

/* Above this a thread's share of a block's sum may leave the range of P or of float32 sums. */
template <bool bfloat16> constexpr float SUM_LIMIT = bfloat16 ? 0x1p60f : 0x1p15f;

/* s becomes p with the m at hand, sum its sums by row. False where m does not do. */
template <bool bfloat16, int count>
__device__ __forceinline__ bool try_block(float (&s)[count], const float (&m)[2], float scale,
                                          float (&sum)[2]) {
    float part[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < count; i++) {
        s[i] = sm90::exp2_fast(fmaf(s[i], scale, -m[i / 2 % 2]));
        part[i % 4] += s[i];
    }
    sum[0] = part[0] + part[1];
    sum[1] = part[2] + part[3];
    return sum[0] < SUM_LIMIT<bfloat16> && sum[1] < SUM_LIMIT<bfloat16>;
}

/* Columns at or past the limits do not exist; column 0 is the thread's first. */
template <int count>
__device__ __forceinline__ void mask(float (&s)[count], const int (&limit)[2], float scale) {
    const float none = scale < 0 ? INFINITY : -INFINITY;
#pragma unroll
    for (int i = 0; i < count; i++)
        if (i / 4 * 8 + i % 2 >= limit[i / 2 % 2]) s[i] = none;
}

/* Rows without an m take their first score in the block. */
template <int count>
__device__ __forceinline__ void start_rows(const float (&s)[count], row_pair &rows, float scale) {
#pragma unroll
    for (int row = 0; row < 2; row++) {
        float score = __shfl_sync(~0u, s[2 * row], threadIdx.x % 32 & ~3);
        if (rows.m[row] == -INFINITY && fabsf(score) != INFINITY) rows.m[row] = score * scale;
    }
}

/* s becomes p, with m the largest score so far; l and o follow. Columns at or past the limits do
 * not exist. */
template <int count, int width>
__device__ __forceinline__ void block(float (&s)[count], row_pair &rows, float (&o)[width],
                                      float scale, const int (&limit)[2]) {
    float top[2] = {rows.m[0], rows.m[1]}, base[2];
#pragma unroll
    for (int i = 0; i < count; i++) {
        const int row = i / 2 % 2;
        s[i] *= scale;
        if (i / 4 * 8 + i % 2 >= limit[row]) s[i] = -INFINITY;
        top[row] = fmaxf(top[row], s[i]);
    }
#pragma unroll
    for (int row = 0; row < 2; row++) {
        top[row] = fmaxf(top[row], __shfl_xor_sync(~0u, top[row], 1));
        top[row] = fmaxf(top[row], __shfl_xor_sync(~0u, top[row], 2));
        base[row] = top[row] == -INFINITY ? 0.0f : top[row];
        float shrink = sm90::exp2_fast(rows.m[row] - base[row]);
        rows.m[row] = top[row];
        rows.l[row] *= shrink;
#pragma unroll
        for (int i = 0; i < width; i++)
            if (i / 2 % 2 == row) o[i] *= shrink;
    }
#pragma unroll
    for (int i = 0; i < count; i++) {
        s[i] = sm90::exp2_fast(s[i] - base[i / 2 % 2]);
        rows.l[i / 2 % 2] += s[i];
    }
}

} // namespace dilated_sm90

#endif
