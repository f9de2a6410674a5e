/* The random words of consecutive elements: element i has word i mod 4 of Philox counter i / 4. */
#ifndef LNET_CPU_RANDOM_H
#define LNET_CPU_RANDOM_H

#include "cpu/simd.h"
#include "lnet/random.h"

#if defined(__x86_64__)
#    include <immintrin.h>
#endif

typedef uint64_t vecu64 __attribute__((vector_size(VLEN * 4)));

enum { RANDOM_STEP = VLEN * 2 }; /* words that one vector of counters gives */

/* The products of the low halves of the 64-bit lanes with a 32-bit number. */
static inline vecu64 multiply_low_halves(vecu64 a, uint32_t b) {
#if defined(__AVX512F__)
    return (vecu64)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif defined(__AVX2__)
    return (vecu64)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined(__x86_64__)
    return (vecu64)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#else
    return (a & 0xFFFFFFFF) * b;
#endif
}

/* The high halves in place of the low ones: moving takes a port that multiplying leaves free, which
 * shifting does not. */
static inline vecu64 high_halves(vecu64 a) {
    veci order;
    for (int i = 0; i < VLEN; i++) order[i] = i | 1;
    return (vecu64)__builtin_shuffle((veci)a, order);
}

/* lnet_philox() on a vector of counters. The high halves of c hold rubbish that nobody reads. */
static inline void philox_vector(uint32_t *words, uint64_t key, vecu64 counter) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    vecu64 c0 = counter, c1 = counter >> 32, c2 = {0}, c3 = {0};
    for (int round = 0; round < 10; round++) {
        vecu64 p0 = multiply_low_halves(c0, 0xD2511F53u), p1 = multiply_low_halves(c2, 0xCD9E8D57u);
        c0 = high_halves(p1) ^ c1 ^ k0;
        c1 = p1;
        c2 = high_halves(p0) ^ c3 ^ k1;
        c3 = p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    vecu64 first = (c0 & 0xFFFFFFFF) | c1 << 32, second = (c2 & 0xFFFFFFFF) | c3 << 32, low, high;
    for (int i = 0; i < VLEN / 2; i++) { /* takes turns: a lane of the one, a lane of the other */
        low[i] = (uint64_t)(i % 2 * (VLEN / 2) + i / 2);
        high[i] = low[i] + VLEN / 4;
    }
    low = __builtin_shuffle(first, second, low);
    high = __builtin_shuffle(first, second, high);
    memcpy(words, &low, sizeof low);
    memcpy(words + VLEN, &high, sizeof high);
}

/* Words of elements first, ..., first + n - 1; n is rounded up to a multiple of RANDOM_STEP, and
 * `first` is a multiple of 4. */
static inline void random_words(uint32_t *words, uint64_t seed, int64_t first, int64_t n) {
    vecu64 counter;
    for (int i = 0; i < VLEN / 2; i++) counter[i] = (uint64_t)first / 4 + (uint64_t)i;
    for (int64_t i = 0; i < n; i += RANDOM_STEP) {
        philox_vector(words + i, seed, counter);
        counter += VLEN / 2;
    }
}

/* The high 24 bits of VLEN words, which float32 holds exactly. */
static inline vec random_high_bits(const uint32_t *words) {
    veci bits;
    memcpy(&bits, words, sizeof bits);
    return __builtin_convertvector(bits >> 8 & 0x00FFFFFF, vec);
}

#endif
