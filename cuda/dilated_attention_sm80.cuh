/* Dilated attention on any GPU with tensor cores that multiply bfloat16: Ampere and later. */
#ifndef LNET_DILATED_ATTENTION_SM80_CUH
#define LNET_DILATED_ATTENTION_SM80_CUH

extern "C" {
#include "ops/dilated_attention.h"
}

/* Everything that ops/dilated_attention.h describes, deterministic; forward has some queries. */
lnet_status lnet_sm80_dilated_attention(const struct lnet_dilated_attention_args *args,
                                        lnet_stream *stream);
lnet_status
lnet_sm80_dilated_attention_backward(const struct lnet_dilated_attention_backward_args *args,
                                     lnet_stream *stream);

/* What a GPU asks of a call beside the op's own checks: its compute capability, tensors at
 * multiples of 16 bytes, documents at all. */
lnet_status lnet_sm80_check(const char *op, const lnet_tensor *const *tensors, int count,
                            const struct lnet_dilation *dilation, const lnet_stream *stream);

#endif
