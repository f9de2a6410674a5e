/* Dilated attention on sm_90a, as the backend calls it. */
#ifndef LNET_DILATED_ATTENTION_SM90_H
#define LNET_DILATED_ATTENTION_SM90_H

#ifdef __cplusplus
extern "C" {
#endif
#include "ops/dilated_attention.h"

/* Bytes of scratch that a call with these arguments needs: zeroed once, left with zeros where it
 * matters, one call at a time. */
lnet_status lnet_sm90_dilated_attention_scratch(const struct lnet_dilated_attention_args *args,
                                                size_t *bytes);

/* Checked arguments (csrc/ops/dilated_attention.c), all on the current device. */
lnet_status lnet_sm90_dilated_attention(const struct lnet_dilated_attention_args *args,
                                        void *scratch, lnet_stream *stream);

/* Likewise backward; the scratch may hold anything. */
lnet_status lnet_sm90_dilated_attention_backward_scratch(
    const struct lnet_dilated_attention_backward_args *args, size_t *bytes);
lnet_status
lnet_sm90_dilated_attention_backward(const struct lnet_dilated_attention_backward_args *args,
                                     void *scratch, lnet_stream *stream);
#ifdef __cplusplus
}
#endif

#endif
