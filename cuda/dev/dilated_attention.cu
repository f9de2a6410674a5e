/* Dilated attention on a GPU: which kernels serve it, and their scratch. */
#include "cuda/common.cuh"
#include "cuda/dev/dilated_attention_sm90.h"

#include <mutex>

static lnet_status check_device(const char *op, const lnet_tensor *q, int32_t device) {
    int major = 0;
    lnet_status status;
    LNET_CUDA_TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    if (major != 9)
        return lnet_fail(LNET_DEVICE_ERROR, "%s: compute capability %d, expected 9 (Hopper)", op,
                         major);
    if (q->dtype == LNET_FLOAT32)
        return lnet_fail(LNET_DTYPE_ERROR,
                         "%s: q: dtype float32, expected float16 or bfloat16 on a GPU", op);
fail:
    return status;
}

extern "C" lnet_status lnet_cuda_dilated_attention(const struct lnet_dilated_attention_args *args,
                                                   lnet_stream *stream) {
    static std::mutex scratch_in_use;
    size_t bytes;
    void *scratch;
    lnet_status status;
    std::lock_guard<std::mutex> guard(scratch_in_use);
    LNET_TRY(check_device("dilated_attention", args->q, stream->device));
    if (args->dilation.dropout > 0)
        return lnet_fail(LNET_VALUE_ERROR, "dilated_attention: dropout %g, expected 0 on a GPU",
                         args->dilation.dropout);
    if (args->q->shape[0] == 0 || args->q->shape[1] == 0) return LNET_OK;
    LNET_TRY(lnet_sm90_dilated_attention_scratch(args, &bytes));
    LNET_TRY(lnet_cuda_scratch(&scratch, static_cast<int64_t>(bytes), stream));
    status = lnet_sm90_dilated_attention(args, scratch, static_cast<lnet_stream *>(stream->handle));
fail:
    return status;
}
