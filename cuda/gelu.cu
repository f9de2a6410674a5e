/* GELU and its gradient. */
#include "cuda/elements.cuh"
#include "cuda/gelu.cuh"

extern "C" {
#include "ops/gelu.h"
}

struct gelu_op {
    template <typename element, int V>
    __device__ void run(float (*y)[V], const float (*x)[V], int64_t) const {
#pragma unroll
        for (int i = 0; i < V; i++) y[0][i] = lnet_gelu<sizeof(element) == 2>(x[0][i]);
    }
};

extern "C" lnet_status lnet_cuda_gelu(const struct lnet_gelu_args *args, lnet_stream *stream) {
    element_job<1, 1> job = {{args->y->data}, {args->x->data}, lnet_elements_of(args->y)};
    return for_elements("gelu", args->y->dtype, job, gelu_op(), stream);
}

struct gelu_backward_op {
    template <typename element, int V>
    __device__ void run(float (*y)[V], const float (*x)[V], int64_t) const {
#pragma unroll
        for (int i = 0; i < V; i++)
            y[0][i] = x[0][i] * lnet_gelu_slope<sizeof(element) == 2>(x[1][i]);
    }
};

extern "C" lnet_status lnet_cuda_gelu_backward(const struct lnet_gelu_backward_args *args,
                                               lnet_stream *stream) {
    element_job<1, 2> job = {
        {args->dx->data}, {args->dy->data, args->x->data}, lnet_elements_of(args->dx)};
    return for_elements("gelu_backward", args->dx->dtype, job, gelu_backward_op(), stream);
}
