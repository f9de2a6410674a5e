/* What both plans begin with: the levels and options of a call, and tensors as the copy engine
 * sees them. */
#include "cuda/dilated_attention_sm90_problem.cuh"

#include <algorithm>
#include <inttypes.h>
#include <limits>

namespace dilated_sm90 {
namespace {

/* Levels sparsest first: order[i] is the caller's index. */
void sort_levels(const lnet_dilation &dilation, int *order) {
    const int64_t *w = dilation.segment_lengths.items, *r = dilation.dilation_rates.items;
    const int count = static_cast<int>(dilation.segment_lengths.count);
    for (int i = 0; i < count; i++) order[i] = i;
    std::stable_sort(order, order + count,
                     [&](int a, int b) { return r[a] != r[b] ? r[a] > r[b] : w[a] > w[b]; });
}

} // namespace

divisor divisor_of(int64_t value) {
    uint32_t bits = 0;
    while (int64_t{1} << bits < value) bits++;
    const uint64_t power = uint64_t{1} << (31 + bits);
    return {static_cast<uint32_t>(value),
            static_cast<uint32_t>((power + static_cast<uint64_t>(value) - 1) /
                                  static_cast<uint64_t>(value)),
            31 + bits};
}

int padded_width(int64_t width) {
    return width <= 48 ? 48 : width <= 64 ? 64 : 128;
}

lnet_status count_processors(int *count, const lnet_stream *stream) {
    return lnet_cuda_check(
        cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, stream->device),
        "cudaDeviceGetAttribute");
}

void read_problem(problem &p, const lnet_dilation &dilation, const lnet_tensor &q,
                  const lnet_tensor &k) {
    const int64_t *shape = q.shape;
    p.batch = static_cast<int32_t>(shape[0]);
    p.rows = static_cast<int32_t>(shape[1]);
    p.heads = static_cast<int32_t>(shape[2]);
    p.kv_heads = static_cast<int32_t>(k.shape[2]);
    p.width = static_cast<int32_t>(shape[3]);
    p.level_count = static_cast<int32_t>(dilation.segment_lengths.count);
    p.offsets_grouped = dilation.offsets == LNET_OFFSETS_GROUPED;
    p.causal = dilation.causal;
    p.zero_keys = dilation.zero_keys;
    p.scale = static_cast<float>(dilation.scale * 1.4426950408889634);
    if (dilation.lengths) p.lengths = static_cast<const int64_t *>(dilation.lengths->data);
    if (dilation.cu_seqlens) {
        p.cu_seqlens = static_cast<const int64_t *>(dilation.cu_seqlens->data);
        p.documents = static_cast<int32_t>(dilation.cu_seqlens->shape[0] - 1);
    }
    int order[LNET_MAX_LEVELS];
    sort_levels(dilation, order);
    for (int i = 0; i < p.level_count; i++) {
        const int64_t rate = dilation.dilation_rates.items[order[i]];
        level &l = p.levels[i];
        l.segment = divisor_of(std::min<int64_t>(dilation.segment_lengths.items[order[i]], p.rows));
        l.rate = static_cast<int32_t>(std::min<int64_t>(rate, std::numeric_limits<int32_t>::max()));
        l.step = divisor_of(std::min(l.rate, p.rows));
        l.nested = l.segment.value % l.step.value == 0;
        l.pad = static_cast<int32_t>(ceil_div(p.rows, l.step.value) * l.step.value - p.rows);
    }
}

lnet_status find_encode(const char *op, encode_function *encode) {
    void *function = nullptr;
    cudaDriverEntryPointQueryResult result;
    cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                         cudaEnableDefault, &result);
    if (error != cudaSuccess || result != cudaDriverEntryPointSuccess)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "%s: the driver has no cuTensorMapEncodeTiled, expected CUDA 12 or later",
                         op);
    *encode = reinterpret_cast<encode_function>(function);
    return LNET_OK;
}

lnet_status describe(const char *op, encode_function encode, CUtensorMap *map, const lnet_tensor &x,
                     const level &l, int rows) {
    const cuuint64_t n = static_cast<cuuint64_t>(x.shape[1]), step = l.step.value;
    const cuuint64_t pitch = static_cast<cuuint64_t>(x.shape[2] * x.shape[3]) * 2;
    const cuuint64_t extent[5] = {static_cast<cuuint64_t>(x.shape[3]),
                                  static_cast<cuuint64_t>(x.shape[2]), step, (n + l.pad) / step,
                                  static_cast<cuuint64_t>(x.shape[0])};
    const cuuint64_t stride[4] = {static_cast<cuuint64_t>(x.shape[3]) * 2, pitch, step * pitch,
                                  n * pitch};
    const cuuint32_t box[5] = {64, 1, 1, static_cast<cuuint32_t>(rows), 1};
    const cuuint32_t ones[5] = {1, 1, 1, 1, 1};
    char *base = static_cast<char *>(x.data) - l.pad * static_cast<int64_t>(pitch);
    CUresult result = encode(map,
                             x.dtype == LNET_BFLOAT16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                      : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                             5, base, extent, stride, box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE,
                             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "%s: the driver refused a tensor map of %" PRId64 " rows, step %d (%d)",
                         op, x.shape[1], static_cast<int>(step), static_cast<int>(result));
    return LNET_OK;
}

} // namespace dilated_sm90
