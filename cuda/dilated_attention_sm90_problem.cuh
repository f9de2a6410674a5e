/* What the plans of both directions share. */
#ifndef LNET_DILATED_ATTENTION_SM90_PROBLEM_CUH
#define LNET_DILATED_ATTENTION_SM90_PROBLEM_CUH

#include "cuda/dilated_attention_sm90_forward.cuh"

#include "cuda/common.cuh"

extern "C" {
#include "ops/dilated_attention.h"
}

namespace dilated_sm90 {

inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

divisor divisor_of(int64_t value);
int padded_width(int64_t width); /* the instance that serves a head dim */
lnet_status count_processors(int *count, const lnet_stream *stream);

/* The fields of a zeroed problem that the call gives. */
void read_problem(problem &p, const lnet_dilation &dilation, const lnet_tensor &q,
                  const lnet_tensor &k);

/* NaN in the rows of (B, N, ..) tensors whose lengths or cu_seqlens are such as the CPU refuses:
 * what is on a GPU cannot be looked at without waiting for it. `lse` is (B, H, N) or NULL. */
lnet_status mark_impossible(const problem &p, lnet_tensor *const *tensors, int count,
                            lnet_tensor *lse, cudaStream_t stream);

typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                    const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                    const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

lnet_status find_encode(const char *op, encode_function *encode);

/* x (B, N, heads, D) as (D, heads, phase, j, B), in boxes of 64 columns and `rows` rows. */
lnet_status describe(const char *op, encode_function encode, CUtensorMap *map, const lnet_tensor &x,
                     const level &l, int rows);

} // namespace dilated_sm90

#endif
