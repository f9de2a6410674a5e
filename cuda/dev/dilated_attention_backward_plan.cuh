/* What the backward plan knows of the kernels. */
#ifndef LNET_DILATED_ATTENTION_BACKWARD_PLAN_CUH
#define LNET_DILATED_ATTENTION_BACKWARD_PLAN_CUH

#include "dilated_attention_backward.cuh"

#include <cuda_runtime.h>

namespace dilated {

int block_queries(int width); /* queries of a block */

cudaError_t launch(const backward &p, int width, bool bfloat16, int processors,
                   cudaStream_t stream);

} // namespace dilated

#endif
