/* Normal random numbers. */
#include "cuda/elements.cuh"
#include "cuda/random.cuh"

extern "C" {
#include "ops/normal.h"
}

struct normal_op {
    float mean, std;
    uint64_t seed;
    template <typename element, int V>
    __device__ void run(float (*y)[V], const float (*)[V], int64_t first) const {
        uint32_t word[V];
        lnet_random_words(word, seed, first);
#pragma unroll
        for (int i = 0; i < V; i += 2) {
            float cosine, sine, u = (lnet_random_high_bits(word[i]) + 1.0f) * 0x1p-24f;
            float radius = sqrtf(-2.0f * logf(u)) * std;
            sincospif(lnet_random_high_bits(word[i + 1]) * 0x1p-23f, &sine, &cosine);
            y[0][i] = __fmaf_rn(cosine, radius, mean);
            y[0][i + 1] = __fmaf_rn(sine, radius, mean);
        }
    }
};

extern "C" lnet_status lnet_cuda_normal(const struct lnet_normal_args *args, lnet_stream *stream) {
    element_job<1, 0> job = {{args->out->data}, {}, lnet_elements_of(args->out)};
    normal_op op = {static_cast<float>(args->mean), static_cast<float>(args->std), args->seed};
    return for_elements("normal", args->out->dtype, job, op, stream);
}
