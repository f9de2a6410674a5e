/* Uniform random numbers. */
#include "cuda/elements.cuh"
#include "cuda/random.cuh"

extern "C" {
#include "ops/uniform.h"
}

struct uniform_op {
    float low, step;
    uint64_t seed;
    template <typename element, int V>
    __device__ void run(float (*y)[V], const float (*)[V], int64_t first) const {
        uint32_t word[V];
        lnet_random_words(word, seed, first);
#pragma unroll
        for (int i = 0; i < V; i++) y[0][i] = __fmaf_rn(lnet_random_high_bits(word[i]), step, low);
    }
};

extern "C" lnet_status lnet_cuda_uniform(const struct lnet_uniform_args *args,
                                         lnet_stream *stream) {
    element_job<1, 0> job = {{args->out->data}, {}, lnet_elements_of(args->out)};
    uniform_op op = {static_cast<float>(args->low),
                     static_cast<float>((args->high - args->low) * 0x1p-24), args->seed};
    return for_elements("uniform", args->out->dtype, job, op, stream);
}
