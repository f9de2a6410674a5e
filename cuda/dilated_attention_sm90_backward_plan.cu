/* Host side of dilated attention backward on sm_90a: cuts the work into groups and items, describes
 * the tensors to the copy engine, and launches. */
#include "cuda/dilated_attention_sm90_backward_plan.cuh"
#include "cuda/dilated_attention_sm90_problem.cuh"
#include "cuda/dilated_attention_sm90.cuh"

#include <algorithm>
#include <inttypes.h>
#include <limits>
#include <numeric>
#include <string.h>

namespace dilated_sm90 {
namespace {

const char OP[] = "dilated_attention_backward";

/* Rows after which all levels begin new segments; all rows where that never happens before. */
int64_t nesting_rows(const backward &p) {
    int64_t rows = 1;
    if (p.documents) return p.rows;
    for (int i = 0; i < p.level_count && rows < p.rows; i++)
        rows = p.levels[i].segment.value >= static_cast<uint32_t>(p.rows)
                   ? p.rows
                   : std::lcm(rows, static_cast<int64_t>(p.levels[i].segment.value));
    return std::min<int64_t>(rows, p.rows);
}

/* Some thousand rows, whole segments and ranges of the densest level; all rows of the group where
 * there is no such number. */
int32_t block_rows(const backward &p, const level &densest) {
    const int64_t unit = std::lcm(static_cast<int64_t>(densest.segment.value),
                                  static_cast<int64_t>(densest.chunk));
    const int64_t least = std::max<int64_t>(4096, ceil_div(p.group_rows, MOST_BLOCKS));
    if (p.documents || unit >= p.group_rows) return p.group_rows;
    return static_cast<int32_t>(std::min<int64_t>(p.group_rows, ceil_div(least, unit) * unit));
}

/* Rows of a group to one of its sums: r where a single level's rows lie r apart all over a group,
 * and only dQ has sums. */
int64_t sums_spacing(const backward &p) {
    const level &l = p.levels[0];
    const bool regular = l.nested || l.segment.value >= static_cast<uint32_t>(p.rows);
    return p.direct && p.level_count == 1 && !p.documents && regular ? l.step.value : 1;
}

/* A causal segment's first keys are seen by all its queries, its last ones by few. A single level
 * whose rows lie apart has a few groups: the processors end together if the longest tiles of a
 * group come first. Without gaps groups are many, and tiles that share queries had better follow
 * each other. */
int32_t segment_chunks(const backward &p, const level &l) {
    const int32_t segment = static_cast<int32_t>(l.segment.value);
    const bool alike = segment % l.chunk == 0 && p.group_rows % segment == 0;
    if (p.level_count > 1 || l.rate == 1 || !p.causal || p.documents || !alike) return 0;
    return segment / l.chunk;
}

/* Groups of whole segments, with several items for each processor, and a few of them at once. */
void cut_groups(backward &p, int processors) {
    const int64_t nesting = nesting_rows(p), least = 16384;
    const int ratio = p.heads / p.kv_heads, width = padded_width(p.width);
    p.group_rows = static_cast<int32_t>(
        std::min<int64_t>(p.rows, nesting * std::max<int64_t>(1, least / nesting)));
    p.row_groups = static_cast<int32_t>(ceil_div(p.rows, p.group_rows));
    p.sums_spacing = divisor_of(sums_spacing(p));
    const int64_t spacing = p.sums_spacing.value;
    p.sums_rows = static_cast<int32_t>(ceil_div(p.group_rows, spacing));
    p.stats_rows = static_cast<int32_t>(ceil_div(p.rows, spacing));
    int64_t head_items = 0;
    for (int i = 0; i < p.level_count; i++) {
        level &l = p.levels[i];
        l.chunk =
            static_cast<int>(std::min<int64_t>(int64_t{KEY_TILE} * l.step.value, p.group_rows));
        l.chunks = static_cast<int>(ceil_div(p.group_rows, l.chunk));
        l.sums_step = divisor_of(l.step.value / spacing);
        l.sums_pad = static_cast<int>(ceil_div(p.sums_rows, l.sums_step.value) * l.sums_step.value -
                                      p.sums_rows);
        head_items += l.chunks;
    }
    const int64_t kv_heads =
        std::min<int64_t>(p.kv_heads, ceil_div(int64_t{3} * processors, head_items * ratio));
    p.group_heads = static_cast<int32_t>(kv_heads * ratio);
    p.head_groups = static_cast<int32_t>(ceil_div(p.kv_heads, kv_heads));
    p.group_items = static_cast<int32_t>(head_items * p.group_heads);
    const level &densest = p.levels[p.level_count - 1];
    p.segment_chunks = segment_chunks(p, densest);
    const bool only_queries = p.direct && (!p.uncovered || p.level_count == 1);
    p.parts = static_cast<int32_t>(p.group_heads + (only_queries ? 0 : 2 * kv_heads));
    p.sparse_items = p.group_items - densest.chunks * p.group_heads;
    p.block_rows = block_rows(p, densest);
    p.block_chunks = static_cast<int32_t>(ceil_div(p.block_rows, densest.chunk));
    p.blocks = static_cast<int32_t>(ceil_div(p.group_rows, p.block_rows));
    p.group_chunks = static_cast<int32_t>(
        p.blocks * ceil_div(ceil_div(p.block_rows, spacing), ROUNDING_ROWS) * p.parts);
    const int64_t key_floats =
        p.direct && p.level_count == 1 ? 0 : kv_heads * p.sums_rows * width;
    p.dk_at = static_cast<int64_t>(p.group_heads) * p.sums_rows * width;
    p.dv_at = p.dk_at + key_floats;
    p.slot_floats = p.dv_at + key_floats;
}

const int64_t COUNTER_BYTES = 1024;
static_assert((3 + MOST_SLOTS * (2 + MOST_BLOCKS)) * sizeof(uint32_t) <= COUNTER_BYTES,
              "counters of all slots");
static_assert(COUNTER_BYTES % sizeof(float4) == 0, "cleared by sixteen bytes, as the sums are");

/* Counters and sums; then the stats. */
int64_t zero_bytes(const backward &p) {
    return COUNTER_BYTES + p.slots * p.slot_floats * static_cast<int64_t>(sizeof(float));
}

int64_t scratch_bytes(const backward &p) {
    return zero_bytes(p) + static_cast<int64_t>(p.batch) * p.heads * p.stats_rows *
                               static_cast<int64_t>(sizeof(float2));
}

lnet_status make_plan(backward &p, const struct lnet_dilated_attention_backward_args &args,
                      int processors) {
    int64_t groups, items;
    memset(&p, 0, sizeof p);
    read_problem(p, args.dilation, *args.q, *args.k);
    p.uncovered = p.levels[p.level_count - 1].rate > 1 || p.lengths != nullptr;
    p.direct = p.heads == p.kv_heads;
    cut_groups(p, processors);
    groups = static_cast<int64_t>(p.batch) * p.row_groups * p.head_groups;
    items = (groups + 1) * std::max(p.group_items, p.group_chunks);
    if (items > std::numeric_limits<int32_t>::max() / 8)
        return lnet_fail(LNET_SHAPE_ERROR, "%s: q: %" PRId64 " items of work, expected below 2^28",
                         OP, items);
    p.groups = static_cast<int32_t>(groups);
    p.item_count = static_cast<int32_t>((groups + 1) * p.group_items);
    p.slots = static_cast<int32_t>(std::min<int64_t>(MOST_SLOTS, groups));
    return LNET_OK;
}

/* A group's rows on a level: 16 rows of 32 columns of dQ are added at once. */
lnet_status describe_sums(encode_function encode, level &l, const backward &p, int width) {
    const cuuint64_t row = static_cast<cuuint64_t>(width) * sizeof(float);
    const cuuint64_t rows = static_cast<cuuint64_t>(p.sums_rows), step = l.sums_step.value;
    const cuuint64_t extent[5] = {static_cast<cuuint64_t>(width), step, (rows + l.sums_pad) / step,
                                  static_cast<cuuint64_t>(p.group_heads),
                                  static_cast<cuuint64_t>(p.slots)};
    const cuuint64_t stride[4] = {row, step * row, rows * row,
                                  static_cast<cuuint64_t>(p.slot_floats) * sizeof(float)};
    const cuuint32_t box[5] = {32, 1, 16, 1, 1}, ones[5] = {1, 1, 1, 1, 1};
    CUresult result =
        encode(&l.sums, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 5,
               p.sums - static_cast<int64_t>(l.sums_pad) * width, extent, stride, box, ones,
               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "%s: the driver refused a tensor map of sums of %d rows, step %d (%d)", OP,
                         static_cast<int>(rows), static_cast<int>(step), static_cast<int>(result));
    return LNET_OK;
}

} // namespace
} // namespace dilated_sm90

using namespace dilated_sm90;

lnet_status lnet_sm90_serves_backward(bool *serves, const lnet_tensor *q,
                                      const lnet_dilation *dilation, const lnet_stream *stream) {
    lnet_status status = lnet_sm90_serves(serves, q, dilation, stream);
    *serves = *serves && !dilation->detached && !dilation->deterministic;
    return status;
}

lnet_status
lnet_sm90_dilated_attention_backward(const struct lnet_dilated_attention_backward_args *args,
                                     lnet_stream *stream) {
    lnet_status status;
    backward p;
    encode_function encode = nullptr;
    void *scratch = nullptr;
    int64_t bytes = 0;
    int processors = 0;
    const lnet_tensor &q = *args->q;
    const int width = padded_width(q.shape[3]), queries = block_queries(width);
    lnet_tensor *const gradients[] = {args->dq, args->dk, args->dv};
    LNET_TRY(count_processors(&processors, stream));
    LNET_TRY(make_plan(p, *args, processors));
    LNET_TRY(find_encode(OP, &encode));
    bytes = scratch_bytes(p);
    LNET_TRY(lnet_cuda_host->alloc(&scratch, bytes, stream));
    p.counters = static_cast<uint32_t *>(scratch);
    p.sums = reinterpret_cast<float *>(static_cast<char *>(scratch) + COUNTER_BYTES);
    p.zero_floats = zero_bytes(p) / static_cast<int64_t>(sizeof(float));
    p.stats = reinterpret_cast<float2 *>(static_cast<char *>(scratch) + zero_bytes(p));
    for (int i = 0; i < p.level_count; i++) {
        level &l = p.levels[i];
        LNET_TRY(describe(OP, encode, &l.q, q, l, queries));
        LNET_TRY(describe(OP, encode, &l.dout, *args->dout, l, queries));
        LNET_TRY(describe(OP, encode, &l.k, *args->k, l, KEY_TILE));
        LNET_TRY(describe(OP, encode, &l.v, *args->v, l, KEY_TILE));
        LNET_TRY(describe_sums(encode, l, p, width));
    }
    p.gradient_scale = static_cast<float>(args->dilation.scale);
    p.out = args->out->data;
    p.dout = args->dout->data;
    p.lse = static_cast<const float *>(args->lse->data);
    p.dq = args->dq->data;
    p.dk = args->dk->data;
    p.dv = args->dv->data;
    LNET_TRY(lnet_cuda_check(launch(p, width, q.dtype == LNET_BFLOAT16,
                                    args->dq->dtype == LNET_FLOAT32,
                                    std::min(processors, p.item_count), lnet_cuda_stream(stream)),
                             "dilated_attention_backward: differentiate"));
    status = mark_impossible(p, gradients, 3, nullptr, lnet_cuda_stream(stream));
fail:
    if (scratch != nullptr) lnet_cuda_host->free(scratch, bytes, stream);
    return status;
}
