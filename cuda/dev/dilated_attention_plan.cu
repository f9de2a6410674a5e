/* Host side of dilated attention forward on sm_90a: cuts the work into items, describes q, k and v
 * to the copy engine, and launches. */
#include "dilated_attention_plan.cuh"
#include "dilated_attention_problem.cuh"
#include "dilated_attention_sm90.h"

#include <algorithm>
#include <cmath>
#include <inttypes.h>
#include <limits>
#include <string.h>

namespace dilated {
namespace {

const char OP[] = "dilated_attention";

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
    lnet_status status;
    int64_t groups, items;
    memset(&p, 0, sizeof p);
    LNET_TRY(read_problem(p, OP, args.dilation, *args.q, *args.k));
    p.uncovered = p.levels[p.level_count - 1].rate > 1 || p.lengths != nullptr;
    cut_groups(p, processors);
    groups = static_cast<int64_t>(p.batch) * p.row_groups * p.head_groups;
    items = (groups + p.level_count - 1) * p.step_items;
    if (items * 16 > std::numeric_limits<int32_t>::max())
        return lnet_fail(LNET_SHAPE_ERROR, "%s: q: %" PRId64 " items of work, expected below 2^27",
                         OP, items);
    p.groups = static_cast<int32_t>(groups);
    p.item_count = static_cast<int32_t>(items);
    p.slots = static_cast<int32_t>(std::min<int64_t>(p.level_count + 1, groups));
fail:
    return status;
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
    const int processors = processor_count();
    const lnet_tensor &q = *args->q;
    const bool bfloat16 = q.dtype == LNET_BFLOAT16;
    const int keys = block_keys(padded_width(q.shape[3]));
    if (q.shape[0] == 0 || q.shape[1] == 0) return LNET_OK;
    LNET_TRY(make_plan(p, *args, processors));
    LNET_TRY(find_encode(OP, &encode));
    for (int i = 0; i < p.level_count; i++) {
        level &l = p.levels[i];
        LNET_TRY(describe(OP, encode, &l.q, q, l, WARPGROUP_ROWS));
        LNET_TRY(describe(OP, encode, &l.k, *args->k, l, keys));
        LNET_TRY(describe(OP, encode, &l.v, *args->v, l, keys));
    }
    p.out = args->out->data;
    p.lse = static_cast<float *>(args->lse->data);
    p.counters = static_cast<uint32_t *>(scratch);
    p.state = reinterpret_cast<float *>(static_cast<char *>(scratch) + COUNTER_BYTES);
    LNET_TRY(launched(OP, launch(p, padded_width(p.width), bfloat16, blocks_of(p, processors),
                                 reinterpret_cast<cudaStream_t>(stream))));
fail:
    return status;
}
