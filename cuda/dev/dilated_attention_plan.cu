/* Host side of dilated attention on sm_90a: cuts the work into units, orders them, describes q, k
 * and v to the copy engine, and launches. */
#include "dilated_attention_plan.cuh"
#include "dilated_attention_sm90.h"

#include <algorithm>
#include <cmath>
#include <cuda_runtime.h>
#include <inttypes.h>
#include <limits>
#include <string.h>

namespace dilated {
namespace {

const char OP[] = "dilated_attention";

int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

lnet_status cuda_failed(cudaError_t error, const char *what) {
    return lnet_fail(error == cudaErrorMemoryAllocation ? LNET_MEMORY_ERROR : LNET_DEVICE_ERROR,
                     "%s: %s: %s", OP, what, cudaGetErrorString(error));
}

/* Levels sparsest first: order[i] is the caller's index. */
void sort_levels(const lnet_dilation &dilation, int *order) {
    const int64_t *w = dilation.segment_lengths.items, *r = dilation.dilation_rates.items;
    const int count = static_cast<int>(dilation.segment_lengths.count);
    for (int i = 0; i < count; i++) order[i] = i;
    std::stable_sort(order, order + count,
                     [&](int a, int b) { return r[a] != r[b] ? r[a] > r[b] : w[a] > w[b]; });
}

divisor divisor_of(int64_t value) {
    uint32_t bits = 0;
    while (int64_t{1} << bits < value) bits++;
    const uint64_t power = uint64_t{1} << (31 + bits);
    return {static_cast<uint32_t>(value),
            static_cast<uint32_t>((power + static_cast<uint64_t>(value) - 1) /
                                  static_cast<uint64_t>(value)),
            31 + bits};
}

/* Rows of a group to one of scratch: r where the rows that two levels or more cover lie r apart,
 * else 1. They are covered by a level other than the densest; those levels' rows lie in those of
 * the densest among them where its rate r divides theirs and the segments begin alike. */
int row_spacing(const forward &p) {
    if (p.level_count < 2 || p.offsets_grouped || p.documents) return 1;
    const uint32_t rate = p.levels[p.level_count - 2].step.value;
    for (int i = 0; i + 1 < p.level_count; i++) {
        const level &l = p.levels[i];
        const bool aligned =
            l.segment.value >= static_cast<uint32_t>(p.rows) || l.segment.value % rate == 0;
        if (l.rate > p.rows || l.step.value % rate != 0 || !aligned) return 1;
    }
    return static_cast<int>(rate);
}

/* Groups small enough that their keys and scratch stay in the L2 cache and the scratch is small
 * beside the tensors, large enough that nobody waits: a step keeps the processors busy for several
 * items and for twice as long as the longest item takes. */
void cut_groups(forward &p, int processors) {
    const int instance = padded_width(p.width), rows = tile_rows(instance);
    int64_t group_rows = 16384;
    while (group_rows < 65536 && group_rows < int64_t{WARPGROUP_ROWS} * p.levels[0].step.value)
        group_rows *= 2;
    p.group_rows = static_cast<int>(std::min<int64_t>(group_rows, p.rows));
    p.row_groups = static_cast<int>(ceil_div(p.rows, p.group_rows));
    p.row_spacing = divisor_of(row_spacing(p));
    p.slot_rows =
        p.level_count > 1 ? static_cast<int>(ceil_div(p.group_rows, p.row_spacing.value)) : 0;
    int head_items = 0;
    double head_work = 0, longest = 0;
    for (int i = 0; i < p.level_count; i++) {
        level &l = p.levels[i];
        l.chunk = static_cast<int>(std::min<int64_t>(int64_t{rows} * l.step.value, p.group_rows));
        l.chunks = static_cast<int>(ceil_div(p.group_rows, l.chunk));
        const double work = static_cast<double>(l.segment.value) / l.step.value;
        head_items += l.chunks;
        head_work += work * l.chunks;
        longest = std::max(longest, work);
    }
    const double heads = std::max(4.0 * processors / head_items,
                                  p.level_count > 1 ? 2.0 * processors * longest / head_work : 0.0);
    const double tensors = 8.0 * p.batch * p.rows * p.heads * p.width;
    const double head_bytes = (p.level_count + 1.0) * p.slot_rows * state_stride(instance) * 4;
    const double most = std::min(std::max(0.05 * tensors, 32e6) / (head_bytes + 1),
                                 16.8e6 / (4.0 * p.group_rows * p.width));
    p.group_heads = static_cast<int>(std::min(std::ceil(heads), std::floor(most)));
    p.group_heads = std::max(1, std::min(p.group_heads, p.heads));
    p.head_groups = static_cast<int>(ceil_div(p.heads, p.group_heads));
    p.step_items = head_items * p.group_heads;
}

int processor_count() {
    int device = 0, count = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    return count;
}

int blocks_of(const forward &p, int processors) {
    return std::min(processors, p.item_count);
}

/* The same for all calls: what one call left as scratch is no counter of the next. */
const size_t COUNTER_BYTES = 2048;
static_assert((2 + (MAX_LEVELS + 1) * MAX_LEVELS) * sizeof(uint32_t) <= COUNTER_BYTES,
              "counters of all slots and levels");

size_t scratch_bytes(const forward &p) {
    return COUNTER_BYTES + static_cast<size_t>(p.slots) * p.group_heads * p.slot_rows *
                               state_stride(padded_width(p.width)) * sizeof(float);
}

lnet_status make_plan(forward &p, const struct lnet_dilated_attention_args &args, int processors) {
    const lnet_dilation &dilation = args.dilation;
    const int64_t *shape = args.q->shape;
    memset(&p, 0, sizeof p);
    if (dilation.segment_lengths.count > MAX_LEVELS)
        return lnet_fail(LNET_VALUE_ERROR, "%s: %" PRId64 " levels, expected at most %d on a GPU",
                         OP, dilation.segment_lengths.count, MAX_LEVELS);
    if (shape[3] > 128)
        return lnet_fail(LNET_SHAPE_ERROR, "%s: q: head dim %" PRId64 ", expected at most 128", OP,
                         shape[3]);
    if (shape[1] > std::numeric_limits<int32_t>::max() / 2)
        return lnet_fail(LNET_SHAPE_ERROR, "%s: q: %" PRId64 " rows, expected at most 2^30", OP,
                         shape[1]);
    p.batch = static_cast<int32_t>(shape[0]);
    p.rows = static_cast<int32_t>(shape[1]);
    p.heads = static_cast<int32_t>(shape[2]);
    p.kv_heads = static_cast<int32_t>(args.k->shape[2]);
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
        l.pad = static_cast<int32_t>(ceil_div(p.rows, l.step.value) * l.step.value - p.rows);
    }
    p.uncovered = p.levels[p.level_count - 1].rate > 1 || p.lengths != nullptr;
    cut_groups(p, processors);
    const int64_t groups = static_cast<int64_t>(p.batch) * p.row_groups * p.head_groups;
    const int64_t items = (groups + p.level_count - 1) * p.step_items;
    if (items * 16 > std::numeric_limits<int32_t>::max())
        return lnet_fail(LNET_SHAPE_ERROR, "%s: q: %" PRId64 " items of work, expected below 2^27",
                         OP, items);
    p.groups = static_cast<int32_t>(groups);
    p.item_count = static_cast<int32_t>(items);
    p.slots = static_cast<int32_t>(std::min<int64_t>(p.level_count + 1, groups));
    return LNET_OK;
}

typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                    const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                    const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

lnet_status find_encode(encode_function *encode) {
    void *function = nullptr;
    cudaDriverEntryPointQueryResult result;
    cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                         cudaEnableDefault, &result);
    if (error != cudaSuccess || result != cudaDriverEntryPointSuccess)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "%s: the driver has no cuTensorMapEncodeTiled, expected CUDA 12 or later",
                         OP);
    *encode = reinterpret_cast<encode_function>(function);
    return LNET_OK;
}

/* x (B, N, heads, D) as (D, heads, phase, j, B), in boxes of 64 columns and `rows` rows. */
lnet_status describe(encode_function encode, CUtensorMap *map, const lnet_tensor &x, const level &l,
                     int rows) {
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
                         OP, x.shape[1], static_cast<int>(step), static_cast<int>(result));
    return LNET_OK;
}

} // namespace
} // namespace dilated

using namespace dilated;

lnet_status lnet_sm90_dilated_attention_scratch(const struct lnet_dilated_attention_args *args,
                                                size_t *bytes) {
    lnet_status status;
    forward p;
    const int processors = processor_count();
    LNET_TRY(make_plan(p, *args, processors));
    *bytes = scratch_bytes(p);
fail:
    return status;
}

lnet_status lnet_sm90_dilated_attention(const struct lnet_dilated_attention_args *args,
                                        void *scratch, lnet_stream *stream) {
    lnet_status status;
    forward p;
    encode_function encode = nullptr;
    cudaError_t error;
    const int processors = processor_count();
    const lnet_tensor &q = *args->q;
    const bool bfloat16 = q.dtype == LNET_BFLOAT16;
    const int keys = block_keys(padded_width(q.shape[3]));
    if (q.shape[0] == 0 || q.shape[1] == 0) return LNET_OK;
    LNET_TRY(make_plan(p, *args, processors));
    LNET_TRY(find_encode(&encode));
    for (int i = 0; i < p.level_count; i++) {
        level &l = p.levels[i];
        LNET_TRY(describe(encode, &l.q, q, l, WARPGROUP_ROWS));
        LNET_TRY(describe(encode, &l.k, *args->k, l, keys));
        LNET_TRY(describe(encode, &l.v, *args->v, l, keys));
    }
    p.out = args->out->data;
    p.lse = static_cast<float *>(args->lse->data);
    p.counters = static_cast<uint32_t *>(scratch);
    p.state = reinterpret_cast<float *>(static_cast<char *>(scratch) + COUNTER_BYTES);
    error = launch(p, padded_width(p.width), bfloat16, blocks_of(p, processors),
                   reinterpret_cast<cudaStream_t>(stream));
    if (error != cudaSuccess) LNET_TRY(cuda_failed(error, "launch"));
fail:
    return status;
}
