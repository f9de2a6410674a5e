#include "ops/gelu.h"

#include "cpu/elements.h"
#include "cpu/functions.h"

static void forward_kernel(const void *args, float *const *out, const float *const *in,
                           int64_t first, int64_t n) {
    (void)args, (void)first;
    for (int64_t i = 0; i < n; i += VLEN) vec_store(out[0] + i, vec_gelu(vec_load(in[0] + i)));
}

lnet_status LNET_CPU(gelu)(const struct lnet_gelu_args *args, lnet_stream *stream) {
    (void)stream;
    return for_elements(
        &(struct element_job){.kernel = forward_kernel, .out = {args->y}, .in = {args->x}});
}

static void backward_kernel(const void *args, float *const *out, const float *const *in,
                            int64_t first, int64_t n) {
    (void)args, (void)first;
    for (int64_t i = 0; i < n; i += VLEN)
        vec_store(out[0] + i, vec_load(in[0] + i) * vec_gelu_slope(vec_load(in[1] + i)));
}

lnet_status LNET_CPU(gelu_backward)(const struct lnet_gelu_backward_args *args,
                                    lnet_stream *stream) {
    (void)stream;
    return for_elements(&(struct element_job){
        .kernel = backward_kernel, .out = {args->dx}, .in = {args->dy, args->x}});
}
