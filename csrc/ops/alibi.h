/* Attention with linear biases (ALiBi, arXiv 2108.12409) as dimensions of queries and keys: before
 * the D elements of each head come eight whose products sum to the bias,
 *
 *     q'.k' = q.k + m_h * b_k - c_q        c_q ~ m_h * b_q, equal for all keys of a query
 *
 * where m_h is the head's slope, already divided by the factor of scores, and b = p mod block with
 * p the position of a row: row n of x is row start + n of the sequence, and positions are counted
 * anew in each document of cu_seqlens. A softmax over keys of one block is that of the biases
 * m_h * (p_k - p_q), for c cancels there; the LSE is off by the rounding of c.
 *
 * So that nothing is lost where products are of 16 bits, b has three digits of eight bits, b = d0 +
 * 2^8 d1 + 2^16 d2, and m = m' + m" and c / 2^8 = c' + c", the first part having eight bits:
 *
 *     sign  1, queries:  -c'   -c"   2^8 m'   2^4 m'   m'   2^8 m"   2^4 m"   m"
 *     sign -1, keys:     2^8   2^8   2^8 d2   2^4 d1   d0   2^8 d2   2^4 d1   d0
 *     sign  0, values:   zeros
 *
 * They come first because sums that begin with them are as exact as those of q and k: what is large
 * has cancelled by then.
 *
 * A cu_seqlens that does not rise from 0 to start + N or more is an error on the CPU; on a GPU rows
 * that lie in none of its documents get NaN. */
#ifndef LNET_OPS_ALIBI_H
#define LNET_OPS_ALIBI_H

#include "lnet/op.h"

enum { LNET_ALIBI_EXTRA = 8, LNET_ALIBI_MAX_BLOCK = 1 << 24 };

struct lnet_alibi_args {
    lnet_tensor *out;              /* (B, N, H, 8 + D) */
    const lnet_tensor *x;          /* (B, N, H, D) */
    const lnet_tensor *slopes;     /* (H,) float32: m_h; NULL but for queries */
    const lnet_tensor *cu_seqlens; /* (S+1,) int64 or NULL, B = 1: where each document begins */
    int64_t start;                 /* 0 or more: row of the sequence that row 0 of x is */
    int64_t block;                 /* 1 to 2^24; any for values */
    int64_t sign;                  /* 1, -1 or 0 */
};

#endif
