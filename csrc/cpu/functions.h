/* Elementary functions of float32 vectors, within a few units in the last place. A NaN stays one.
 * Polynomials of logarithm, sine and cosine as in the Cephes library. */
#ifndef LNET_CPU_FUNCTIONS_H
#define LNET_CPU_FUNCTIONS_H

#include "cpu/simd.h"

#if defined(__AVX__)
#    include <immintrin.h>
#endif

static inline vec vec_abs(vec x) {
    return (vec)((veci)x & 0x7FFFFFFF);
}

static inline vec vec_sqrt(vec x) {
#if defined(__AVX512F__)
    return (vec)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX__)
    return (vec)_mm256_sqrt_ps((__m256)x);
#else
    for (int i = 0; i < VLEN; i++) x[i] = sqrtf(x[i]);
    return x;
#endif
}

/* a * b + c, rounded once. */
static inline vec vec_fma(vec a, vec b, vec c) {
#if defined(__AVX512F__)
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    for (int i = 0; i < VLEN; i++) a[i] = fmaf(a[i], b[i], c[i]);
    return a;
#endif
}

/* 1 / x for x of ordinary size: a division takes as long as eight other operations. */
static inline vec vec_reciprocal(vec x) {
#if defined(__AVX512F__)
    vec y = (vec)_mm512_rcp14_ps((__m512)x);
    return y * (2.0f - x * y);
#else
    return 1.0f / x;
#endif
}

/* Adding EXP_MAGIC rounds to an integer in the low bits, biased as a float's exponent. */
#define EXP_MAGIC (0x1.8p23f + 127.0f)
#define LOG2_E 1.44269504088896341f
#define LN2_HIGH 0x1.62e4p-1f /* times an exponent it is exact */
#define LN2_LOW 0x1.7f7d1cp-20f

/* e^r * 2^k for |r| <= log(2) / 2, with k = shifted - EXP_MAGIC; 0 for k = -127. */
static inline vec vec_exp_parts(vec r, vec shifted) {
    vec p = r * 1.3814540025e-3f + 8.3687451126e-3f;
    p = p * r + 4.1668390787e-2f;
    p = p * r + 1.6666520399e-1f;
    p = p * r + 4.9999993432e-1f;
    p = p * (r * r) + r + 1.0f;
    return p * (vec)((veci)shifted << 23);
}

/* e^x for x <= 0; 0 below -87.7. */
static inline vec vec_exp_negative(vec x) {
    x = vec_max(vec_set(-88.0f), x);
    vec shifted = x * LOG2_E + EXP_MAGIC, k = shifted - EXP_MAGIC;
    return vec_exp_parts(x - k * LN2_HIGH - k * LN2_LOW, shifted);
}

/* e^(-a^2 / 2) for 0 <= a <= 40. The square is not rounded, which would count for large a. */
static inline vec vec_exp_half_square(vec a) {
    vec half = a * -0.5f;
    vec shifted = vec_max(vec_set(-127.0f), half * a * LOG2_E) + EXP_MAGIC;
    vec k = shifted - EXP_MAGIC;
    return vec_exp_parts(vec_fma(half, a, k * -LN2_HIGH) - k * LN2_LOW, shifted);
}

/* The natural logarithm of x, a positive number that is not subnormal. */
static inline vec vec_log(vec x) {
    veci bits = (veci)x - 0x3F3504F3; /* the bits of sqrt(1/2), so that m is in [0.71, 1.41) */
    vec k = __builtin_convertvector(bits >> 23, vec);
    vec m = (vec)((bits & 0x007FFFFF) + 0x3F3504F3) - 1.0f;
    vec z = m * m;
    vec p = m * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    vec low = p * m * z - k * 2.12194440e-4f - z * 0.5f;
    return m + low + k * 0.693359375f;
}

/* cos and sin of 2 pi t for t in [0, 1]. */
static inline void vec_cos_sin_turns(vec t, vec *cosine, vec *sine) {
    vec shifted = t * 4.0f + 0x1.8p23f; /* rounds to the nearest quarter */
    vec x = (t - (shifted - 0x1.8p23f) * 0.25f) * 6.28318530717958648f;
    veci quarter = (veci)shifted;
    vec z = x * x;
    vec s = z * -1.9515295891e-4f + 8.3321608736e-3f;
    s = s * z - 1.6666654611e-1f;
    s = s * z * x + x;
    vec c = z * 2.443315711809948e-5f - 1.388731625493765e-3f;
    c = c * z + 4.166664568298827e-2f;
    c = c * z * z - z * 0.5f + 1.0f;
    veci swap = -(quarter & 1);
    *cosine = (vec)((veci)vec_select(swap, s, c) ^ ((quarter + 1) & 2) << 30);
    *sine = (vec)((veci)vec_select(swap, c, s) ^ (quarter & 2) << 30);
}

/* The chance of a standard normal number beyond a, 0 <= a <= 40, and its density at a. The chance
 * is e^(-a^2/2) times a polynomial in 1 / (1 + 0.3 a), which was fitted up to a = 14, where the
 * chance is 0 in float32, with a relative error of 6e-8. */
static inline vec vec_normal_tail(vec a, vec *density) {
    vec e = vec_exp_half_square(a), t = vec_reciprocal(a * 0.3f + 1.0f);
    vec p = t * 3.837828330e-2f - 1.691660828e-1f;
    p = p * t + 2.286600251e-1f;
    p = p * t - 7.650641813e-2f;
    p = p * t + 1.425354868e-1f;
    p = p * t + 9.468353746e-2f;
    p = p * t + 1.219203389e-1f;
    p = p * t + 1.194876894e-1f;
    p = p * t + 7.168855354e-6f;
    *density = e * 0.398942280401432678f;
    return e * p;
}

/* |x|, at most where the tail is exactly 0, so that infinities give the limits and not inf * 0. */
static inline vec vec_normal_distance(vec x) {
    return vec_min(vec_set(40.0f), vec_abs(x));
}

/* x * P(x). With T the chance beyond |x|, P(x) is T for x < 0 and 1 - T for x > 0. */
static inline vec vec_gelu(vec x) {
    vec a = vec_normal_distance(x), density;
    return vec_max((vec){0}, x) - a * vec_normal_tail(a, &density);
}

/* P(x) + x * p(x). */
static inline vec vec_gelu_slope(vec x) {
    vec a = vec_normal_distance(x), density, tail = vec_normal_tail(a, &density);
    vec below_0 = tail - a * density;
    return vec_select(x > 0.0f, 1.0f - below_0, below_0);
}

#endif
