/* out = x in another dtype. */
#include "cuda/elements.cuh"

extern "C" {
#include "ops/cast.h"
}

struct cast_op {
    template <typename element, int V>
    __device__ void run(float (*y)[V], const float (*x)[V], int64_t) const {
#pragma unroll
        for (int i = 0; i < V; i++) y[0][i] = x[0][i];
    }
};

extern "C" lnet_status lnet_cuda_cast(const struct lnet_cast_args *args, lnet_stream *stream) {
    element_job<1, 1> job = {{args->out->data}, {args->x->data}, lnet_elements_of(args->out)};
    return lnet_by_dtype(args->out->dtype, [&](auto out) {
        return lnet_by_dtype(args->x->dtype, [&](auto x) {
            return for_elements_of<decltype(out), decltype(x)>("cast", job, cast_op(), stream);
        });
    });
}
