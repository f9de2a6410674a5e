/* Dilated attention (LongNet, arXiv 2307.02486, section 2.2 and equations 5-15).
 *
 * Level i is a pair (segment length w, dilation rate r), 1 <= r <= w. Row n of a sequence lies in
 * segment n / w at p = n mod w; head h takes part there iff p mod r == s(h), where the offset s is
 *
 *     interleaved   s(h) = h mod r            (the paper)
 *     grouped       s(h) = h / ceil(H / r)    (torchscale)
 *
 * A query that takes part sees every key of its segment that takes part (and is not later, when
 * causal). k and v have all N rows of a sequence; q may have some of them: its row i is row
 * query_start + i, and whatever is said of rows here is said of the N. dk and dv are what these
 * queries add, 0 where none looks. The levels are mixed by their softmax denominators: one softmax
 * over the multiset union of their keys,
 *
 *     LSE[n] = log sum_i sum_{m in level i} exp(s_nm),   s_nm = scale * q[n] . k[m]
 *     O[n]   = sum_i sum_{m in level i} exp(s_nm - LSE[n]) v[m]
 *
 * and O = 0, LSE = -inf where no level covers (n, h). With dropout p a kept term of O, but not of
 * LSE, is divided by 1 - p and the others are dropped.
 *
 * Backward: P = exp(s - LSE), dV += P^T dO, dS = P * (dO V^T - delta), dQ += scale * dS K,
 * dK += scale * dS^T Q, with delta = rowsum(dO * O). `detached` (torchscale) holds the mixing
 * weights constant: delta is rowsum(dO * O_i) with O_i the level's own normalised output.
 *
 * zero_keys (torchscale's padding): in every segment of length w' = min(w, N), each p in
 * [real length, ceil(w' / r) * r) with p mod r == s(h) is a key of zeros, which adds exp(0) to the
 * denominator and nothing to the sum. A causal query never sees one.
 *
 * Dropout draws its word for query n and key m of a level from the Philox counter
 *
 *     low  = jk / 4 | jq << 32          j = (p - s) / r, the row's place among those taking part
 *     high = start mod 2^32 | (level | (b * H + h) << 6) << 32     start: the segment's first row,
 *                                                                  counted from row 0 of batch b
 *
 * and key seed ^ (start >> 32) << 32, word jk mod 4; the term is kept iff the word is at or above
 * p * 2^32. `start` and `level` count from first_row and first_level: a part of a longer sequence,
 * or some of its levels, draws the words of the whole. */
#ifndef LNET_OPS_DILATED_ATTENTION_H
#define LNET_OPS_DILATED_ATTENTION_H

#include "lnet/op.h"

enum { LNET_OFFSETS_INTERLEAVED, LNET_OFFSETS_GROUPED };
enum { LNET_MAX_LEVELS = 64, LNET_MAX_BATCH_HEADS = 1 << 26 };

struct lnet_dilation {
    lnet_int64_list segment_lengths; /* w_i */
    lnet_int64_list dilation_rates;  /* r_i */
    int64_t offsets;                 /* LNET_OFFSETS_... */
    bool causal;
    bool detached;
    bool zero_keys;
    bool deterministic; /* the same bits of gradients every time, on a GPU too */
    double scale;
    double dropout; /* p in [0, 1) */
    uint64_t seed;
    int64_t query_start;            /* row of the sequence that q's row 0 is */
    int64_t first_row, first_level; /* of dropout: what row 0 and level 0 count as */
    const lnet_tensor *lengths;     /* (B,) int64 or NULL: rows of each batch item that exist */
    const lnet_tensor *cu_seqlens;  /* (S+1,) int64 or NULL, B = 1: where each document begins */
};

struct lnet_dilated_attention_args {
    lnet_tensor *out;     /* (B, Nq, H, D) */
    lnet_tensor *lse;     /* (B, H, Nq) float32 */
    const lnet_tensor *q; /* (B, Nq, H, D) */
    const lnet_tensor *k; /* (B, N, Hk, D), H a multiple of Hk; head h reads h / (H / Hk) */
    const lnet_tensor *v; /* (B, N, Hk, D) */
    struct lnet_dilation dilation;
};

struct lnet_dilated_attention_backward_args {
    lnet_tensor *dq;         /* (B, Nq, H, D); all three float32, or of the dtype of q */
    lnet_tensor *dk;         /* (B, N, Hk, D) */
    lnet_tensor *dv;         /* (B, N, Hk, D) */
    const lnet_tensor *dout; /* (B, Nq, H, D) */
    const lnet_tensor *q;    /* (B, Nq, H, D) */
    const lnet_tensor *k;    /* (B, N, Hk, D) */
    const lnet_tensor *v;    /* (B, N, Hk, D) */
    const lnet_tensor *out;  /* (B, Nq, H, D) */
    const lnet_tensor *lse;  /* (B, H, Nq) float32 */
    struct lnet_dilation dilation;
};

/* The levels and options are possible; `op` begins the message. */
lnet_status lnet_dilation_check(const char *op, const struct lnet_dilation *dilation);

/* Likewise, and q, k, v and what says which rows exist fit each other: to be asked before outputs
 * like q are made. */
lnet_status lnet_dilated_attention_check_inputs(const char *op,
                                                const struct lnet_dilation *dilation,
                                                const lnet_tensor *q, const lnet_tensor *k,
                                                const lnet_tensor *v);

/* s(h) of a level. */
static inline int64_t lnet_head_offset(int64_t offsets, int64_t head, int64_t heads, int64_t rate) {
    return offsets == LNET_OFFSETS_GROUPED ? head / ((heads + rate - 1) / rate) : head % rate;
}

#endif
