/* Two softmaxes over different keys become one over all of them, in place, for rows a step apart
 * (ops/stepped_rows.h): with l = lse[b, h, n], p = part_lse[b * H + h, m], n = starts[h] + m * step
 *
 *     L            = log(exp(l) + exp(p))
 *     out[b, n, h] = exp(l - L) * out[b, n, h] + exp(p - L) * part[b * H + h, m]
 *     lse[b, h, n] = L
 *
 * A side whose LSE is -inf has no keys and is not looked at; where both are -inf, `out` and `lse`
 * stay as they are. */
#ifndef LNET_OPS_MERGE_ROWS_H
#define LNET_OPS_MERGE_ROWS_H

#include "ops/stepped_rows.h"

struct lnet_merge_rows_args {
    lnet_tensor *out;            /* (B, N, H, D), float32 or the dtype of part */
    lnet_tensor *lse;            /* (B, H, N) float32 */
    const lnet_tensor *part;     /* (B*H, M, D) */
    const lnet_tensor *part_lse; /* (B*H, M) float32 */
    lnet_int64_list starts;      /* H numbers */
    int64_t step;                /* 1 or more */
};

#endif
