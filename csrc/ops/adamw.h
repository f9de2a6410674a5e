/* One step of AdamW (Loshchilov and Hutter, arXiv 1711.05101), with t = step and
 * g = factor * grad:
 *
 *     m      = beta1 * m + (1 - beta1) * g
 *     v      = beta2 * v + (1 - beta2) * g^2
 *     weight = weight - learning_rate * weight_decay * weight
 *                     - learning_rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
 *
 * `rounded` gets the new weight in its dtype: rounded to nearest even, or stochastically, as
 * lnet/rounding.h says, element i by word i mod 4 of Philox counter i / 4 under key `seed`. A
 * consecutive part of a weight, which begins at its element `first`, draws the words that are its
 * own in a call on the whole.
 *
 * `factor`, clipping's and the mean's, is a number on the tensors' device, or 1. Where it is not
 * finite nothing changes. */
#ifndef LNET_OPS_ADAMW_H
#define LNET_OPS_ADAMW_H

#include "lnet/op.h"

#include <math.h>

struct lnet_adamw_args {
    lnet_tensor *weight;       /* (...) float32, updated */
    lnet_tensor *m;            /* (...) float32, updated */
    lnet_tensor *v;            /* (...) float32, updated */
    lnet_tensor *rounded;      /* (...) float16 or bfloat16, or NULL */
    const lnet_tensor *grad;   /* (...) float32, float16 or bfloat16 */
    const lnet_tensor *factor; /* (1,) float32, or NULL */
    double learning_rate;
    double beta1; /* in [0, 1) */
    double beta2; /* in [0, 1) */
    double eps;   /* 0 or more */
    double weight_decay;
    int64_t step;    /* 1 or more */
    bool stochastic; /* with `rounded` */
    uint64_t seed;   /* of stochastic rounding */
    int64_t first;   /* 0 or more, a multiple of 4 */
};

/* A step as numbers that are computed once:
 * weight = keep * weight - rate * m / (sqrt(v) * root_scale + eps). */
struct lnet_adamw_factors {
    float beta1, beta2, rest1, rest2, keep, rate, root_scale, eps;
};

static inline struct lnet_adamw_factors lnet_adamw_factors(const struct lnet_adamw_args *args) {
    struct lnet_adamw_factors f;
    double step = (double)args->step;
    f.beta1 = (float)args->beta1;
    f.beta2 = (float)args->beta2;
    f.rest1 = (float)(1.0 - args->beta1);
    f.rest2 = (float)(1.0 - args->beta2);
    f.keep = (float)(1.0 - args->learning_rate * args->weight_decay);
    f.rate = (float)(args->learning_rate / (1.0 - pow(args->beta1, step)));
    f.root_scale = (float)(1.0 / sqrt(1.0 - pow(args->beta2, step)));
    f.eps = (float)args->eps;
    return f;
}

#endif
