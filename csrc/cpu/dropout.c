#include "ops/dropout.h"

#include "cpu/elements.h"
#include "cpu/random.h"

typedef uint32_t vecu __attribute__((vector_size(VLEN * 4)));

static void kernel(const void *args, float *const *out, const float *const *in, int64_t first,
                   int64_t n) {
    const struct lnet_dropout_args *a = args;
    uint32_t threshold = lnet_dropout_threshold(a->p);
    float scale = (float)(1.0 / (1.0 - a->p));
    uint32_t words[ELEMENT_BLOCK];
    random_words(words, a->seed, first, n);
    for (int64_t i = 0; i < n; i += VLEN) {
        vecu word;
        memcpy(&word, words + i, sizeof word);
        vec_store(out[0] + i, vec_select(word >= threshold, vec_load(in[0] + i) * scale, (vec){0}));
    }
}

lnet_status LNET_CPU(dropout)(const struct lnet_dropout_args *args, lnet_stream *stream) {
    (void)stream;
    return for_elements(
        &(struct element_job){.kernel = kernel, .args = args, .out = {args->y}, .in = {args->x}});
}
