/* Vectors of float32 as wide as the instruction set of this build, in GCC's vector extension:
 * the same source is AVX-512, AVX2, SSE2 or NEON. Arithmetic operators work on whole vectors. */
#ifndef LNET_CPU_SIMD_H
#define LNET_CPU_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#    include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { VLEN = 16 };
#elif defined(__AVX2__)
enum { VLEN = 8 };
#else
enum { VLEN = 4 };
#endif

typedef float vec __attribute__((vector_size(VLEN * 4)));
typedef int32_t veci __attribute__((vector_size(VLEN * 4)));

static inline vec vec_load(const float *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void vec_store(float *p, vec v) {
    memcpy(p, &v, sizeof v);
}

static inline vec vec_set(float x) {
    return x - (vec){0};
}

/* The first n < VLEN elements, the others `fill`. */
static inline vec vec_load_part(const float *p, int64_t n, float fill) {
    vec v = vec_set(fill);
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}

static inline void vec_store_part(float *p, vec v, int64_t n) {
    memcpy(p, &v, (size_t)n * sizeof *p);
}

/* mask ? a : b, where a mask is what a comparison of vectors gives. */
static inline vec vec_select(veci mask, vec a, vec b) {
    return (vec)(((veci)a & mask) | ((veci)b & ~mask));
}

/* Of a NaN and a number, either operand order keeps the second. One instruction on x86, which GCC
 * does not find in the comparison. */
static inline vec vec_max(vec a, vec b) {
#if defined(__AVX512F__)
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (vec)_mm_max_ps((__m128)a, (__m128)b);
#else
    return vec_select(a > b, a, b);
#endif
}

static inline vec vec_min(vec a, vec b) {
#if defined(__AVX512F__)
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (vec)_mm_min_ps((__m128)a, (__m128)b);
#else
    return vec_select(a < b, a, b);
#endif
}

static inline float vec_sum(vec v) {
    float part[VLEN];
    memcpy(part, &v, sizeof v);
    for (int width = VLEN / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) part[i] += part[i + width];
    return part[0];
}

static inline float vec_hmax(vec v) {
    float part[VLEN];
    memcpy(part, &v, sizeof v);
    for (int width = VLEN / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            part[i] = part[i] > part[i + width] ? part[i] : part[i + width];
    return part[0];
}

/* 2^x within 2 units in the last place, for x up to 127 or NaN; 0 below -126.5. */
static inline vec vec_exp2_upto127(vec x) {
    const float magic = 0x1.8p23f + 127.0f; /* adding it rounds to an integer in the low bits, */
    x = vec_max(vec_set(-127.0f), x);       /* biased as a float's exponent: 0 for 2^-127 */
    vec shifted = x + magic;
    vec f = x - (shifted - magic); /* in [-0.5, 0.5] */
    vec p = f * 1.326472731307149e-3f + 9.671512991189957e-3f;
    p = p * f + 5.550733581185341e-2f;
    p = p * f + 2.402224242687225e-1f;
    p = p * f + 6.931470036506653e-1f;
    p = p * f + 1.0f;
    return p * (vec)((veci)shifted << 23);
}

/* 2^x: infinity above 127.5, and NaN of NaN. */
static inline vec vec_exp2(vec x) {
    return vec_exp2_upto127(vec_min(vec_set(128.0f), x));
}

static inline vec vec_exp(vec x) {
    return vec_exp2(x * 1.44269504088896341f);
}

/* Stores past the cache, at an address that is a multiple of the vector's size. */
static inline void vec_stream(float *p, vec v) {
#if defined(__AVX512F__)
    _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX2__)
    _mm256_stream_ps(p, (__m256)v);
#elif defined(__SSE2__)
    _mm_stream_ps(p, (__m128)v);
#else
    vec_store(p, v);
#endif
}

enum { LINE = 64 }; /* bytes of a cache line */

/* Copies `bytes` to memory that will not be read soon: whole cache lines go past the cache, which
 * spares reading them first. End a series of calls with stream_end(). */
static inline void stream_bytes(void *out, const void *in, int64_t bytes) {
    if (((uintptr_t)out | (uintptr_t)bytes) % LINE != 0) {
        memcpy(out, in, (size_t)bytes);
        return;
    }
    for (int64_t i = 0; i < bytes; i += (int64_t)sizeof(vec))
        vec_stream((float *)((char *)out + i), vec_load((const float *)((const char *)in + i)));
}

/* Zeros to a whole cache line, likewise. */
static inline void stream_zero_line(void *out) {
    for (int64_t i = 0; i < LINE; i += (int64_t)sizeof(vec))
        vec_stream((float *)((char *)out + i), (vec){0});
}

/* Zeros to any memory, likewise. */
static inline void stream_zeros(void *out, int64_t bytes) {
    if (((uintptr_t)out | (uintptr_t)bytes) % LINE != 0) {
        memset(out, 0, (size_t)bytes);
        return;
    }
    for (int64_t i = 0; i < bytes; i += LINE) stream_zero_line((char *)out + i);
}

static inline void stream_end(void) {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

#endif
