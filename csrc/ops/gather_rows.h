/* Rows a step apart, head by head (ops/stepped_rows.h), side by side:
 *
 *     out[b * H + h, m] = x[b, n, h / (H / Hx)]      n = starts[h] + m * step
 *
 * and 0 where n is outside [0, N). With an LSE for x: out[b * H + h, m] = x[b, h, n], and -inf
 * outside. */
#ifndef LNET_OPS_GATHER_ROWS_H
#define LNET_OPS_GATHER_ROWS_H

#include "ops/stepped_rows.h"

struct lnet_gather_rows_args {
    lnet_tensor *out;       /* (B*H, M, D), or (B*H, M) float32 */
    const lnet_tensor *x;   /* (B, N, Hx, D), H a multiple of Hx; or (B, H, N) float32 */
    lnet_int64_list starts; /* H numbers */
    int64_t step;           /* 1 or more */
};

#endif
