/* Dropout. */
#include "cuda/elements.cuh"
#include "cuda/random.cuh"

extern "C" {
#include "ops/dropout.h"
}

struct dropout_op {
    uint32_t threshold;
    float scale;
    uint64_t seed;
    template <typename element, int V>
    __device__ void run(float (*y)[V], const float (*x)[V], int64_t first) const {
        uint32_t word[V];
        lnet_random_words(word, seed, first);
#pragma unroll
        for (int i = 0; i < V; i++) y[0][i] = word[i] >= threshold ? x[0][i] * scale : 0.0f;
    }
};

extern "C" lnet_status lnet_cuda_dropout(const struct lnet_dropout_args *args,
                                         lnet_stream *stream) {
    element_job<1, 1> job = {{args->y->data}, {args->x->data}, lnet_elements_of(args->y)};
    dropout_op op = {lnet_dropout_threshold(args->p), static_cast<float>(1.0 / (1.0 - args->p)),
                     args->seed};
    return for_elements("dropout", args->y->dtype, job, op, stream);
}
