/* out = x + alpha * y. */
#include "cuda/elements.cuh"

extern "C" {
#include "ops/add.h"
}

struct add_op {
    float alpha;
    template <typename element, int V>
    __device__ void run(float (*y)[V], const float (*x)[V], int64_t) const {
#pragma unroll
        for (int i = 0; i < V; i++) y[0][i] = __fmaf_rn(x[1][i], alpha, x[0][i]);
    }
};

extern "C" lnet_status lnet_cuda_add(const struct lnet_add_args *args, lnet_stream *stream) {
    element_job<1, 2> job = {
        {args->out->data}, {args->x->data, args->y->data}, lnet_elements_of(args->out)};
    add_op op = {static_cast<float>(args->alpha)};
    return for_elements("add", args->out->dtype, job, op, stream);
}
