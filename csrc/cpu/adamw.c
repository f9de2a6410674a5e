#include "ops/adamw.h"

#include "cpu/elements.h"
#include "cpu/functions.h"
#include "cpu/random.h"
#include "lnet/rounding.h"

struct adamw_job {
    struct lnet_adamw_factors factors;
    float factor; /* of the gradient */
    bool stochastic;
    lnet_dtype rounded; /* float32: there is none */
    uint64_t seed;
    int64_t first;
};

/* In float32 still: what stores it in its dtype has nothing left to round. */
static void round_stochastically(const struct adamw_job *job, float *rounded, const float *weight,
                                 int64_t first, int64_t n) {
    uint32_t words[ELEMENT_BLOCK];
    random_words(words, job->seed, first, n);
    if (job->rounded == LNET_BFLOAT16)
        for (int64_t i = 0; i < n; i++) rounded[i] = lnet_round_bfloat16(weight[i], words[i]);
    else
        for (int64_t i = 0; i < n; i++) rounded[i] = lnet_round_float16(weight[i], words[i]);
}

static void kernel(const void *args, float *const *out, const float *const *in, int64_t first,
                   int64_t n) {
    const struct adamw_job *job = args;
    const struct lnet_adamw_factors f = job->factors;
    for (int64_t i = 0; i < n; i += VLEN) {
        vec g = vec_load(in[3] + i) * job->factor;
        vec m = vec_load(in[1] + i) * f.beta1 + g * f.rest1;
        vec v = vec_load(in[2] + i) * f.beta2 + g * g * f.rest2;
        vec update = m / (vec_sqrt(v) * f.root_scale + f.eps);
        vec_store(out[0] + i, vec_load(in[0] + i) * f.keep - update * f.rate);
        vec_store(out[1] + i, m);
        vec_store(out[2] + i, v);
    }
    if (job->stochastic)
        round_stochastically(job, out[3], out[0], job->first + first, n);
    else if (job->rounded != LNET_FLOAT32)
        memcpy(out[3], out[0], (size_t)n * sizeof(float));
}

lnet_status LNET_CPU(adamw)(const struct lnet_adamw_args *args, lnet_stream *stream) {
    const struct lnet_adamw_args *a = args;
    struct adamw_job job = {.factors = lnet_adamw_factors(a),
                            .factor = a->factor != NULL ? *(const float *)a->factor->data : 1.0f,
                            .stochastic = a->stochastic,
                            .rounded = a->rounded != NULL ? a->rounded->dtype : LNET_FLOAT32,
                            .seed = a->seed,
                            .first = a->first};
    (void)stream;
    if (!isfinite(job.factor)) return LNET_OK;
    return for_elements(&(struct element_job){.kernel = kernel,
                                              .args = &job,
                                              .out = {a->weight, a->m, a->v, a->rounded},
                                              .in = {a->weight, a->m, a->v, a->grad}});
}
