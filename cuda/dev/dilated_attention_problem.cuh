/* What the plans of both directions share. */
#ifndef LNET_DILATED_ATTENTION_PROBLEM_CUH
#define LNET_DILATED_ATTENTION_PROBLEM_CUH

#include "dilated_attention.cuh"

extern "C" {
#include "ops/dilated_attention.h"
}

#include <cuda_runtime.h>

namespace dilated {

inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

divisor divisor_of(int64_t value);
int padded_width(int64_t width); /* the instance that serves a head dim */
int processor_count();

/* Of the last launch. */
lnet_status launched(const char *op, cudaError_t error);

/* The fields of a zeroed problem that the call gives. */
lnet_status read_problem(problem &p, const char *op, const lnet_dilation &dilation,
                         const lnet_tensor &q, const lnet_tensor &k);

typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                    const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                    const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

lnet_status find_encode(const char *op, encode_function *encode);

/* x (B, N, heads, D) as (D, heads, phase, j, B), in boxes of 64 columns and `rows` rows. */
lnet_status describe(const char *op, encode_function encode, CUtensorMap *map, const lnet_tensor &x,
                     const level &l, int rows);

} // namespace dilated

#endif
