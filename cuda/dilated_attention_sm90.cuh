/* Dilated attention on Hopper. */
#ifndef LNET_DILATED_ATTENTION_SM90_CUH
#define LNET_DILATED_ATTENTION_SM90_CUH

#include "cuda/common.cuh"

extern "C" {
#include "ops/dilated_attention.h"
}

/* Whether these kernels take a call on the stream's device: 16-bit tensors with head dims up to
 * 128, without dropout, unless LONGNET_CUDA_KERNELS=sm80; backward neither detached nor
 * deterministic, as dQ is added up in whatever order blocks come to it. */
lnet_status lnet_sm90_serves(bool *serves, const lnet_tensor *q,
                             const struct lnet_dilation *dilation, const lnet_stream *stream);
lnet_status lnet_sm90_serves_backward(bool *serves, const lnet_tensor *q,
                                      const struct lnet_dilation *dilation,
                                      const lnet_stream *stream);

/* Checked arguments (csrc/ops/dilated_attention.c, lnet_sm80_check), some rows. */
lnet_status lnet_sm90_dilated_attention(const struct lnet_dilated_attention_args *args,
                                        lnet_stream *stream);
lnet_status
lnet_sm90_dilated_attention_backward(const struct lnet_dilated_attention_backward_args *args,
                                     lnet_stream *stream);

#endif
