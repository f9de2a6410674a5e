/* Stochastic rounding of float32 to bfloat16 or float16.
 *
 * A number between two neighbours of the narrow type, `fraction` of the way from the one nearer to
 * zero, becomes the other one iff fraction + (word >> 8) / 2^24 >= 1: where the word is random it
 * is right in the mean. The functions give the result as float32, which holds it exactly. */
#ifndef LNET_ROUNDING_H
#define LNET_ROUNDING_H

#include "lnet/random.h"

#include <math.h>
#include <string.h>

LNET_ANYWHERE uint32_t lnet_float_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

LNET_ANYWHERE float lnet_bits_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* A bfloat16 is the high half of a float32. */
LNET_ANYWHERE float lnet_round_bfloat16(float x, uint32_t word) {
    uint32_t bits = lnet_float_bits(x);
    return x != x ? x : lnet_bits_float((bits + (word >> 16)) & 0xFFFF0000u);
}

/* A float16 is a multiple of 2^-10 times the power of two below it, or times 2^-14, the smallest
 * that it has. From 2^16 on it is infinity once it is stored. */
LNET_ANYWHERE float lnet_round_float16(float x, uint32_t word) {
    uint32_t power = lnet_float_bits(x) & 0x7F800000u;
    if (power >= 0x47800000u) return x;
    if (power < 0x38800000u) power = 0x38800000u;
    float steps = fabsf(x) * lnet_bits_float(0x7F000000u - power) * 0x1p10f;
    float whole = floorf(steps), missing = 1.0f - (float)(word >> 8) * 0x1p-24f;
    if (steps - whole >= missing) whole += 1.0f;
    return copysignf(whole * 0x1p-10f * lnet_bits_float(power), x);
}

#endif
