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
 * For contexts longer than those trained on, `factor` times as long, the frequencies t_i =
 * base^(-2i/D) of pairs that turn seldom are divided by it (YaRN, arXiv 2309.00071, "by parts"):
 *
 *     t_i * (g_i + (1 - g_i) / factor)      g_i = (length * t_i / (2 pi) - slow) / (fast - slow)
 *
 * with g_i held in [0, 1]: the turns that pair i makes in the `length` positions trained on, from
 * slow (g = 0) to fast (g = 1). Without a length g_i is 0: every position is divided by the factor
 * (position interpolation, arXiv 2306.15595). A factor of 1, or none, changes no bit.
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
    int64_t sign;      /* +1 or -1 */
    double factor;     /* 1 or more, or 0 for 1 */
    int64_t length;    /* 0 or more */
    double slow, fast; /* where length is not 0, slow < fast */
};

/* A pair's frequency, given base^(-2i/D). In long double: times 2^40 turns must keep their
 * fraction.
 */
static inline long double lnet_rotary_frequency(const struct lnet_rotary_args *args,
                                                long double frequency) {
    const long double whole_turn = 2.0L * 3.14159265358979323846264338327950288L;
    long double kept = 0.0L;
    if (args->factor == 0.0 || args->factor == 1.0) return frequency;
    if (args->length > 0) {
        long double turns = (long double)args->length * frequency / whole_turn;
        kept = (turns - (long double)args->slow) / ((long double)args->fast - args->slow);
        kept = kept < 0.0L ? 0.0L : kept > 1.0L ? 1.0L : kept;
    }
    return frequency * (kept + (1.0L - kept) / (long double)args->factor);
}

#endif
