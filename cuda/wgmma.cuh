/* Warpgroup matrix products of sm_90a: D (64, N) += A (64, 16) B (16, N), float32 accumulators.
 *
 * A comes from shared memory, K-major or M-major, or from registers; B from shared memory, K-major
 * (the keys of Q K^T) or N-major (the values of P V). Shared tiles are panels of 64 columns (128 bytes) in
 * the 128-byte swizzle of the copy engine: 8 rows are 1024 bytes, and a panel begins at a multiple
 * of 1024.
 *
 * Thread t of the warpgroup holds, of the 16 rows of its warp, rows t % 32 / 4 and 8 more, and of
 * every 8 columns the pair at 2 * (t % 4): d[4 i + 0, 1] in the first row, d[4 i + 2, 3] in the
 * second. */
#ifndef LNET_WGMMA_CUH
#define LNET_WGMMA_CUH

#include <stdint.h>

namespace sm90 {

/* Orders earlier accesses to registers and shared memory before the products that follow. */
__device__ __forceinline__ void products_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void products_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits until at most `pending` of the latest committed groups are unfinished. */
template <int pending> __device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

/* Keeps the compiler from moving uses of the registers across this point. */
template <int count> __device__ __forceinline__ void pin(float (&x)[count]) {
#pragma unroll
    for (int i = 0; i < count; i++) asm volatile("" : "+f"(x[i])::"memory");
}

/* Descriptors of swizzled tiles: `tile_begin` of its address, plus 16-byte steps from there.
 * K-major: 8 rows to the next 8 are 1024 bytes. N-major: 64 columns to the next 64 are `leading`
 * bytes, 8 rows to the next 8 are 1024. */
__device__ __forceinline__ uint32_t tile_begin(uint32_t address, uint32_t leading) {
    return address >> 4 | leading >> 4 << 16;
}
__device__ __forceinline__ uint64_t tile_descriptor(uint32_t begin, uint32_t bytes) {
    const uint32_t rows_and_swizzle = 1024 >> 4 | 1u << 30;
    return static_cast<uint64_t>(rows_and_swizzle) << 32 | (begin + (bytes >> 4));
}

template <int width, bool bfloat16> struct products;

/* The accumulators %0 .. %(n - 1) as text, and as operands. */
#define LNET_T10(d)                                                                                \
    "%" d "0,%" d "1,%" d "2,%" d "3,%" d "4,%" d "5,%" d "6,%" d "7,%" d "8,%" d "9"
#define LNET_T4(d) "%" d "0,%" d "1,%" d "2,%" d "3"
#define LNET_T6(d) LNET_T4(d) ",%" d "4,%" d "5"
#define LNET_T8(d) LNET_T6(d) ",%" d "6,%" d "7"
#define LNET_T16 LNET_T10("") "," LNET_T6("1")
#define LNET_T20 LNET_T10("") "," LNET_T10("1")
#define LNET_T24 LNET_T20 "," LNET_T4("2")
#define LNET_T30 LNET_T20 "," LNET_T10("2")
#define LNET_T32 LNET_T30 ",%30,%31"
#define LNET_T40 LNET_T30 "," LNET_T10("3")
#define LNET_T48 LNET_T40 "," LNET_T8("4")
#define LNET_T60 LNET_T40 "," LNET_T10("4") "," LNET_T10("5")
#define LNET_T64 LNET_T60 "," LNET_T4("6")
#define LNET_T90 LNET_T60 "," LNET_T10("6") "," LNET_T10("7") "," LNET_T10("8")
#define LNET_T96 LNET_T90 "," LNET_T6("9")
#define LNET_T120 LNET_T90 "," LNET_T10("9") "," LNET_T10("10") "," LNET_T10("11")
#define LNET_T128 LNET_T120 "," LNET_T8("12")
#define LNET_O8(i)                                                                                 \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),    \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define LNET_O16 LNET_O8(0), LNET_O8(8)
#define LNET_O24 LNET_O16, LNET_O8(16)
#define LNET_O32 LNET_O24, LNET_O8(24)
#define LNET_O48 LNET_O32, LNET_O8(32), LNET_O8(40)
#define LNET_O64 LNET_O48, LNET_O8(48), LNET_O8(56)
#define LNET_O96 LNET_O64, LNET_O8(64), LNET_O8(72), LNET_O8(80), LNET_O8(88)
#define LNET_O128 LNET_O96, LNET_O8(96), LNET_O8(104), LNET_O8(112), LNET_O8(120)

/* n accumulators, and the numbers of the operands that follow them. */
#define LNET_PRODUCTS(N, n, type, is_bfloat16, p0, p1, p2, p3, p4, p5)                             \
    template <> struct products<N, is_bfloat16> {                                                  \
        /* A (64, 16) and B (N, 16) K-major in shared memory; begins at zero unless `add`. */      \
        static __device__ __forceinline__ void shared(float (&d)[n], uint64_t a, uint64_t b,       \
                                                      int add) {                                   \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" p2 ", 0;\n"                          \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type           \
                         " {" LNET_T##n "}, %" p0 ", %" p1 ", p, 1, 1, 0, 0;\n}"                   \
                         : LNET_O##n                                                               \
                         : "l"(a), "l"(b), "r"(add));                                              \
        }                                                                                          \
        /* Likewise with A M-major and B N-major. */                                               \
        static __device__ __forceinline__ void transposed(float (&d)[n], uint64_t a, uint64_t b,   \
                                                          int add) {                               \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" p2 ", 0;\n"                          \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type           \
                         " {" LNET_T##n "}, %" p0 ", %" p1 ", p, 1, 1, 1, 1;\n}"                   \
                         : LNET_O##n                                                               \
                         : "l"(a), "l"(b), "r"(add));                                              \
        }                                                                                          \
        /* A (64, 16) in registers, B (N, 16) K-major; begins at zero unless `add`. */             \
        static __device__ __forceinline__ void kept(float (&d)[n], const uint32_t *a, uint64_t b,  \
                                                    int add) {                                     \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" p5 ", 0;\n"                          \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type           \
                         " {" LNET_T##n "}, {%" p0 ", %" p1 ", %" p2 ", %" p3 "}, %" p4            \
                                        ", p, 1, 1, 0;\n}"                                         \
                         : LNET_O##n                                                               \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));          \
        }                                                                                          \
        /* A (64, 16) in registers, B (16, N) N-major in shared memory; adds. */                   \
        static __device__ __forceinline__ void registers(float (&d)[n], const uint32_t *a,         \
                                                         uint64_t b) {                             \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"                                \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." type "." type           \
                         " {" LNET_T##n "}, {%" p0 ", %" p1 ", %" p2 ", %" p3 "}, %" p4            \
                                        ", p, 1, 1, 1;\n}"                                         \
                         : LNET_O##n                                                               \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                    \
        }                                                                                          \
    };
#define LNET_PRODUCTS_BOTH(N, n, ...)                                                              \
    LNET_PRODUCTS(N, n, "bf16", true, __VA_ARGS__)                                                 \
    LNET_PRODUCTS(N, n, "f16", false, __VA_ARGS__)

LNET_PRODUCTS_BOTH(32, 16, "16", "17", "18", "19", "20", "21")
LNET_PRODUCTS_BOTH(48, 24, "24", "25", "26", "27", "28", "29")
LNET_PRODUCTS_BOTH(64, 32, "32", "33", "34", "35", "36", "37")
LNET_PRODUCTS_BOTH(96, 48, "48", "49", "50", "51", "52", "53")
LNET_PRODUCTS_BOTH(128, 64, "64", "65", "66", "67", "68", "69")
LNET_PRODUCTS_BOTH(192, 96, "96", "97", "98", "99", "100", "101")
LNET_PRODUCTS_BOTH(256, 128, "128", "129", "130", "131", "132", "133")

/* One warp: D (16, 8) += A (16, 16) B (16, 8), operands in registers. */
template <bool bfloat16>
__device__ __forceinline__ void warp_product(float *d, const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
    if constexpr (bfloat16)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four 8x8 tiles of 16-bit elements; lane l names row l % 8 of tile l / 8. */
__device__ __forceinline__ void store_tiles(uint32_t address, const uint32_t *x) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                 "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
                 : "memory");
}
__device__ __forceinline__ void load_tiles(uint32_t (&x)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(address)
                 : "memory");
}

} // namespace sm90

#endif
