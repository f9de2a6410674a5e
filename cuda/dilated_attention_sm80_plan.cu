#include "cuda/dilated_attention_sm80_plan.cuh"

#include <algorithm>
#include <cmath>
#include <inttypes.h>
#include <limits>

namespace dilated_sm80 {
namespace {

const int64_t MIN_BUDGET = int64_t{96} << 20; /* bytes of the sums of one output, or as many as */
const int64_t BUDGET_SHARE = 6;               /* this part of q, k, v and the output */
const int ITEMS_PER_BLOCK = 2;                /* in a group: a step, during which nobody waits */
const int SCAN_THREADS = 256;

uint32_t to_32(int64_t x) {
    return static_cast<uint32_t>(std::min<int64_t>(x, std::numeric_limits<int32_t>::max()));
}

/* ---- groups ---- */

/* Rows after which all levels begin new segments; all rows where that never happens before. */
int64_t nesting_rows(const plan &p) {
    int64_t rows = 1;
    for (int i = 0; i < p.level_count; i++) {
        int64_t a = rows, b = p.levels[i].segment;
        while (b != 0) {
            int64_t rest = a % b;
            a = b;
            b = rest;
        }
        rows = rows / a * p.levels[i].segment; /* below 2^62 */
        if (rows >= p.rows) return p.rows;
    }
    return rows;
}

void set_group(plan &p, int64_t rows, int64_t heads) {
    p.group_rows = static_cast<uint32_t>(std::min<int64_t>(rows, p.rows));
    p.group_heads = static_cast<uint32_t>(std::min<int64_t>(heads, p.heads));
    p.first_piece = p.first_own / p.group_rows;
    p.pieces = static_cast<uint32_t>(
        ceil_div(int64_t{p.first_own} + p.own_rows, p.group_rows) - p.first_piece);
    p.slot_rows = ceil_div32(std::min(p.group_rows, p.own_rows), p.row_spacing);
    p.head_groups = static_cast<uint32_t>(ceil_div(p.heads, p.group_heads));
    p.groups = static_cast<int64_t>(p.batch) * p.pieces * p.head_groups;
    p.group_items = 0;
    for (int i = 0; i < p.level_count; i++) {
        level &l = p.levels[i];
        l.segments =
            std::min(ceil_div(p.group_rows, l.segment), ceil_div(p.own_rows, l.segment) + 1);
        l.tiles = ceil_div32(ceil_div32(std::min(l.segment, p.own_rows), l.rate), p.tile_rows);
        l.first = p.group_items;
        p.group_items += head_items(p, l) * p.group_heads;
    }
}

/* Bytes of sums in `slots` groups. */
int64_t resting_bytes(const plan &p, const launch &l, int64_t slots) {
    if (l.outputs[0] != nullptr || p.level_count == 1) return 0;
    int64_t heads = l.share_keys ? ceil_div(p.group_heads, p.heads / p.kv_heads) : p.group_heads;
    return slots * p.slot_rows * heads * p.width * l.sums *
           static_cast<int64_t>(sizeof(float));
}

/* Groups small enough for the budget, and large enough that a step keeps all blocks busy. */
void cut_groups(plan &p, const launch &l, int64_t budget) {
    const int64_t unit = l.share_keys ? p.heads / p.kv_heads : 1;
    const int64_t nest = p.documents > 0 ? p.rows : nesting_rows(p);
    p.row_spacing = row_spacing_of(p);
    const int64_t wanted = static_cast<int64_t>(ITEMS_PER_BLOCK) * l.blocks;
    if (p.level_count == 1) { /* nobody waits */
        p.skew = 0;
        p.slots = std::numeric_limits<int32_t>::max();
        set_group(p, p.rows, p.heads);
        return;
    }
    set_group(p, nest, unit);
    p.skew = resting_bytes(p, l, p.level_count) <= budget;
    p.slots = p.skew ? p.level_count : resting_bytes(p, l, 2) <= budget ? 2 : 1;
    while (p.group_items < wanted) {
        const uint32_t rows = p.group_rows, heads = p.group_heads;
        if (heads < p.heads)
            set_group(p, rows, heads + std::max<int64_t>(unit, heads / 2 / unit * unit));
        else if (rows < p.rows)
            set_group(p, rows + nest, heads);
        else
            break;
        if (resting_bytes(p, l, p.slots) > budget) {
            set_group(p, rows, heads);
            break;
        }
    }
    if (l.outputs[0] != nullptr) p.slots = std::numeric_limits<int32_t>::max();
}

/* Whether the segments' first rows have one high half, as the key of all draws takes it. */
lnet_status check_dropout_rows(const lnet_dilation &d, int64_t rows) {
    int64_t last = 0; /* where a segment may begin */
    if (d.dropout == 0) return LNET_OK;
    for (int64_t i = 0; i < d.segment_lengths.count; i++) {
        const int64_t w = d.cu_seqlens == NULL ? d.segment_lengths.items[i] : 1;
        if (rows > 0) last = std::max(last, (rows - 1) / w * w);
    }
    if (d.first_row >> 32 == (d.first_row + last) >> 32) return LNET_OK;
    return lnet_fail(LNET_VALUE_ERROR,
                     "dilated_attention: dropout from row %" PRId64 " with segments up to %" PRId64
                     " rows on, expected no multiple of 2^32 between them on a GPU",
                     d.first_row, last);
}

lnet_status make_plan(plan *out, const launch &l) {
    const lnet_dilation &d = *l.dilation;
    const lnet_tensor *q = l.q, *k = l.k;
    const lnet_status status = check_dropout_rows(d, k->shape[1]);
    plan p = {};
    if (status != LNET_OK) return status;
    if (k->shape[1] >= std::numeric_limits<int32_t>::max())
        return lnet_fail(LNET_SHAPE_ERROR,
                         "dilated_attention: k: %" PRId64 " rows, expected less than 2^31 on a GPU",
                         k->shape[1]);
    if (d.cu_seqlens != NULL && d.cu_seqlens->shape[0] - 1 >= std::numeric_limits<int32_t>::max())
        return lnet_fail(LNET_SHAPE_ERROR,
                         "dilated_attention: cu_seqlens: %" PRId64
                         " documents, expected less than 2^31 on a GPU",
                         d.cu_seqlens->shape[0] - 1);
    p.level_count = static_cast<int32_t>(d.segment_lengths.count);
    p.batch = static_cast<uint32_t>(q->shape[0]);
    p.rows = static_cast<uint32_t>(k->shape[1]);
    p.first_query = static_cast<uint32_t>(d.query_start);
    p.queries = static_cast<uint32_t>(q->shape[1]);
    p.first_own = l.share_keys ? 0 : p.first_query;
    p.own_rows = l.share_keys ? p.rows : p.queries;
    p.heads = static_cast<uint32_t>(q->shape[2]);
    p.kv_heads = static_cast<uint32_t>(k->shape[2]);
    p.width = static_cast<uint32_t>(q->shape[3]);
    p.grouped_offsets = d.offsets == LNET_OFFSETS_GROUPED;
    p.causal = d.causal;
    p.zero_keys = d.zero_keys;
    p.share_keys = l.share_keys;
    p.tile_rows = l.kernel.tile_rows;
    if (d.lengths != NULL) p.lengths = static_cast<const int64_t *>(d.lengths->data);
    if (d.cu_seqlens != NULL) {
        p.cu_seqlens = static_cast<const int64_t *>(d.cu_seqlens->data);
        p.documents = static_cast<int32_t>(d.cu_seqlens->shape[0] - 1);
    }
    for (int i = 0; i < p.level_count; i++) { /* beyond all rows they mean the same */
        level &to = p.levels[i];
        to.segment = to_32(d.segment_lengths.items[i]);
        to.rate = to_32(d.dilation_rates.items[i]);
        to.share = static_cast<uint32_t>(ceil_div(p.heads, d.dilation_rates.items[i]));
    }
    const int64_t heads = int64_t{p.queries} * p.heads + int64_t{p.rows} * p.kv_heads;
    int64_t tensors = 2 * p.batch * heads * p.width * (q->dtype == LNET_FLOAT32 ? 4 : 2);
    cut_groups(p, l, l.sums * std::max(MIN_BUDGET, tensors / BUDGET_SHARE));
    for (int i = 0; p.level_count > 1 && i < p.level_count; i++)
        if (level_items(p, i) > std::numeric_limits<uint32_t>::max())
            return lnet_fail(LNET_SHAPE_ERROR,
                             "dilated_attention: level %d has %" PRId64
                             " segments to count at once, expected less than 2^32 on a GPU",
                             i, level_items(p, i));
    *out = p;
    return LNET_OK;
}

/* ---- documents ---- */

/* document_tiles[level][document] = tiles of the documents before, one block a level; *invalid
 * where the documents do not rise from 0 to N. */
__global__ void count_documents(const __grid_constant__ plan p, int64_t *document_tiles,
                                uint32_t *invalid) {
    __shared__ int64_t sums[SCAN_THREADS];
    const level &l = p.levels[blockIdx.x];
    int64_t *out = document_tiles + blockIdx.x * (p.documents + int64_t{1});
    int64_t share = ceil_div(p.documents, SCAN_THREADS), begin = threadIdx.x * share;
    int64_t end = begin + share < p.documents ? begin + share : p.documents, sum = 0;
    bool bad = false;
    for (int64_t i = begin; i < end; i++) {
        sum += tiles_of_document(p, l, document_begin(p, i), document_rows(p, i));
        bad = bad || p.cu_seqlens[i] > p.cu_seqlens[i + 1];
    }
    if (threadIdx.x == 0)
        bad = bad || p.cu_seqlens[0] != 0 || p.cu_seqlens[p.documents] != p.rows;
    if (bad) *invalid = 1;
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        int64_t before = 0;
        for (int i = 0; i < SCAN_THREADS; i++) {
            int64_t own = sums[i];
            sums[i] = before;
            before += own;
        }
        out[p.documents] = before;
    }
    __syncthreads();
    sum = sums[threadIdx.x];
    for (int64_t i = begin; i < end; i++) {
        out[i] = sum;
        sum += tiles_of_document(p, l, document_begin(p, i), document_rows(p, i));
    }
}

/* ---- launches ---- */

lnet_status processors_of(int *count) {
    int device = 0;
    lnet_status status;
    LNET_CUDA_TRY(cudaGetDevice(&device));
    LNET_CUDA_TRY(cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device));
fail:
    return status;
}

int64_t aligned(int64_t bytes) {
    return ceil_div(bytes, 256) * 256;
}

/* Scratch of a launch: counters, tiles of documents, sums. */
struct layout {
    int64_t counters, documents, sums, total; /* where each begins, and the end */
};

layout layout_of(const plan &p, const launch &l) {
    layout at = {};
    int64_t counters = p.level_count > 1 ? p.groups * p.level_count : 0;
    int64_t levels = p.documents > 0 ? p.level_count * (p.documents + int64_t{1}) : 0;
    at.counters = 16; /* items taken; whether the documents are invalid */
    at.documents = aligned(at.counters + counters * static_cast<int64_t>(sizeof(uint32_t)));
    at.sums = aligned(at.documents + levels * static_cast<int64_t>(sizeof(int64_t)));
    at.total = at.sums + resting_bytes(p, l, std::min<int64_t>(p.slots, p.groups));
    return at;
}

} // namespace

lnet_status open_launch(launch *l, queue *work, resting_sums *sums, lnet_stream *stream) {
    int processors, each;
    layout at;
    plan &p = work->p;
    char *memory;
    lnet_status status;
    LNET_TRY(processors_of(&processors));
    LNET_CUDA_TRY(cudaFuncSetAttribute(
        l->kernel.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, l->kernel.shared_bytes));
    LNET_CUDA_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &each, l->kernel.kernel, l->kernel.threads, l->kernel.shared_bytes));
    if (each < 1)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "dilated_attention: a block needs %d bytes of shared memory, more than "
                         "this GPU has",
                         l->kernel.shared_bytes);
    l->blocks = processors * each;
    LNET_TRY(make_plan(&p, *l));
    at = layout_of(p, *l);
    l->bytes = at.total;
    LNET_TRY(lnet_cuda_host->alloc(&l->memory, l->bytes, stream));
    LNET_CUDA_TRY(cudaMemsetAsync(l->memory, 0, static_cast<size_t>(at.documents),
                                  lnet_cuda_stream(stream)));
    memory = static_cast<char *>(l->memory);
    work->taken = reinterpret_cast<unsigned long long *>(memory);
    work->done = reinterpret_cast<uint32_t *>(memory + at.counters);
    for (int i = 0; i < l->sums; i++) {
        uint32_t members = l->share_keys ? p.heads / p.kv_heads : 1;
        float *scratch = reinterpret_cast<float *>(memory + at.sums) +
                         i * ((at.total - at.sums) / l->sums / static_cast<int64_t>(sizeof(float)));
        sums[i].in_output = l->outputs[i] != nullptr;
        sums[i].data = sums[i].in_output ? l->outputs[i] : scratch;
        sums[i].heads = (sums[i].in_output ? p.heads : p.group_heads) / members;
    }
    if (p.documents > 0) {
        int64_t *tiles = reinterpret_cast<int64_t *>(memory + at.documents);
        p.document_tiles = tiles;
        count_documents<<<p.level_count, SCAN_THREADS, 0, lnet_cuda_stream(stream)>>>(
            p, tiles, reinterpret_cast<uint32_t *>(memory + 8));
        LNET_TRY(lnet_cuda_launched("dilated_attention: count_documents"));
    }
fail:
    return status;
}

lnet_status run_launch(const launch *l, const void *call, const char *name, lnet_stream *stream) {
    void *arguments[] = {const_cast<void *>(call)};
    return lnet_cuda_check(cudaLaunchKernel(l->kernel.kernel, dim3(l->blocks),
                                            dim3(l->kernel.threads), arguments,
                                            l->kernel.shared_bytes, lnet_cuda_stream(stream)),
                           name);
}

void close_launch(const launch *l, lnet_stream *stream) {
    if (l->memory != nullptr) lnet_cuda_host->free(l->memory, l->bytes, stream);
}

dropout dropout_of(const struct lnet_dilation *dilation) {
    const double p = dilation->dropout;
    return {p > 0, static_cast<uint32_t>(p * 4294967296.0), static_cast<float>(1.0 / (1.0 - p)),
            dilation->seed ^ static_cast<uint64_t>(dilation->first_row) >> 32 << 32,
            static_cast<uint32_t>(dilation->first_row),
            static_cast<uint32_t>(dilation->first_level)};
}

void split_scale(double scale, float *power, float *sign) {
    const double log2e = 1.4426950408889634;
    *power = scale == 0 ? 1.0f : static_cast<float>(std::fabs(scale) * log2e);
    *sign = scale > 0 ? 1.0f : scale < 0 ? -1.0f : 0.0f;
}

} // namespace dilated_sm80
