#include "ops/uniform.h"

#include "cpu/elements.h"
#include "cpu/random.h"

static void kernel(const void *args, float *const *out, const float *const *in, int64_t first,
                   int64_t n) {
    const struct lnet_uniform_args *a = args;
    float low = (float)a->low, step = (float)((a->high - a->low) * 0x1p-24);
    uint32_t words[ELEMENT_BLOCK];
    (void)in;
    random_words(words, a->seed, first, n);
    for (int64_t i = 0; i < n; i += VLEN)
        vec_store(out[0] + i, random_high_bits(words + i) * step + low);
}

lnet_status LNET_CPU(uniform)(const struct lnet_uniform_args *args, lnet_stream *stream) {
    (void)stream;
    return for_elements(&(struct element_job){.kernel = kernel, .args = args, .out = {args->out}});
}
