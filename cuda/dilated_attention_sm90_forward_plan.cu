/* Host side of dilated attention forward on sm_90a: cuts the work into items, describes q, k and v
 * to the copy engine, and launches. */
#include "cuda/dilated_attention_sm90_forward_plan.cuh"
#include "cuda/dilated_attention_sm90_problem.cuh"
#include "cuda/dilated_attention_sm90.cuh"

#include <algorithm>
#include <cmath>
#include <inttypes.h>
#include <limits>
#include <stdlib.h>
#include <string.h>

namespace dilated_sm90 {
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

/* Cuts the work into groups of so many rows, and of heads: few enough that keys and scratch stay in
 * the L2 cache and the scratch is small beside the tensors, enough that nobody waits: a step keeps
 * the processors busy for several items and for twice as long as the longest item takes. Returns
 * how many heads the scratch has room for. */
double cut_rows(forward &p, int64_t group_rows, int processors) {
    const int instance = padded_width(p.width), rows = tile_rows(instance);
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
        const int64_t w = l.segment.value;
        l.piece = p.group_rows % w == 0 && w >= l.chunk ? static_cast<int>(w) : p.group_rows;
        l.pieces = divisor_of(p.group_rows / l.piece);
        l.piece_chunks = divisor_of(ceil_div(l.piece, l.chunk));
        l.chunks = static_cast<int>(l.pieces.value * l.piece_chunks.value);
        l.head_chunks = divisor_of(l.chunks);
        const double work = static_cast<double>(l.segment.value) / l.step.value;
        head_items += l.chunks;
        head_work += work * l.chunks;
        longest = std::max(longest, work);
    }
    const bool single = p.level_count == 1;
    const double heads = std::max(4.0 * processors / head_items,
                                  single ? 0.0 : 2.0 * processors * longest / head_work);
    const double tensors = 8.0 * p.batch * p.rows * p.heads * p.width;
    const double head_bytes = (p.level_count + 1.0) * p.slot_rows * state_stride(instance) * 4;
    const double room = std::max(0.05 * tensors, 32e6) / (head_bytes + 1);
    const double most = (single ? 16.8e6 * p.levels[0].step.value : 33.6e6) /
                        (4.0 * p.group_rows * p.width); /* bytes of keys and values in the cache */
    p.group_heads =
        static_cast<int>(std::min(std::ceil(heads), std::floor(std::min(most, room))));
    p.group_heads = std::max(1, std::min(p.group_heads, p.heads));
    p.head_groups = static_cast<int>(ceil_div(p.heads, p.group_heads));
    p.step_items = divisor_of(int64_t{head_items} * p.group_heads);
    p.group_heads_across = divisor_of(p.head_groups);
    p.group_rows_along = divisor_of(p.row_groups);
    p.head_share = divisor_of(p.heads / p.kv_heads);
    return room;
}

/* A single level has no scratch, and whole segments in a group. */
void cut_groups(forward &p, int processors) {
    int64_t group_rows = 16384, whole = 1024;
    while (group_rows < 65536 && group_rows < int64_t{WARPGROUP_ROWS} * p.levels[0].step.value)
        group_rows *= 2;
    if (p.level_count == 1)
        group_rows = ceil_div(group_rows, p.levels[0].segment.value) * p.levels[0].segment.value;
    const double room = cut_rows(p, group_rows, processors);
    /* Somewhat fewer rows where they make room for one more head, and all groups alike. */
    const int more = p.group_heads + 1;
    if (room >= more || p.heads % more != 0) return;
    for (int i = 0; i < p.level_count; i++)
        if (p.group_rows % p.levels[i].segment.value == 0)
            whole = std::max<int64_t>(whole, p.levels[i].segment.value);
    const int64_t fewer = static_cast<int64_t>(p.group_rows * room / more) / whole * whole;
    if (8 * fewer >= int64_t{7} * p.group_rows) cut_rows(p, fewer, processors);
}

int blocks_of(const forward &p, int processors) {
    return std::min(processors, p.item_count);
}

const int64_t COUNTER_BYTES = 2048;
static_assert((2 + (MAX_LEVELS + 1) * MAX_LEVELS) * sizeof(uint32_t) <= COUNTER_BYTES,
              "counters of all slots and levels");

int64_t scratch_bytes(const forward &p) {
    return COUNTER_BYTES + static_cast<int64_t>(p.slots) * p.group_heads * p.slot_rows *
                               state_stride(padded_width(p.width)) *
                               static_cast<int64_t>(sizeof(float));
}

lnet_status make_plan(forward &p, const struct lnet_dilated_attention_args &args, int processors) {
    int64_t groups, items;
    memset(&p, 0, sizeof p);
    read_problem(p, args.dilation, *args.q, *args.k);
    p.uncovered = p.levels[p.level_count - 1].rate > 1 || p.lengths != nullptr;
    cut_groups(p, processors);
    groups = static_cast<int64_t>(p.batch) * p.row_groups * p.head_groups;
    items = (groups + p.level_count - 1) * p.step_items.value;
    if (items * 16 > std::numeric_limits<int32_t>::max())
        return lnet_fail(LNET_SHAPE_ERROR, "%s: q: %" PRId64 " items of work, expected below 2^27",
                         OP, items);
    p.groups = static_cast<int32_t>(groups);
    p.item_count = static_cast<int32_t>(items);
    p.slots = static_cast<int32_t>(std::min<int64_t>(p.level_count + 1, groups));
    p.group_slots = divisor_of(p.slots);
    return LNET_OK;
}

} // namespace
} // namespace dilated_sm90

using namespace dilated_sm90;

lnet_status lnet_sm90_serves(bool *serves, const lnet_tensor *q, const lnet_dilation *dilation,
                             const lnet_stream *stream) {
    const char *kernels = getenv("LONGNET_CUDA_KERNELS");
    int major = 0;
    lnet_status status;
    if (kernels == nullptr || *kernels == 0) kernels = "sm90";
    if (strcmp(kernels, "sm80") != 0 && strcmp(kernels, "sm90") != 0)
        return lnet_fail(LNET_VALUE_ERROR, "LONGNET_CUDA_KERNELS=%.40s, expected sm80 or sm90",
                         kernels);
    LNET_CUDA_TRY(
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, stream->device));
    *serves = major == 9 && strcmp(kernels, "sm90") == 0 && q->dtype != LNET_FLOAT32 &&
              q->shape[3] <= 128 && q->shape[1] < 1 << 30 &&
              q->shape[2] * q->shape[3] < 1 << 28 && /* a row's bytes in 32 bits */
              dilation->segment_lengths.count <= MAX_LEVELS && dilation->dropout == 0;
fail:
    return status;
}

lnet_status lnet_sm90_dilated_attention(const struct lnet_dilated_attention_args *args,
                                        lnet_stream *stream) {
    lnet_status status;
    forward p;
    encode_function encode = nullptr;
    void *scratch = nullptr;
    int64_t bytes = 0;
    int processors = 0;
    const lnet_tensor &q = *args->q;
    const int width = padded_width(q.shape[3]), keys = block_keys(width);
    LNET_TRY(count_processors(&processors, stream));
    LNET_TRY(make_plan(p, *args, processors));
    LNET_TRY(find_encode(OP, &encode));
    for (int i = 0; i < p.level_count; i++) {
        level &l = p.levels[i];
        LNET_TRY(describe(OP, encode, &l.q, q, l, WARPGROUP_ROWS));
        LNET_TRY(describe(OP, encode, &l.k, *args->k, l, keys));
        LNET_TRY(describe(OP, encode, &l.v, *args->v, l, keys));
    }
    bytes = scratch_bytes(p);
    LNET_TRY(lnet_cuda_host->alloc(&scratch, bytes, stream));
    LNET_CUDA_TRY(cudaMemsetAsync(scratch, 0, COUNTER_BYTES, lnet_cuda_stream(stream)));
    p.out = args->out->data;
    p.lse = static_cast<float *>(args->lse->data);
    p.counters = static_cast<uint32_t *>(scratch);
    p.state = reinterpret_cast<float *>(static_cast<char *>(scratch) + COUNTER_BYTES);
    LNET_TRY(lnet_cuda_check(launch(p, width, q.dtype == LNET_BFLOAT16, blocks_of(p, processors),
                                    lnet_cuda_stream(stream)),
                             "dilated_attention: attend"));
    status = mark_impossible(p, &args->out, 1, args->lse, lnet_cuda_stream(stream));
fail:
    if (scratch != nullptr) lnet_cuda_host->free(scratch, bytes, stream);
    return status;
}
