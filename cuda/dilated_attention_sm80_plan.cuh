/* Host side of the kernels for Ampere and later: how a call is cut into groups of items, the
 * scratch it needs, and its launch. */
#ifndef LNET_DILATED_ATTENTION_SM80_PLAN_CUH
#define LNET_DILATED_ATTENTION_SM80_PLAN_CUH

extern "C" {
#include "ops/dilated_attention.h"
}

#include "cuda/common.cuh"
#include "cuda/dilated_attention_sm80_dropout.cuh"
#include "cuda/dilated_attention_sm80_queue.cuh"

namespace dilated_sm80 {

/* What a kernel of the backward pass makes: dQ; dK and dV; or, for wide heads, one of these. */
enum pass : int { OF_QUERIES, OF_KEYS, OF_KEYS_DK, OF_KEYS_DV };

/* A kernel for one dtype and width, and the shape of its blocks. */
struct instance {
    const void *kernel;
    uint32_t tile_rows;
    int threads, shared_bytes;
};

/* What the kernels' files offer: for head dims up to `width`. */
instance forward_float16(int64_t width, bool dropout);
instance forward_bfloat16(int64_t width, bool dropout);
instance forward_float32(int64_t width, bool dropout);
instance backward_float16(int64_t width, pass which);
instance backward_bfloat16(int64_t width, pass which);
instance backward_float32(int64_t width, pass which);
instance backward_float16_to_float32(int64_t width, pass which);
instance backward_bfloat16_to_float32(int64_t width, pass which);

/* One launch of a kernel over all items. */
struct launch {
    const struct lnet_dilation *dilation;
    const lnet_tensor *q, *k;
    instance kernel;
    bool share_keys;      /* items are of keys, and sums of kv heads */
    int sums;             /* outputs whose rows rest between levels: 1 or 2 */
    float *outputs[2];    /* they rest there where these are not NULL, else in scratch */
    void *memory;         /* scratch, of open_launch() */
    int64_t bytes;
    int blocks;
};

/* Fills in the queue and the sums of a call, with scratch that close_launch() gives back. */
lnet_status open_launch(launch *l, queue *work, resting_sums *sums, lnet_stream *stream);
lnet_status run_launch(const launch *l, const void *call, const char *name, lnet_stream *stream);
void close_launch(const launch *l, lnet_stream *stream);

/* Zeros, and an LSE of -inf, for rows that no level takes: rows of tensors (B, N, heads, D), or
 * (B, Nq, heads, D) where items are of queries; `members` query heads see one head of the tensor.
 * NaN where lengths or cu_seqlens are such as the CPU refuses. */
struct uncovered_rows {
    void *tensor;
    float *lse; /* (B, H, Nq) or NULL */
    uint32_t heads, members;
};
lnet_status fill_uncovered(const launch *l, const plan &p, const uncovered_rows &rows,
                           lnet_dtype dtype, lnet_stream *stream);

/* delta (B, H, Nq) = rowsum(dout * out) */
lnet_status sum_deltas(float *delta, const lnet_tensor *dout, const lnet_tensor *out,
                       lnet_stream *stream);

dropout dropout_of(const struct lnet_dilation *dilation);

/* The scale of scores as powers of 2, positive, and its sign, 0 for a scale of 0. */
void split_scale(double scale, float *power, float *sign);

} // namespace dilated_sm80

#endif
