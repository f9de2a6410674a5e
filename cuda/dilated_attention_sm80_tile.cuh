/* Tiles of rows in shared memory, and products of them by a warp.
 *
 * A tile is (rows, WIDTH) elements, its rows 16 bytes further apart than they are long, so that the
 * eight rows that a matrix load takes together lie in different banks. Products go in steps of 16
 * along the sum:
 *
 *     fragment_a  16 rows x 16          load() from a tile, of() sums that a product made
 *     fragment_b  16 x 16 columns       load() from the rows of a tile: C = A B^T,
 *                                       load_transposed(): C = A B, where A came by of()
 *
 * and sums are float32: sums[4] of a thread are (row g, columns 2t, 2t + 1) and (row g + 8, the
 * same) of 16 x 8, with g = lane / 4 and t = lane % 4.
 *
 * float32 tensors are multiplied by tensor cores too: x = high + low with both in tf32 (11 bits
 * each), and x y = high high + high low + low high. Tensor cores round sums towards zero, so every
 * step's 16 products are added to the sums by an ordinary addition. */
#ifndef LNET_DILATED_ATTENTION_SM80_TILE_CUH
#define LNET_DILATED_ATTENTION_SM80_TILE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

namespace dilated_sm80 {

/* ---- instructions ---- */

__device__ inline uint32_t shared_address(const void *pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/* 16 bytes to shared memory, zeros where `there` is false. */
__device__ inline void copy_16(uint32_t to, const void *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}

__device__ inline void copies_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* All but the last `left` groups have arrived. */
template <int left> __device__ inline void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

__device__ inline void load_matrices(uint32_t *to, uint32_t from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
}

__device__ inline void load_matrices_transposed(uint32_t *to, uint32_t from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(from)
                 : "memory");
}

__device__ inline float load_float(uint32_t from) {
    float x;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(from) : "memory");
    return x;
}

__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ inline void multiply(float *sums, const uint32_t *a, const uint32_t *b, __half) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void multiply(float *sums, const uint32_t *a, const uint32_t *b, __nv_bfloat16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void multiply_tf32(float *sums, const uint32_t *a, const uint32_t *b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline uint32_t round_tf32(float x) {
    uint32_t y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

__device__ inline void split(uint32_t *high, uint32_t *low, float x) {
    *high = round_tf32(x);
    float rest = x - __uint_as_float(*high);
    *low = round_tf32(isfinite(x) ? rest : 0.0f);
}

__device__ inline uint32_t pack(float x, float y, __half) {
    __half2 both = __floats2half2_rn(x, y);
    return *reinterpret_cast<uint32_t *>(&both);
}

__device__ inline uint32_t pack(float x, float y, __nv_bfloat16) {
    __nv_bfloat162 both = __floats2bfloat162_rn(x, y);
    return *reinterpret_cast<uint32_t *>(&both);
}

/* ---- tiles ---- */

template <typename T, int WIDTH> struct tile {
    static constexpr int PITCH = WIDTH * static_cast<int>(sizeof(T)) + 16; /* bytes */
    static constexpr int CHUNK = 16 / static_cast<int>(sizeof(T));         /* elements */
    static constexpr int CHUNKS = WIDTH / CHUNK;
};

/* Rows [begin, begin + ROWS) of `count` to a tile, by all threads; rows are `stride` elements
 * apart and `width` long, and what the tile has beyond that are zeros. */
template <typename T, int WIDTH, int ROWS, int THREADS>
__device__ inline void load_tile(uint32_t to, const T *from, int64_t stride, uint32_t begin,
                                 uint32_t count, uint32_t width) {
    using layout = tile<T, WIDTH>;
    constexpr int TOGETHER = layout::CHUNKS & -layout::CHUNKS; /* threads to a row: a power of 2 */
    constexpr int ACROSS = TOGETHER < 32 ? TOGETHER : 32, PASS = THREADS / ACROSS;
    const uint32_t thread = threadIdx.x, chunk = thread % ACROSS;
    uint32_t row = thread / ACROSS;
    const T *source = from + (begin + row) * stride + chunk * layout::CHUNK;
    to += row * layout::PITCH + chunk * 16;
#pragma unroll
    for (int i = 0; i < (ROWS + PASS - 1) / PASS; i++) {
        if (ROWS % PASS != 0 && row >= ROWS) break;
#pragma unroll
        for (int j = 0; j < layout::CHUNKS; j += ACROSS) {
            bool there = begin + row < count && (chunk + j) * layout::CHUNK < width;
            copy_16(to + i * PASS * layout::PITCH + j * 16,
                    there ? source + j * layout::CHUNK : from, there);
        }
        row += PASS;
        source += PASS * stride;
    }
}

/* ---- fragments of 16-bit elements ---- */

template <typename T, int WIDTH> struct fragments {
    static constexpr int PITCH = tile<T, WIDTH>::PITCH;

    struct a {
        uint32_t x[4];
        /* Rows [row, row + 16), columns [column, column + 16). */
        __device__ void load(uint32_t from, int row, int column) {
            int lane = threadIdx.x % 32;
            load_matrices(x, from + (row + lane % 16) * PITCH + column * 2 + lane / 16 * 16);
        }
        __device__ void of(const float *first, const float *second) {
            x[0] = pack(first[0], first[1], T());
            x[1] = pack(first[2], first[3], T());
            x[2] = pack(second[0], second[1], T());
            x[3] = pack(second[2], second[3], T());
        }
    };

    struct b {
        uint32_t x[4];
        __device__ void load(uint32_t from, int row, int column) {
            int lane = threadIdx.x % 32;
            load_matrices(x, from + (row + lane % 8 + lane / 16 * 8) * PITCH + column * 2 +
                                 lane / 8 % 2 * 16);
        }
        __device__ void load_transposed(uint32_t from, int row, int column) {
            int lane = threadIdx.x % 32;
            load_matrices_transposed(x, from + (row + lane % 16) * PITCH + column * 2 +
                                            lane / 16 * 16);
        }
    };

    /* sums (16 x 16, as two of 16 x 8) += a b */
    __device__ static void add(float (*sums)[4], const a &left, const b &right) {
        multiply(sums[0], left.x, right.x, T());
        multiply(sums[1], left.x, right.x + 2, T());
    }
};

/* ---- fragments of float32: steps of 16 are two of 8 ---- */

template <int WIDTH> struct fragments<float, WIDTH> {
    static constexpr int PITCH = tile<float, WIDTH>::PITCH;

    struct a {
        uint32_t high[8], low[8];
        __device__ void load(uint32_t from, int row, int column) {
            int lane = threadIdx.x % 32;
            uint32_t x[8], at = from + (row + lane % 16) * PITCH + column * 4 + lane / 16 * 16;
            load_matrices(x, at);
            load_matrices(x + 4, at + 32);
#pragma unroll
            for (int i = 0; i < 8; i++) split(high + i, low + i, __uint_as_float(x[i]));
        }
        /* A thread has columns 2t and 2t + 1 where the product wants t and t + 4: the columns of
         * each 8 are taken in another order, and load_transposed() takes the rows so. */
        __device__ void of(const float *first, const float *second) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int from = i == 1 ? 2 : i == 2 ? 1 : i;
                split(high + i, low + i, first[from]);
                split(high + 4 + i, low + 4 + i, second[from]);
            }
        }
    };

    struct b {
        uint32_t high[8], low[8]; /* [8 columns][step of 8][2] */
        __device__ void load(uint32_t from, int row, int column) {
            int lane = threadIdx.x % 32;
            uint32_t x[8], at = from + (row + lane % 8) * PITCH + column * 4 + lane / 8 * 16;
            load_matrices(x, at);
            load_matrices(x + 4, at + 8 * PITCH);
#pragma unroll
            for (int i = 0; i < 8; i++) split(high + i, low + i, __uint_as_float(x[i]));
        }
        __device__ void load_transposed(uint32_t from, int row, int column) {
            int lane = threadIdx.x % 32;
            uint32_t at = from + (row + lane % 4 * 2) * PITCH + (column + lane / 4) * 4;
#pragma unroll
            for (int i = 0; i < 8; i++)
                split(high + i, low + i,
                      load_float(at + (i / 2 % 2 * 8 + i % 2) * PITCH + i / 4 * 32));
        }
    };

    __device__ static void add(float (*sums)[4], const a &left, const b &right) {
#pragma unroll
        for (int n = 0; n < 2; n++) {
            float small[4] = {}, large[4] = {};
#pragma unroll
            for (int k = 0; k < 2; k++) {
                multiply_tf32(small, left.low + 4 * k, right.high + 4 * n + 2 * k);
                multiply_tf32(small, left.high + 4 * k, right.low + 4 * n + 2 * k);
                multiply_tf32(large, left.high + 4 * k, right.high + 4 * n + 2 * k);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) sums[n][i] += large[i] + small[i];
        }
    }
};

/* ---- products of tiles, for 16 BLOCKS rows of a warp ---- */

/* x = rows [row, row + 16 BLOCKS) of `own`, times rows [0, COLUMNS) of `other` transposed. */
template <typename T, int WIDTH, int BLOCKS, int COLUMNS>
__device__ inline void multiply_tiles(float (&x)[BLOCKS][COLUMNS / 8][4], uint32_t own,
                                      uint32_t other, int row) {
    using parts = fragments<T, WIDTH>;
#pragma unroll
    for (int m = 0; m < BLOCKS; m++)
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) x[m][n][i] = 0;
#pragma unroll
    for (int d = 0; d < WIDTH; d += 16) {
        typename parts::a left[BLOCKS];
#pragma unroll
        for (int m = 0; m < BLOCKS; m++) left[m].load(own, row + 16 * m, d);
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n += 2) {
            typename parts::b right;
            right.load(other, n * 8, d);
#pragma unroll
            for (int m = 0; m < BLOCKS; m++) parts::add(&x[m][n], left[m], right);
        }
    }
}

/* sums += x times rows [0, COLUMNS) of `other`. */
template <typename T, int WIDTH, int BLOCKS, int COLUMNS>
__device__ inline void add_product(float (&sums)[BLOCKS][WIDTH / 8][4],
                                   const float (&x)[BLOCKS][COLUMNS / 8][4], uint32_t other) {
    using parts = fragments<T, WIDTH>;
#pragma unroll
    for (int k = 0; k < COLUMNS; k += 16) {
        typename parts::a left[BLOCKS];
#pragma unroll
        for (int m = 0; m < BLOCKS; m++) left[m].of(x[m][k / 8], x[m][k / 8 + 1]);
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n += 2) {
            typename parts::b right;
            right.load_transposed(other, k, n * 8);
#pragma unroll
            for (int m = 0; m < BLOCKS; m++) parts::add(&sums[m][n], left[m], right);
        }
    }
}

/* ---- rows of sums out ---- */

__device__ inline void store_shared(uint32_t to, uint32_t x) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(x) : "memory");
}

__device__ inline uint4 load_shared_16(uint32_t from) {
    uint4 x;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                 : "r"(from)
                 : "memory");
    return x;
}

__device__ inline float sum_of_quad(float x) {
    x += __shfl_xor_sync(0xFFFFFFFF, x, 1);
    return x + __shfl_xor_sync(0xFFFFFFFF, x, 2);
}

__device__ inline float max_of_quad(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, 2));
}

} // namespace dilated_sm80

#endif
