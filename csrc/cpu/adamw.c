#include "ops/adamw.h"

#include "cpu/elements.h"
#include "cpu/functions.h"

/* The step as factors that are computed once: weight = keep * weight - rate * m / (sqrt(v) *
 * root_scale + eps). */
struct factors {
    float beta1, beta2, rest1, rest2, grad_scale, keep, rate, root_scale, eps;
};

static void kernel(const void *args, float *const *out, const float *const *in, int64_t first,
                   int64_t n) {
    const struct factors f = *(const struct factors *)args;
    (void)first;
    for (int64_t i = 0; i < n; i += VLEN) {
        vec g = vec_load(in[3] + i) * f.grad_scale;
        vec m = vec_load(in[1] + i) * f.beta1 + g * f.rest1;
        vec v = vec_load(in[2] + i) * f.beta2 + g * g * f.rest2;
        vec update = m / (vec_sqrt(v) * f.root_scale + f.eps);
        vec_store(out[0] + i, vec_load(in[0] + i) * f.keep - update * f.rate);
        vec_store(out[1] + i, m);
        vec_store(out[2] + i, v);
    }
}

lnet_status LNET_CPU(adamw)(const struct lnet_adamw_args *args, lnet_stream *stream) {
    const struct lnet_adamw_args *a = args;
    struct factors f = {
        .beta1 = (float)a->beta1,
        .beta2 = (float)a->beta2,
        .rest1 = (float)(1.0 - a->beta1),
        .rest2 = (float)(1.0 - a->beta2),
        .grad_scale = (float)a->grad_scale,
        .keep = (float)(1.0 - a->learning_rate * a->weight_decay),
        .rate = (float)(a->learning_rate / (1.0 - pow(a->beta1, (double)a->step))),
        .root_scale = (float)(1.0 / sqrt(1.0 - pow(a->beta2, (double)a->step))),
        .eps = (float)a->eps,
    };
    (void)stream;
    return for_elements(&(struct element_job){.kernel = kernel,
                                              .args = &f,
                                              .out = {a->weight, a->m, a->v},
                                              .in = {a->weight, a->m, a->v, a->grad}});
}
