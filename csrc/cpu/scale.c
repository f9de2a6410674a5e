#include "ops/scale.h"

#include "cpu/elements.h"

static void kernel(const void *args, float *const *out, const float *const *in, int64_t first,
                   int64_t n) {
    float factor = *(const float *)args;
    (void)first;
    for (int64_t i = 0; i < n; i += VLEN) vec_store(out[0] + i, vec_load(in[0] + i) * factor);
}

lnet_status LNET_CPU(scale)(const struct lnet_scale_args *args, lnet_stream *stream) {
    float factor = (float)args->alpha;
    (void)stream;
    if (args->factor != NULL) factor *= *(const float *)args->factor->data;
    return for_elements(&(struct element_job){
        .kernel = kernel, .args = &factor, .out = {args->out}, .in = {args->x}});
}
