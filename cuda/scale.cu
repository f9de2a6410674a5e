/* out = alpha * factor * x. */
#include "cuda/elements.cuh"

extern "C" {
#include "ops/scale.h"
}

struct scale_op {
    float alpha;
    const float *factor; /* or NULL */
    template <typename element, int V>
    __device__ void run(float (*y)[V], const float (*x)[V], int64_t) const {
        float both = factor != NULL ? alpha * *factor : alpha;
#pragma unroll
        for (int i = 0; i < V; i++) y[0][i] = x[0][i] * both;
    }
};

extern "C" lnet_status lnet_cuda_scale(const struct lnet_scale_args *args, lnet_stream *stream) {
    element_job<1, 1> job = {{args->out->data}, {args->x->data}, lnet_elements_of(args->out)};
    scale_op op = {static_cast<float>(args->alpha),
                   args->factor != NULL ? static_cast<const float *>(args->factor->data) : NULL};
    return lnet_by_dtype(args->out->dtype, [&](auto out) {
        return lnet_by_dtype(args->x->dtype, [&](auto x) {
            return for_elements_of<decltype(out), decltype(x)>("scale", job, op, stream);
        });
    });
}
