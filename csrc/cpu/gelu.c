#include "ops/gelu.h"

#include "cpu/elements.h"
#include "cpu/functions.h"

/* |x|, at most where the tail is exactly 0, so that infinities give the limits and not inf * 0. */
static vec magnitude(vec x) {
    return vec_min(vec_set(40.0f), vec_abs(x));
}

/* With T the chance beyond |x|, P(x) is T for x < 0 and 1 - T for x > 0. */
static void forward_kernel(const void *args, float *const *out, const float *const *in,
                           int64_t first, int64_t n) {
    (void)args, (void)first;
    for (int64_t i = 0; i < n; i += VLEN) {
        vec x = vec_load(in[0] + i), a = magnitude(x), density;
        vec_store(out[0] + i, vec_max((vec){0}, x) - a * vec_normal_tail(a, &density));
    }
}

lnet_status LNET_CPU(gelu)(const struct lnet_gelu_args *args, lnet_stream *stream) {
    (void)stream;
    return for_elements(
        &(struct element_job){.kernel = forward_kernel, .out = {args->y}, .in = {args->x}});
}

static void backward_kernel(const void *args, float *const *out, const float *const *in,
                            int64_t first, int64_t n) {
    (void)args, (void)first;
    for (int64_t i = 0; i < n; i += VLEN) {
        vec x = vec_load(in[1] + i), a = magnitude(x), density, tail = vec_normal_tail(a, &density);
        vec below_0 = tail - a * density;
        vec_store(out[0] + i, vec_load(in[0] + i) * vec_select(x > 0.0f, 1.0f - below_0, below_0));
    }
}

lnet_status LNET_CPU(gelu_backward)(const struct lnet_gelu_backward_args *args,
                                    lnet_stream *stream) {
    (void)stream;
    return for_elements(&(struct element_job){
        .kernel = backward_kernel, .out = {args->dx}, .in = {args->dy, args->x}});
}
