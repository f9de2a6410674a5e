#include "ops/swiglu.h"

#include "cpu/elements.h"
#include "cpu/functions.h"

/* s(z), and through `*rest` 1 - s(z), both accurate for any z. */
static vec sigmoid(vec z, vec *rest) {
    vec t = vec_exp_negative(-vec_abs(z)), larger = vec_reciprocal(t + 1.0f), smaller = t * larger;
    veci positive = z > 0.0f;
    *rest = vec_select(positive, smaller, larger);
    return vec_select(positive, larger, smaller);
}

/* Where s(z) or 1 - s(z) is exactly 0, so that infinities give the limits instead of inf * 0. */
static vec clamp_low(vec z) {
    return vec_max(vec_set(-100.0f), z);
}
static vec clamp_high(vec z) {
    return vec_min(vec_set(100.0f), z);
}

static void forward_kernel(const void *args, float *const *out, const float *const *in,
                           int64_t first, int64_t n) {
    (void)args, (void)first;
    for (int64_t i = 0; i < n; i += VLEN) {
        vec rest, gate = clamp_low(vec_load(in[0] + i));
        vec_store(out[0] + i, gate * sigmoid(gate, &rest) * vec_load(in[1] + i));
    }
}

lnet_status LNET_CPU(swiglu)(const struct lnet_swiglu_args *args, lnet_stream *stream) {
    (void)stream;
    return for_elements(&(struct element_job){
        .kernel = forward_kernel, .out = {args->y}, .in = {args->gate, args->up}});
}

static void backward_kernel(const void *args, float *const *out, const float *const *in,
                            int64_t first, int64_t n) {
    (void)args, (void)first;
    for (int64_t i = 0; i < n; i += VLEN) {
        vec dy = vec_load(in[0] + i), gate = clamp_low(vec_load(in[1] + i));
        vec rest, s = sigmoid(gate, &rest), slope = s * (clamp_high(gate) * rest + 1.0f);
        vec dgate = dy * vec_load(in[2] + i) * slope;
        vec_store(out[1] + i, dy * gate * s);
        vec_store(out[0] + i, dgate);
    }
}

lnet_status LNET_CPU(swiglu_backward)(const struct lnet_swiglu_backward_args *args,
                                      lnet_stream *stream) {
    (void)stream;
    return for_elements(&(struct element_job){.kernel = backward_kernel,
                                              .out = {args->dgate, args->dup},
                                              .in = {args->dy, args->gate, args->up}});
}
