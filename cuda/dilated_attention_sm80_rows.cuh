/* The sums of 16 rows out of a warp's registers, to where each row's go: scratch, for a later
 * level, or the output. */
#ifndef LNET_DILATED_ATTENTION_SM80_ROWS_CUH
#define LNET_DILATED_ATTENTION_SM80_ROWS_CUH

#include "cuda/dilated_attention_sm80_queue.cuh"
#include "cuda/dilated_attention_sm80_tile.cuh"

namespace dilated_sm80 {

/* Where the rows of a strip go, from row 0 on. */
template <typename T> struct strip_output {
    T *out;
    int64_t out_step;
    resting_rows sums;
    float factor; /* of what goes to the output */
};

/* What earlier levels left of 16 rows of the item's tile from `row` on: all is asked for before
 * any of it is used. */
template <int WIDTH> struct resting_block {
    float2 sum[2][WIDTH / 8];

    __device__ void load(const plan &p, const item &it, const resting_rows &from, int row,
                         const uint8_t *flags) {
        uint32_t lane = threadIdx.x % 32;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t at = row + lane / 4 + 8 * h, place = it.begin + at;
            bool earlier = place < it.end && (flags[at] & EARLIER);
            const float *sums = from.at(earlier ? place : it.begin) + lane % 4 * 2;
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++)
                sum[h][n] = earlier && static_cast<uint32_t>(n * 8) < p.width
                                ? __ldcg(reinterpret_cast<const float2 *>(sums + n * 8))
                                : make_float2(0, 0);
        }
    }

    /* x += factor[h] times the sums of rows g + 8 h */
    __device__ void add_to(float (&x)[WIDTH / 8][4], const float (&factor)[2]) const {
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int n = 0; n < WIDTH / 8; n++) {
                x[n][2 * h] = fmaf(sum[h][n].x, factor[h], x[n][2 * h]);
                x[n][2 * h + 1] = fmaf(sum[h][n].y, factor[h], x[n][2 * h + 1]);
            }
    }
};

/* The same row after row, where registers are short. */
template <int WIDTH>
__device__ inline void add_resting(const plan &p, const item &it, const resting_rows &from,
                                   float (&x)[WIDTH / 8][4], const float (&factor)[2], int row,
                                   const uint8_t *flags) {
    uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        uint32_t at = row + lane / 4 + 8 * h, place = it.begin + at;
        if (place >= it.end || !(flags[at] & EARLIER)) continue;
        const float *sums = from.at(place) + lane % 4 * 2;
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++) {
            if (static_cast<uint32_t>(n * 8) >= p.width) break;
            float2 sum = __ldcg(reinterpret_cast<const float2 *>(sums + n * 8));
            x[n][2 * h] = fmaf(sum.x, factor[h], x[n][2 * h]);
            x[n][2 * h + 1] = fmaf(sum.y, factor[h], x[n][2 * h + 1]);
        }
    }
}

template <typename T, int WIDTH>
__device__ inline void store_output(const plan &p, const item &it, const strip_output<T> &to,
                                    const float (&x)[WIDTH / 8][4], int row, uint32_t staging) {
    using layout = tile<T, WIDTH>;
    uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            store_shared(staging + (row + lane / 4 + 8 * h) * layout::PITCH + n * 16 +
                             lane % 4 * 4,
                         pack(x[n][2 * h] * to.factor, x[n][2 * h + 1] * to.factor, T()));
    __syncwarp();
    for (uint32_t i = lane; i < 16 * layout::CHUNKS; i += 32) {
        uint32_t at = row + i / layout::CHUNKS, chunk = i % layout::CHUNKS;
        if (it.begin + at >= it.end || chunk * layout::CHUNK >= p.width) continue;
        uint4 values = load_shared_16(staging + at * layout::PITCH + chunk * 16);
        *reinterpret_cast<uint4 *>(to.out + (it.begin + at) * to.out_step +
                                   chunk * layout::CHUNK) = values;
    }
    __syncwarp();
}

/* Rows [row, row + 16) of the item's tile, which has elements T, to an output of these or of
 * float32; `staging` is a tile in shared memory of which the warp may overwrite these rows. */
template <typename T, int WIDTH, typename U>
__device__ inline void store_rows(const plan &p, const item &it, const strip_output<U> &to,
                                  const float (&x)[WIDTH / 8][4], int row, const uint8_t *flags,
                                  uint32_t staging) {
    constexpr bool is_float = sizeof(U) == sizeof(float);
    uint32_t lane = threadIdx.x % 32;
    bool all_rest = p.level_count > 1;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        uint32_t at = row + lane / 4 + 8 * h, place = it.begin + at;
        bool there = place < it.end;
        bool rests = there && p.level_count > 1 && (flags[at] & LATER);
        all_rest = all_rest && (rests || !there);
        if (!there || (!rests && !is_float)) continue;
        float factor = rests ? 1.0f : to.factor;
        float *sums = rests ? to.sums.at(place)
                            : reinterpret_cast<float *>(to.out) + place * to.out_step;
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++) {
            if (static_cast<uint32_t>(n * 8) >= p.width) break;
            __stcg(reinterpret_cast<float2 *>(sums + n * 8 + lane % 4 * 2),
                   make_float2(x[n][2 * h] * factor, x[n][2 * h + 1] * factor));
        }
    }
    if constexpr (!is_float) {
        /* a row that rests may be written too: a later level overwrites it, and waits until this
         * item is done */
        if (!__all_sync(0xFFFFFFFF, all_rest)) store_output<T, WIDTH>(p, it, to, x, row, staging);
    }
}

} // namespace dilated_sm80

#endif
