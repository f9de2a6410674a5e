/* Elements of float32, float16 or bfloat16 storage by packs of up to 16 bytes, as float32. */
#ifndef LNET_CUDA_PACKS_CUH
#define LNET_CUDA_PACKS_CUH

#include "cuda/common.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>
#include <string.h>

/* Calls `f` with a number of the C++ type of a dtype of floats. */
template <typename function> lnet_status lnet_by_dtype(lnet_dtype dtype, const function &f) {
    switch (dtype) {
    case LNET_FLOAT16:
        return f(__half());
    case LNET_BFLOAT16:
        return f(__nv_bfloat16());
    default:
        return f(0.0f);
    }
}

static inline int64_t lnet_elements_of(const lnet_tensor *tensor) {
    int64_t count = 1;
    for (int32_t i = 0; i < tensor->ndim; i++) count *= tensor->shape[i];
    return count;
}

/* Whether packs of `bytes` may be read and written at a place. */
static inline bool lnet_is_aligned(const void *place, size_t bytes) {
    return reinterpret_cast<uintptr_t>(place) % bytes == 0;
}

__device__ inline float lnet_widen(float x) {
    return x;
}
__device__ inline float lnet_widen(__half x) {
    return __half2float(x);
}
__device__ inline float lnet_widen(__nv_bfloat16 x) {
    return __bfloat162float(x);
}

/* Rounded to nearest even. */
__device__ inline void lnet_narrow(float *out, float x) {
    *out = x;
}
__device__ inline void lnet_narrow(__half *out, float x) {
    *out = __float2half_rn(x);
}
__device__ inline void lnet_narrow(__nv_bfloat16 *out, float x) {
    *out = __float2bfloat16_rn(x);
}

/* V elements as they lie in memory: 4, 8 or 16 bytes. */
template <typename element, int V> struct lnet_pack {
    static const int WORDS = V * static_cast<int>(sizeof(element)) / 4;
    uint32_t word[WORDS];
};

/* All of a pack, at a place that is a multiple of its size. */
template <typename element, int V>
__device__ inline void lnet_read(lnet_pack<element, V> *p, const element *from) {
    if constexpr (lnet_pack<element, V>::WORDS == 4) {
        uint4 q = *reinterpret_cast<const uint4 *>(from);
        p->word[0] = q.x, p->word[1] = q.y, p->word[2] = q.z, p->word[3] = q.w;
    } else if constexpr (lnet_pack<element, V>::WORDS == 2) {
        uint2 q = *reinterpret_cast<const uint2 *>(from);
        p->word[0] = q.x, p->word[1] = q.y;
    } else {
        p->word[0] = *reinterpret_cast<const uint32_t *>(from);
    }
}

template <typename element, int V>
__device__ inline void lnet_write(element *to, const lnet_pack<element, V> &p) {
    if constexpr (lnet_pack<element, V>::WORDS == 4)
        *reinterpret_cast<uint4 *>(to) = make_uint4(p.word[0], p.word[1], p.word[2], p.word[3]);
    else if constexpr (lnet_pack<element, V>::WORDS == 2)
        *reinterpret_cast<uint2 *>(to) = make_uint2(p.word[0], p.word[1]);
    else
        *reinterpret_cast<uint32_t *>(to) = p.word[0];
}

/* The first n elements of a pack, at any place; the others are 0. */
template <int V>
__device__ inline void lnet_read_part(lnet_pack<float, V> *p, const float *from, int64_t n) {
#pragma unroll
    for (int i = 0; i < V; i++) p->word[i] = i < n ? __float_as_uint(from[i]) : 0;
}

template <typename half, int V>
__device__ inline void lnet_read_part(lnet_pack<half, V> *p, const half *from, int64_t n) {
    const uint16_t *bits = reinterpret_cast<const uint16_t *>(from);
#pragma unroll
    for (int i = 0; i < V; i += 2) {
        uint32_t low = i < n ? bits[i] : 0, high = i + 1 < n ? bits[i + 1] : 0;
        p->word[i / 2] = low | high << 16;
    }
}

template <int V>
__device__ inline void lnet_write_part(float *to, const lnet_pack<float, V> &p, int64_t n) {
#pragma unroll
    for (int i = 0; i < V; i++)
        if (i < n) to[i] = __uint_as_float(p.word[i]);
}

template <typename half, int V>
__device__ inline void lnet_write_part(half *to, const lnet_pack<half, V> &p, int64_t n) {
    uint16_t *bits = reinterpret_cast<uint16_t *>(to);
#pragma unroll
    for (int i = 0; i < V; i++)
        if (i < n) bits[i] = static_cast<uint16_t>(p.word[i / 2] >> 16 * (i % 2));
}

template <int V> __device__ inline void lnet_widen(float (&x)[V], const lnet_pack<float, V> &p) {
#pragma unroll
    for (int i = 0; i < V; i++) x[i] = __uint_as_float(p.word[i]);
}

template <int V>
__device__ inline void lnet_widen(float (&x)[V], const lnet_pack<__nv_bfloat16, V> &p) {
#pragma unroll
    for (int i = 0; i < V; i += 2) {
        x[i] = __uint_as_float(p.word[i / 2] << 16);
        x[i + 1] = __uint_as_float(p.word[i / 2] & 0xFFFF0000);
    }
}

template <int V> __device__ inline void lnet_widen(float (&x)[V], const lnet_pack<__half, V> &p) {
#pragma unroll
    for (int i = 0; i < V; i += 2) {
        __half2 halves;
        memcpy(&halves, &p.word[i / 2], sizeof halves);
        float2 two = __half22float2(halves);
        x[i] = two.x, x[i + 1] = two.y;
    }
}

/* Rounded to nearest even. */
template <int V> __device__ inline void lnet_narrow(lnet_pack<float, V> *p, const float (&x)[V]) {
#pragma unroll
    for (int i = 0; i < V; i++) p->word[i] = __float_as_uint(x[i]);
}

template <int V>
__device__ inline void lnet_narrow(lnet_pack<__nv_bfloat16, V> *p, const float (&x)[V]) {
#pragma unroll
    for (int i = 0; i < V; i += 2) {
        __nv_bfloat162 two = __floats2bfloat162_rn(x[i], x[i + 1]);
        memcpy(&p->word[i / 2], &two, sizeof two);
    }
}

template <int V> __device__ inline void lnet_narrow(lnet_pack<__half, V> *p, const float (&x)[V]) {
#pragma unroll
    for (int i = 0; i < V; i += 2) {
        __half2 two = __floats2half2_rn(x[i], x[i + 1]);
        memcpy(&p->word[i / 2], &two, sizeof two);
    }
}

#endif
