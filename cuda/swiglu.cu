/* SwiGLU's product and its gradient. */
#include "cuda/elements.cuh"

extern "C" {
#include "ops/swiglu.h"
}

/* The larger or smaller of two numbers; of a NaN, NaN. */
static __device__ __forceinline__ float at_least(float x, float low) {
    float y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(low));
    return y;
}
static __device__ __forceinline__ float at_most(float x, float high) {
    float y;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(high));
    return y;
}

/* Beyond these s(z) or 1 - s(z) is exactly 0, so that infinities give the limits, not inf * 0. */
static const float LOW = -110.0f, HIGH = 110.0f;

/* s(z), and through `*rest` 1 - s(z), both accurate for any z; to five digits where the results are
 * rounded to 16 bits next. */
template <bool HALF> static __device__ __forceinline__ float sigmoid(float z, float *rest) {
    float t, larger, smaller;
    if (HALF)
        asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(t) : "f"(fabsf(z) * -1.44269504088896341f));
    else
        t = expf(-fabsf(z));
    larger = __fdividef(1.0f, 1.0f + t);
    smaller = t * larger;
    *rest = z > 0.0f ? smaller : larger;
    return z > 0.0f ? larger : smaller;
}

struct swiglu_op {
    template <typename element, int V>
    __device__ void run(float (*y)[V], const float (*x)[V], int64_t) const {
#pragma unroll
        for (int i = 0; i < V; i++) {
            float rest, gate = at_least(x[0][i], LOW);
            y[0][i] = gate * sigmoid<sizeof(element) == 2>(gate, &rest) * x[1][i];
        }
    }
};

extern "C" lnet_status lnet_cuda_swiglu(const struct lnet_swiglu_args *args, lnet_stream *stream) {
    element_job<1, 2> job = {
        {args->y->data}, {args->gate->data, args->up->data}, lnet_elements_of(args->y)};
    return for_elements("swiglu", args->y->dtype, job, swiglu_op(), stream);
}

struct swiglu_backward_op {
    template <typename element, int V>
    __device__ void run(float (*y)[V], const float (*x)[V], int64_t) const {
#pragma unroll
        for (int i = 0; i < V; i++) {
            float dy = x[0][i], gate = at_least(x[1][i], LOW), up = x[2][i];
            float rest, s = sigmoid<sizeof(element) == 2>(gate, &rest);
            y[0][i] = dy * up * (s * (at_most(gate, HIGH) * rest + 1.0f));
            y[1][i] = dy * gate * s;
        }
    }
};

extern "C" lnet_status lnet_cuda_swiglu_backward(const struct lnet_swiglu_backward_args *args,
                                                 lnet_stream *stream) {
    element_job<2, 3> job = {{args->dgate->data, args->dup->data},
                             {args->dy->data, args->gate->data, args->up->data},
                             lnet_elements_of(args->dgate)};
    return for_elements("swiglu_backward", args->dgate->dtype, job, swiglu_backward_op(), stream);
}
