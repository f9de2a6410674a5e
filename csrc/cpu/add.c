#include "ops/add.h"

#include "cpu/elements.h"

static void kernel(const void *args, float *const *out, const float *const *in, int64_t first,
                   int64_t n) {
    float alpha = (float)((const struct lnet_add_args *)args)->alpha;
    (void)first;
    for (int64_t i = 0; i < n; i += VLEN)
        vec_store(out[0] + i, vec_load(in[0] + i) + vec_load(in[1] + i) * alpha);
}

lnet_status LNET_CPU(add)(const struct lnet_add_args *args, lnet_stream *stream) {
    (void)stream;
    return for_elements(&(struct element_job){
        .kernel = kernel, .args = args, .out = {args->out}, .in = {args->x, args->y}});
}
