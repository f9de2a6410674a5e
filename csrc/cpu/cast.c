#include "ops/cast.h"

#include "cpu/elements.h"

static void kernel(const void *args, float *const *out, const float *const *in, int64_t first,
                   int64_t n) {
    (void)args, (void)first;
    for (int64_t i = 0; i < n; i += VLEN) vec_store(out[0] + i, vec_load(in[0] + i));
}

lnet_status LNET_CPU(cast)(const struct lnet_cast_args *args, lnet_stream *stream) {
    (void)stream;
    return for_elements(
        &(struct element_job){.kernel = kernel, .out = {args->out}, .in = {args->x}});
}
