/* What the plan knows of the kernels: an instance serves all head dims up to its width. */
#ifndef LNET_DILATED_ATTENTION_SM90_FORWARD_PLAN_CUH
#define LNET_DILATED_ATTENTION_SM90_FORWARD_PLAN_CUH

#include "cuda/dilated_attention_sm90_forward.cuh"

#include <cuda_runtime.h>

namespace dilated_sm90 {

int state_stride(int width);     /* floats of a row of scratch */
int block_keys(int width);       /* keys of a block */
int tile_rows(int width);        /* rows of a tile */

cudaError_t launch(const forward &p, int width, bool bfloat16, int blocks, cudaStream_t stream);

} // namespace dilated_sm90

#endif
