/* One step of AdamW (Loshchilov and Hutter, arXiv 1711.05101), with t = step and g = grad_scale *
 * grad:
 *
 *     m      = beta1 * m + (1 - beta1) * g
 *     v      = beta2 * v + (1 - beta2) * g^2
 *     weight = weight - learning_rate * weight_decay * weight
 *                     - learning_rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) */
#ifndef LNET_OPS_ADAMW_H
#define LNET_OPS_ADAMW_H

#include "lnet/op.h"

struct lnet_adamw_args {
    lnet_tensor *weight;     /* (...) float32, updated */
    lnet_tensor *m;          /* (...) float32, updated */
    lnet_tensor *v;          /* (...) float32, updated */
    const lnet_tensor *grad; /* (...) float32 */
    double learning_rate;
    double beta1; /* in [0, 1) */
    double beta2; /* in [0, 1) */
    double eps;   /* 0 or more */
    double weight_decay;
    int64_t step;      /* 1 or more */
    double grad_scale; /* clipping's and the mean's factor */
};

#endif
