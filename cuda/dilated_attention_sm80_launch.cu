/* The calls of the kernels for Ampere and later. */
#include "cuda/dilated_attention_sm80.cuh"
#include "cuda/dilated_attention_sm80_backward.cuh"
#include "cuda/dilated_attention_sm80_forward.cuh"

using namespace dilated_sm80;

static instance forward_kernel_of(lnet_dtype dtype, int64_t width, bool dropout) {
    return dtype == LNET_FLOAT16    ? forward_float16(width, dropout)
           : dtype == LNET_BFLOAT16 ? forward_bfloat16(width, dropout)
                                    : forward_float32(width, dropout);
}

static instance backward_kernel_of(lnet_dtype dtype, lnet_dtype gradient, int64_t width,
                                   pass which) {
    if (gradient != dtype)
        return dtype == LNET_FLOAT16 ? backward_float16_to_float32(width, which)
                                     : backward_bfloat16_to_float32(width, which);
    return dtype == LNET_FLOAT16    ? backward_float16(width, which)
           : dtype == LNET_BFLOAT16 ? backward_bfloat16(width, which)
                                    : backward_float32(width, which);
}

/* Float32 sums rest in the output itself. */
static float *resting_place(const lnet_tensor *output) {
    return output->dtype == LNET_FLOAT32 ? static_cast<float *>(output->data) : nullptr;
}

lnet_status lnet_sm80_dilated_attention(const struct lnet_dilated_attention_args *args,
                                        lnet_stream *stream) {
    const struct lnet_dilation *dilation = &args->dilation;
    const lnet_tensor *q = args->q;
    forward_call call = {};
    launch l = {};
    uncovered_rows rows = {args->out->data, static_cast<float *>(args->lse->data),
                           static_cast<uint32_t>(q->shape[2]), 1};
    lnet_status status;
    l.dilation = dilation;
    l.q = q;
    l.k = args->k;
    l.kernel = forward_kernel_of(q->dtype, q->shape[3], dilation->dropout > 0);
    l.sums = 1;
    l.outputs[0] = resting_place(args->out);
    LNET_TRY(open_launch(&l, &call.work, &call.sums, stream));
    call.out = args->out->data;
    call.lse = static_cast<float *>(args->lse->data);
    call.q = q->data;
    call.k = args->k->data;
    call.v = args->v->data;
    call.drop = dropout_of(dilation);
    split_scale(dilation->scale, &call.scale, &call.sign);
    LNET_TRY(run_launch(&l, &call, "dilated_attention: attend_all", stream));
    status = fill_uncovered(&l, call.work.p, rows, q->dtype, stream);
fail:
    close_launch(&l, stream);
    return status;
}

/* One of the kernels, and the rows of its gradients that no level takes. */
static lnet_status run_pass(const struct lnet_dilated_attention_backward_args *args, pass which,
                            float *delta, lnet_stream *stream) {
    const struct lnet_dilation *dilation = &args->dilation;
    const lnet_tensor *q = args->q, *k = args->k;
    const bool keys = which != OF_QUERIES;
    const lnet_tensor *const outputs[] = {which == OF_QUERIES     ? args->dq
                                          : which == OF_KEYS_DV ? args->dv
                                                                  : args->dk,
                                          args->dv};
    backward_call call = {};
    launch l = {};
    lnet_status status;
    l.dilation = dilation;
    l.q = q;
    l.k = k;
    l.kernel = backward_kernel_of(q->dtype, outputs[0]->dtype, q->shape[3], which);
    l.share_keys = keys;
    l.sums = which == OF_KEYS ? 2 : 1;
    for (int i = 0; i < l.sums; i++) l.outputs[i] = resting_place(outputs[i]);
    LNET_TRY(open_launch(&l, &call.work, call.sums, stream));
    call.q = q->data;
    call.k = k->data;
    call.v = args->v->data;
    call.dout = args->dout->data;
    call.lse = static_cast<const float *>(args->lse->data);
    call.delta = delta;
    for (int i = 0; i < l.sums; i++) call.out[i] = outputs[i]->data;
    call.drop = dropout_of(dilation);
    call.detached = dilation->detached;
    call.gradient = static_cast<float>(dilation->scale);
    split_scale(dilation->scale, &call.scale, &call.sign);
    LNET_TRY(run_launch(&l, &call, "dilated_attention_backward: differentiate_all", stream));
    for (int i = 0; i < l.sums; i++) {
        const int64_t heads = outputs[i]->shape[2];
        uncovered_rows rows = {outputs[i]->data, nullptr, static_cast<uint32_t>(heads),
                               static_cast<uint32_t>(q->shape[2] / heads)};
        LNET_TRY(fill_uncovered(&l, call.work.p, rows, outputs[i]->dtype, stream));
    }
fail:
    close_launch(&l, stream);
    return status;
}

lnet_status
lnet_sm80_dilated_attention_backward(const struct lnet_dilated_attention_backward_args *args,
                                     lnet_stream *stream) {
    const int64_t *shape = args->q->shape;
    const int64_t levels = args->dilation.detached ? args->dilation.segment_lengths.count : 1;
    const int64_t bytes =
        levels * shape[0] * shape[1] * shape[2] * static_cast<int64_t>(sizeof(float));
    void *delta = nullptr;
    lnet_status status;
    if (shape[1] > 0) {
        LNET_TRY(lnet_cuda_host->alloc(&delta, bytes, stream));
        if (!args->dilation.detached)
            LNET_TRY(sum_deltas(static_cast<float *>(delta), args->dout, args->out, stream));
        LNET_TRY(run_pass(args, OF_QUERIES, static_cast<float *>(delta), stream));
    }
    if (shape[3] <= 128) {
        LNET_TRY(run_pass(args, OF_KEYS, static_cast<float *>(delta), stream));
    } else {
        LNET_TRY(run_pass(args, OF_KEYS_DK, static_cast<float *>(delta), stream));
        LNET_TRY(run_pass(args, OF_KEYS_DV, static_cast<float *>(delta), stream));
    }
fail:
    if (delta != nullptr) lnet_cuda_host->free(delta, bytes, stream);
    return status;
}

lnet_status lnet_sm80_check(const char *op, const lnet_tensor *const *tensors, int count,
                            const struct lnet_dilation *dilation, const lnet_stream *stream) {
    int major = 0, minor = 0;
    lnet_status status;
    LNET_CUDA_TRY(
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, stream->device));
    LNET_CUDA_TRY(
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, stream->device));
    if (major < 8)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "%s: a GPU of compute capability %d.%d, expected 8.0 (Ampere) or later",
                         op, major, minor);
    for (int i = 0; i < count; i++)
        if (reinterpret_cast<uintptr_t>(tensors[i]->data) % 16 != 0)
            return lnet_fail(LNET_VALUE_ERROR,
                             "%s: tensor %d begins at %p, expected a multiple of 16 bytes", op, i,
                             tensors[i]->data);
    if (dilation->cu_seqlens != NULL && dilation->cu_seqlens->shape[0] < 2)
        return lnet_fail(LNET_VALUE_ERROR, "%s: cu_seqlens of no documents for rows", op);
fail:
    return status;
}
