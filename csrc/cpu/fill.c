#include "ops/fill.h"

#include "cpu/elements.h"

static void kernel(const void *args, float *const *out, const float *const *in, int64_t first,
                   int64_t n) {
    vec value = vec_set((float)((const struct lnet_fill_args *)args)->value);
    (void)in, (void)first;
    for (int64_t i = 0; i < n; i += VLEN) vec_store(out[0] + i, value);
}

lnet_status LNET_CPU(fill)(const struct lnet_fill_args *args, lnet_stream *stream) {
    (void)stream;
    return for_elements(&(struct element_job){.kernel = kernel, .args = args, .out = {args->out}});
}
