/* Rows of float32, float16 or bfloat16 storage as float32 and back, rounded to nearest even. */
#ifndef LNET_CPU_CONVERT_H
#define LNET_CPU_CONVERT_H

#include "lnet/tensor.h"

#include <string.h>
#ifdef __F16C__
#    include <immintrin.h>
#endif

static inline float float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float bfloat16_load(uint16_t half) {
    return float_from_bits((uint32_t)half << 16);
}

static inline uint16_t bfloat16_store(float value) {
    uint32_t bits = bits_of_float(value);
    uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    return (uint16_t)(value != value ? bits >> 16 | 0x40 : rounded);
}

#ifdef __F16C__
static inline float float16_load(uint16_t half) {
    return _cvtsh_ss(half);
}

static inline uint16_t float16_store(float value) {
    return (uint16_t)_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT);
}
#else
static inline float float16_load(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7FFF;
    float magnitude = rest < 0x7C00 ? float_from_bits(rest << 13) * 0x1p112f /* subnormals too */
                                    : float_from_bits(rest << 13 | 0x7F800000);
    return float_from_bits(bits_of_float(magnitude) | sign);
}

static inline uint16_t float16_store(float value) {
    uint32_t bits = bits_of_float(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7FFFFFFF;
    if (rest > 0x7F800000) return (uint16_t)(sign | 0x7E00);
    if (rest >= 0x477FF000) return (uint16_t)(sign | 0x7C00); /* rounds to infinity */
    if (rest < 0x38800000) { /* below the normal range: adding 0.5 leaves the half's bits */
        float shifted = float_from_bits(rest) + 0.5f;
        return (uint16_t)(sign | (bits_of_float(shifted) - 0x3F000000));
    }
    return (uint16_t)(sign | ((rest + 0xFFF + (rest >> 13 & 1) - 0x38000000) >> 13));
}
#endif

/* `n` consecutive elements, `first` elements after `data`, into `out`. */
static inline void load_floats(float *restrict out, const void *restrict data, int64_t first,
                               int64_t n, lnet_dtype dtype) {
    if (dtype == LNET_FLOAT32) {
        memcpy(out, (const float *)data + first, (size_t)n * sizeof *out);
    } else {
        const uint16_t *in = (const uint16_t *)data + first;
        int64_t i = 0;
        if (dtype == LNET_BFLOAT16) {
            for (; i < n; i++) out[i] = bfloat16_load(in[i]);
        } else {
#ifdef __F16C__
            for (; i + 8 <= n; i += 8)
                _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(in + i))));
#endif
            for (; i < n; i++) out[i] = float16_load(in[i]);
        }
    }
}

static inline void store_floats(void *restrict data, int64_t first, const float *restrict in,
                                int64_t n, lnet_dtype dtype) {
    if (dtype == LNET_FLOAT32) {
        memcpy((float *)data + first, in, (size_t)n * sizeof *in);
    } else {
        uint16_t *out = (uint16_t *)data + first;
        int64_t i = 0;
        if (dtype == LNET_BFLOAT16) {
            for (; i < n; i++) out[i] = bfloat16_store(in[i]);
        } else {
#ifdef __F16C__
            for (; i + 8 <= n; i += 8)
                _mm_storeu_si128((void *)(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(in + i),
                                                                    _MM_FROUND_TO_NEAREST_INT));
#endif
            for (; i < n; i++) out[i] = float16_store(in[i]);
        }
    }
}

/* A row as float32: the tensor's own memory where it is float32, else a copy in `scratch`. */
static inline const float *row_in(const lnet_tensor *tensor, int64_t first, int64_t n,
                                  float *scratch) {
    if (tensor->dtype == LNET_FLOAT32) return (const float *)tensor->data + first;
    load_floats(scratch, tensor->data, first, n, tensor->dtype);
    return scratch;
}

/* Where to write a row of float32 (the tensor's own memory or `scratch`), ended by row_done(). */
static inline float *row_out(const lnet_tensor *tensor, int64_t first, float *scratch) {
    return tensor->dtype == LNET_FLOAT32 ? (float *)tensor->data + first : scratch;
}

static inline void row_done(const lnet_tensor *tensor, int64_t first, int64_t n,
                            const float *scratch) {
    if (tensor->dtype != LNET_FLOAT32) store_floats(tensor->data, first, scratch, n, tensor->dtype);
}

#endif
