/* Gradients of dilated attention on a GPU: what a GPU asks of a call, and which kernels serve it.
 */
#include "cuda/common.cuh"
#include "cuda/dilated_attention_sm80.cuh"
#include "cuda/dilated_attention_sm90.cuh"

extern "C" lnet_status
lnet_cuda_dilated_attention_backward(const struct lnet_dilated_attention_backward_args *args,
                                     lnet_stream *stream) {
    const lnet_tensor *const tensors[] = {args->dq, args->dk, args->dv, args->dout,
                                          args->q,  args->k,  args->v,  args->out};
    const bool square = args->q->shape[1] == args->k->shape[1]; /* then q has all rows */
    bool hopper = false;
    lnet_status status;
    if (args->k->shape[0] == 0 || args->k->shape[1] == 0) return LNET_OK;
    LNET_TRY(lnet_sm80_check("dilated_attention_backward", tensors, 8, &args->dilation, stream));
    if (square)
        LNET_TRY(lnet_sm90_serves_backward(&hopper, args->q, &args->dilation, stream));
    status = hopper
                 ? lnet_sm90_dilated_attention_backward(args, stream)
                 : lnet_sm80_dilated_attention_backward(args, stream);
fail:
    return status;
}
