/* Rotary position embedding (RoPE, arXiv 2104.09864) and xPos (arXiv 2212.10554): row n of x is
 * row start + n of the sequence and stands at that position p, which is counted anew in each
 * document of cu_seqlens. The pair x[2i], x[2i+1] of each head is turned by an angle and, for xPos,
 * stretched:
 *
 *     out[2i]   = z * (x[2i] * cos(a) - x[2i+1] * sin(a))      a = p * base^(-2i/D)
 *     out[2i+1] = z * (x[2i] * sin(a) + x[2i+1] * cos(a))
 *
 *     z = 1                                                       where scale_base is 0 (RoPE)
 *     z = zeta_i^(sign * ((p mod block) - block/2) / scale_base)  else, zeta_i = (2i/D + 0.4) / 1.4
 *
 * with sign +1 for queries and -1 for keys, so that q.k depends on the distance of two rows alone.
 * The published xPos lets the power grow with p until it overflows; here it begins again in every
 * block. Attention sees no pair of rows from two blocks where every segment length divides `block`.
 *
 * A cu_seqlens that does not rise from 0 to start + N or more is an error on the CPU. A GPU cannot
 * look without waiting: there rows that lie in none of its documents become NaN.
 *
 * `inverse` applies the transpose of this map, which is its gradient. `out` may be x. */
#ifndef LNET_OPS_ROTARY_H
#define LNET_OPS_ROTARY_H

#include "lnet/op.h"

struct lnet_rotary_args {
    lnet_tensor *out;              /* (B, N, H, D) */
    const lnet_tensor *x;          /* (B, N, H, D), D even */
    const lnet_tensor *cu_seqlens; /* (S+1,) int64 or NULL, B = 1: where each document begins */
    int64_t start;                 /* 0 or more: row of the sequence that row 0 of x is */
    double base;                   /* above 0 */
    double scale_base;             /* 0 or more */
    int64_t block;                 /* 1 or more where scale_base is not 0 */
    bool inverse;
    int64_t sign; /* +1 or -1 */
};

#endif
