/* Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011).
 *
 * Four 32-bit words are a function of a 64-bit key and a 128-bit counter, so that a kernel on any
 * device, in any order, draws the same numbers for the same element. */
#ifndef LNET_RANDOM_H
#define LNET_RANDOM_H

#include <stdint.h>

/* A function for the CPU's compiler and for both sides of nvcc's. */
#ifdef __CUDACC__
#    define LNET_ANYWHERE __host__ __device__ static inline
#else
#    define LNET_ANYWHERE static inline
#endif

typedef struct lnet_random4 {
    uint32_t word[4];
} lnet_random4;

LNET_ANYWHERE lnet_random4 lnet_philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_low, c1 = (uint32_t)(counter_low >> 32);
    uint32_t c2 = (uint32_t)counter_high, c3 = (uint32_t)(counter_high >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    lnet_random4 words = {{c0, c1, c2, c3}};
    return words;
}

/* Keep an element when its word is at or above this: the chance of keeping is 1 - p. */
LNET_ANYWHERE uint32_t lnet_dropout_threshold(double p) {
    return (uint32_t)(p * 4294967296.0);
}

#endif
