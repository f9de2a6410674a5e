/* GELU of one number, x * P(x), and its slope P(x) + x * p(x); csrc/ops/gelu.h says what they are.
 *
 * The chance T(a) beyond a = |x| is e^(-a^2/2) times a polynomial in 1 / (1 + 0.3 a), the one of
 * csrc/cpu/functions.h, so that the result has all its digits far below 0 too. P(x) is T for x < 0
 * and 1 - T for x > 0. */
#ifndef LNET_CUDA_GELU_CUH
#define LNET_CUDA_GELU_CUH

/* T(a) and the density p(a), for a = |x|, at most where both are 0: infinities give the limits
 * then, and not inf * 0. A NaN stays one. With HALF the results have five digits instead of seven:
 * plenty for what is rounded to 16 bits next, and fewer instructions. */
template <bool HALF>
static __device__ __forceinline__ float lnet_normal_tail(float x, float *magnitude,
                                                         float *density) {
    const float SCALE = -0.721347520444481704f; /* -log2(e) / 2 */
    const float SCALE_LOW = -0.721347520444481704 - static_cast<double>(SCALE);
    float a, e, t, p, square, exponent;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(a) : "f"(fabsf(x)), "f"(40.0f));
    square = a * a;
    exponent = square * SCALE;
    if (HALF) {
        asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(exponent));
    } else {
        /* what rounding took from the exponent, which counts for large a */
        float lost = __fmaf_rn(square, SCALE, -exponent);
        lost = __fmaf_rn(__fmaf_rn(a, a, -square), SCALE, lost);
        lost = __fmaf_rn(square, SCALE_LOW, lost);
        e = exp2f(exponent);
        e = __fmaf_rn(e * lost, 0.693147180559945309f, e);
    }
    t = __fdividef(1.0f, __fmaf_rn(a, 0.3f, 1.0f));
    p = __fmaf_rn(t, 3.837828330e-2f, -1.691660828e-1f);
    p = __fmaf_rn(p, t, 2.286600251e-1f);
    p = __fmaf_rn(p, t, -7.650641813e-2f);
    p = __fmaf_rn(p, t, 1.425354868e-1f);
    p = __fmaf_rn(p, t, 9.468353746e-2f);
    p = __fmaf_rn(p, t, 1.219203389e-1f);
    p = __fmaf_rn(p, t, 1.194876894e-1f);
    p = __fmaf_rn(p, t, 7.168855354e-6f);
    *magnitude = a;
    *density = e * 0.398942280401432678f;
    return e * p;
}

template <bool HALF = false> static __device__ __forceinline__ float lnet_gelu(float x) {
    float a, density, tail = lnet_normal_tail<HALF>(x, &a, &density);
    return fmaxf(0.0f, x) - a * tail;
}

template <bool HALF = false> static __device__ __forceinline__ float lnet_gelu_slope(float x) {
    float a, density, tail = lnet_normal_tail<HALF>(x, &a, &density);
    float below_0 = tail - a * density;
    return x > 0.0f ? 1.0f - below_0 : below_0;
}

#endif
