/* Forward dilated attention: the levels one after another over the same online softmax.
 *
 * The unit of work is a block of consecutive rows on one head. Between levels its rows' sums rest
 * in scratch memory, so each level goes on where the one before stopped. */
#include "ops/dilated_attention.h"

#include "cpu/attention_forward.h"
#include "cpu/cpu.h"

enum {
    UNITS_PER_THREAD = 16, /* blocks become smaller to have as many, */
    MEMORY_SHARE = 36,     /* to take no more than this part of the tensors' memory, */
};
#define MAX_UNIT_WORK 8e9 /* and to end within a second or so: pairs times D */

/* Does something with queries [begin, end) of a strip. */
typedef void visitor(struct forward_unit *unit, const struct attention_strip *strip, int64_t begin,
                     int64_t end);

/* Gives the queries a slot each, unless an earlier level did. */
static void give_slots(struct forward_unit *unit, const struct attention_strip *strip,
                       int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j++) {
        int64_t row = strip->first + j * strip->step - unit->begin;
        int32_t *slot = &unit->slot[row];
        if (*slot >= 0) continue;
        *slot = unit->slots++;
        unit->covered[*slot] = (int32_t)row;
        unit->top[*slot] = -INFINITY;
        unit->total[*slot] = unit->zeros[*slot] = 0;
    }
}

static void attend_queries(struct forward_unit *unit, const struct attention_strip *strip,
                           int64_t begin, int64_t end) {
    int64_t groups = ceil_div(end - begin, unit->job->group * LANES);
    int64_t size = groups > 0 ? round_up(ceil_div(end - begin, groups), LANES) : 0;
    for (int64_t j = begin; j < end; j += size)
        attend_group(unit, strip, j, min_int(end, j + size));
}

/* Every level of one sequence for the rows of the unit that lie in it. */
static void visit_sequence(struct forward_unit *unit, struct attention_sequence sequence,
                           visitor *visit) {
    const struct attention_pattern *pattern = &unit->job->pattern;
    int64_t begin = max_int(unit->begin, sequence.begin);
    int64_t end = min_int(unit->end, sequence.begin + sequence.length);
    const lnet_int64_list lengths = pattern->dilation->segment_lengths;
    for (int64_t level = 0; begin < end && level < lengths.count; level++) {
        int64_t w = min_int(lengths.items[level], sequence.length);
        int64_t last = (end - 1 - sequence.begin) / w;
        for (int64_t segment = (begin - sequence.begin) / w; segment <= last; segment++) {
            struct attention_strip strip =
                attention_strip_of(pattern, sequence, level, segment, unit->head);
            visit(unit, &strip, ceil_div(begin - strip.first, strip.step),
                  min_int(strip.count, ceil_div(end - strip.first, strip.step)));
        }
    }
}

static void visit_unit(struct forward_unit *unit, visitor *visit) {
    const struct attention_pattern *pattern = &unit->job->pattern;
    int64_t i = attention_sequence_after(pattern, unit->begin);
    for (; i < pattern->sequences; i++) {
        struct attention_sequence sequence = attention_sequence_at(pattern, i);
        if (sequence.begin >= unit->end) break;
        visit_sequence(unit, sequence, visit);
    }
}

/* Units [begin, end); heads change fastest, and later blocks, which see more, come first. After
 * the last unit: uncovered_turns(). */
static lnet_status attend_units(void *context, int64_t begin, int64_t end, int worker) {
    struct forward *job = context;
    const struct attention_pattern *pattern = &job->pattern;
    struct ahead ahead = {0};
    struct uncovered_place place = {0};
    struct forward_unit unit = {.ahead = &ahead, .place = &place};
    forward_lay_out(&unit, job, job->scratch + worker * job->scratch_floats);
    for (int64_t i = begin; i < min_int(end, job->units); i++) {
        int64_t block = job->blocks - 1 - i / pattern->heads % job->blocks;
        unit.head = i % pattern->heads;
        unit.batch_item = i / pattern->heads / job->blocks;
        struct attention_range queries = attention_queries(pattern, unit.batch_item);
        unit.begin = queries.begin + block * job->block_rows;
        unit.end = min_int(unit.begin + job->block_rows, queries.end);
        memset(unit.slot, 0xFF, (size_t)(unit.end - unit.begin) * sizeof *unit.slot);
        unit.slots = 0;
        visit_unit(&unit, give_slots);
        visit_unit(&unit, attend_queries);
        finish_rows(&unit);
        atomic_fetch_sub(&job->uncovered.units, 1);
    }
    uncovered_leave(&job->uncovered, &place);
    if (end > job->units) uncovered_meanwhile(&job->uncovered, &place);
    return LNET_OK;
}

/* The most of `rows` consecutive rows that one head may find covered: on a level, of the segments
 * that they touch, each with a share that is rounded up. */
static int64_t most_covered(const struct attention_pattern *pattern, int64_t rows) {
    const struct lnet_dilation *dilation = pattern->dilation;
    int64_t most = 0;
    for (int64_t i = 0; i < dilation->segment_lengths.count && most < rows; i++)
        most += rows / dilation->dilation_rates.items[i] +
                rows / dilation->segment_lengths.items[i] + 2;
    return dilation->cu_seqlens != NULL ? rows : min_int(most, rows);
}

/* Sets the rows of a block: as many as make full groups of query tiles on the sparsest level, or
 * one of its segments where these are shorter, unless that is too much memory, too few blocks, or
 * blocks that take too long. */
static void choose_block_rows(struct forward *job, int64_t workers) {
    const struct attention_pattern *pattern = &job->pattern;
    const struct lnet_dilation *dilation = pattern->dilation;
    struct forward_unit unit;
    int64_t longest = longest_sequence(pattern), sparsest = 1, segment = 0;
    double keys = 0; /* that a row sees, on average */
    for (int64_t i = 0; i < dilation->segment_lengths.count; i++) {
        int64_t w = min_int(dilation->segment_lengths.items[i], longest);
        int64_t r = dilation->dilation_rates.items[i];
        if (min_int(r, w) > sparsest) segment = 0;
        sparsest = max_int(sparsest, min_int(r, w));
        if (min_int(r, w) == sparsest) segment = max_int(segment, w);
        keys += (double)w / (double)r / (double)r;
    }
    int64_t group = job->group * LANES, heads = pattern->batch * pattern->heads;
    int64_t tensor_rows = pattern->batch *
                          (pattern->queries * pattern->heads + pattern->rows * pattern->kv_heads) *
                          2;
    int64_t size = (int64_t)lnet_dtype_size(job->args->q->dtype) * pattern->width;
    for (int64_t rows = min_int(group * sparsest, max_int(group, segment));;
         rows = ceil_div(rows, 2)) {
        job->block_rows = max_int(rows, LANES);
        job->block_slots = most_covered(pattern, job->block_rows);
        job->blocks = ceil_div(pattern->queries, job->block_rows);
        job->scratch_floats = forward_lay_out(&unit, job, NULL);
        int64_t bytes = workers * job->scratch_floats * (int64_t)sizeof(float);
        bool small = heads * job->blocks >= UNITS_PER_THREAD * workers;
        bool quick = keys * (double)(rows * pattern->width) <= MAX_UNIT_WORK;
        if (rows <= LANES ||
            (small && (rows <= group || (quick && bytes <= tensor_rows * size / MEMORY_SHARE))))
            return;
    }
}

lnet_status LNET_CPU(dilated_attention)(const struct lnet_dilated_attention_args *args,
                                        lnet_stream *stream) {
    (void)stream;
    lnet_status status;
    struct forward job = {.args = args,
                          .pattern = attention_pattern_of(&args->dilation, args->q, args->k),
                          .scale = (float)args->dilation.scale * LOG2E,
                          .uncovered.tensors = {args->out}};
    int workers = lnet_num_threads();
    int64_t group = GROUP_FLOATS / (job.pattern.width * LANES);
    job.group = max_int(1, min_int(MAX_GROUP, group));
    choose_block_rows(&job, workers);
    LNET_TRY(
        lnet_alloc((void **)&job.scratch, workers * job.scratch_floats * (int64_t)sizeof(float)));
    LNET_TRY(attention_pattern_offsets(&job.pattern));
    uncovered_begin(&job.uncovered, &job.pattern);
    job.units = job.pattern.batch * job.pattern.heads * job.blocks;
    atomic_init(&job.uncovered.units, job.units);
    LNET_TRY(lnet_parallel_for_workers(job.units + uncovered_turns(&job.uncovered, workers), 1,
                                       workers, attend_units, &job));
    LNET_TRY(uncovered_end(&job.uncovered));
fail:
    lnet_free(job.pattern.offsets);
    lnet_free(job.scratch);
    return status;
}
