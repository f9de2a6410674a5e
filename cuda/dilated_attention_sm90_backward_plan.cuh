/* What the backward plan knows of the kernels. */
#ifndef LNET_DILATED_ATTENTION_SM90_BACKWARD_PLAN_CUH
#define LNET_DILATED_ATTENTION_SM90_BACKWARD_PLAN_CUH

#include "cuda/dilated_attention_sm90_backward.cuh"

#include <cuda_runtime.h>

namespace dilated_sm90 {

int block_queries(int width); /* queries of a block */

/* `float32`: the gradients are, of 16-bit inputs. */
cudaError_t launch(const backward &p, int width, bool bfloat16, bool float32, int processors,
                   cudaStream_t stream);

} // namespace dilated_sm90

#endif
