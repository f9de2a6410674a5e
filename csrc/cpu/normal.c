#include "ops/normal.h"

#include "cpu/elements.h"
#include "cpu/functions.h"
#include "cpu/random.h"

/* Words 2j and 2j + 1 of `words` apart: a vector of each. */
static void split_pairs(uint32_t *even, uint32_t *odd, const uint32_t *words) {
    for (int i = 0; i < VLEN; i++) even[i] = words[2 * i], odd[i] = words[2 * i + 1];
}

static void kernel(const void *args, float *const *out, const float *const *in, int64_t first,
                   int64_t n) {
    const struct lnet_normal_args *a = args;
    float mean = (float)a->mean, std = (float)a->std;
    uint32_t words[ELEMENT_BLOCK];
    (void)in;
    random_words(words, a->seed, first, n);
    for (int64_t i = 0; i < n; i += 2 * VLEN) {
        uint32_t even[VLEN], odd[VLEN];
        float pairs[2 * VLEN];
        vec cosine, sine;
        split_pairs(even, odd, words + i);
        vec u = random_high_bits(even) * 0x1p-24f + 0x1p-24f;
        vec_cos_sin_turns(random_high_bits(odd) * 0x1p-24f, &cosine, &sine);
        vec radius = vec_sqrt(vec_log(u) * -2.0f) * std;
        cosine = cosine * radius + mean;
        sine = sine * radius + mean;
        for (int j = 0; j < VLEN; j++) pairs[2 * j] = cosine[j], pairs[2 * j + 1] = sine[j];
        for (int64_t j = 0; j < 2 * VLEN && i + j < n; j += VLEN)
            vec_store(out[0] + i + j, vec_load(pairs + j));
    }
}

lnet_status LNET_CPU(normal)(const struct lnet_normal_args *args, lnet_stream *stream) {
    (void)stream;
    return for_elements(&(struct element_job){.kernel = kernel, .args = args, .out = {args->out}});
}
