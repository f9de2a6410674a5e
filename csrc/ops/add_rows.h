/* What gather_rows has read gives back its gradient, in place (ops/stepped_rows.h):
 *
 *     x[b, n, g] += sum over the heads h of group g of part[b * H + h, m]
 *
 * with n = starts[h] + m * step; rows outside [0, N) are left out.
 *
 * Head h belongs to group h / (H / Hx). The sum is made in float32, in the order of the heads, and
 * rounded once (on a GPU once for each 128 heads of a group). */
#ifndef LNET_OPS_ADD_ROWS_H
#define LNET_OPS_ADD_ROWS_H

#include "ops/stepped_rows.h"

struct lnet_add_rows_args {
    lnet_tensor *x; /* (B, N, Hx, D); of it and part one may be float32, or both have one dtype */
    const lnet_tensor *part; /* (B*H, M, D), H a multiple of Hx */
    lnet_int64_list starts;  /* H numbers */
    int64_t step;            /* 1 or more */
};

#endif
