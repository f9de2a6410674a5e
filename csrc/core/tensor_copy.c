/* Copies of tensors to, from, between and on GPUs. */
#include "lnet/device.h"

#include <string.h>

static int64_t bytes_of(const lnet_tensor *tensor) {
    return lnet_tensor_count(tensor) * (int64_t)lnet_dtype_size(tensor->dtype);
}

/* `stream` is the target's; the source lies on the same GPU or on another one. */
static lnet_status copy_on_gpus(const lnet_cuda *cuda, const lnet_tensor *target,
                                const lnet_tensor *source, lnet_stream *stream) {
    if (target->device.index == source->device.index)
        return cuda->copy_strided(target, source, stream);
    return cuda->copy_peer(target->data, source->data, source->device.index, bytes_of(source),
                           stream);
}

lnet_status lnet_tensor_copy(const lnet_tensor *target, const lnet_tensor *source) {
    const lnet_cuda *cuda;
    lnet_stream *stream;
    lnet_status status;
    const lnet_tensor *gpu = target->device.type == LNET_CUDA ? target : source;
    if (bytes_of(source) == 0) return LNET_OK;
    if (gpu->device.type == LNET_CPU) {
        memcpy(target->data, source->data, (size_t)bytes_of(source));
        return LNET_OK;
    }
    LNET_TRY(lnet_cuda_device(&cuda, gpu->device.index));
    LNET_TRY(lnet_stream_current(&stream, gpu->device.index));
    LNET_TRY(lnet_tensor_ready(source, stream));
    LNET_TRY(lnet_tensor_ready(target, stream));
    if (target->device.type == LNET_CPU)
        status = cuda->copy_out(target->data, source->data, bytes_of(source),
                                lnet_tensor_pinned(target), stream);
    else if (source->device.type == LNET_CPU)
        status = cuda->copy_in(target->data, source->data, bytes_of(source),
                               lnet_tensor_pinned(source), stream);
    else
        status = copy_on_gpus(cuda, target, source, stream);
    lnet_tensor_use(target, stream);
    lnet_tensor_use(source, stream);
fail:
    return status;
}
