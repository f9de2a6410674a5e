/* From accumulators of products to rows of 16-bit numbers, or of these float32 ones. */
#ifndef LNET_DILATED_ATTENTION_SM90_STORE_CUH
#define LNET_DILATED_ATTENTION_SM90_STORE_CUH

#include "cuda/dilated_attention_sm90_softmax.cuh"

namespace dilated_sm90 {

/* One row of accumulators as 16-byte pieces: of four neighbouring pieces, each thread of a quad gets one. */
template <int width, bool bfloat16>
__device__ __forceinline__ void store_row(const float (&o)[width / 2], int r, float factor,
                                          bool valid, char *out, int columns) {
    const int quad = threadIdx.x % 4;
    const bool odd = quad & 1, upper = quad & 2;
#pragma unroll
    for (int g = 0; g < (width + 31) / 32; g++) {
        uint32_t x[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int at = 4 * (4 * g + i) + 2 * r;
            x[i] = 4 * g + i < width / 8 ? pack<bfloat16>(o[at] * factor, o[at + 1] * factor) : 0;
        }
        uint32_t y0 = __shfl_xor_sync(~0u, odd ? x[0] : x[1], 1);
        uint32_t y1 = __shfl_xor_sync(~0u, odd ? x[2] : x[3], 1);
        uint32_t a0 = odd ? y0 : x[0], a1 = odd ? x[1] : y0;
        uint32_t b0 = odd ? y1 : x[2], b1 = odd ? x[3] : y1;
        uint32_t z0 = __shfl_xor_sync(~0u, upper ? a0 : b0, 2);
        uint32_t z1 = __shfl_xor_sync(~0u, upper ? a1 : b1, 2);
        uint4 piece = upper ? make_uint4(z0, z1, b0, b1) : make_uint4(a0, a1, z0, z1);
        const int column = (4 * g + quad) * 8;
        if (valid && column < columns) *reinterpret_cast<uint4 *>(out + column * 2) = piece;
    }
}

/* The same as float32. */
template <int width>
__device__ __forceinline__ void store_row_whole(const float (&o)[width / 2], int r, float factor,
                                                bool valid, char *out, int columns) {
#pragma unroll
    for (int i = 0; i < width / 8; i++) {
        const int column = 8 * i + threadIdx.x % 4 * 2, at = 4 * i + 2 * r;
        if (valid && column < columns)
            *reinterpret_cast<float2 *>(out + column * 4) =
                make_float2(o[at] * factor, o[at + 1] * factor);
    }
}

} // namespace dilated_sm90

#endif
