/* The random words of consecutive elements, those of the CPU: element i has word i mod 4 of Philox
 * counter i / 4. */
#ifndef LNET_CUDA_RANDOM_CUH
#define LNET_CUDA_RANDOM_CUH

extern "C" {
#include "lnet/random.h"
}

/* Of V elements from `first` on, both multiples of 4. */
template <int V>
__device__ inline void lnet_random_words(uint32_t (&word)[V], uint64_t seed, int64_t first) {
#pragma unroll
    for (int i = 0; i < V; i += 4) {
        lnet_random4 four = lnet_philox(seed, static_cast<uint64_t>(first + i) / 4, 0);
#pragma unroll
        for (int j = 0; j < 4; j++) word[i + j] = four.word[j];
    }
}

/* The high 24 bits of a word, which float32 holds exactly. */
__device__ inline float lnet_random_high_bits(uint32_t word) {
    return static_cast<float>(word >> 8);
}

#endif
