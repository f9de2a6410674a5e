/* Backward dilated attention: level after level over the same gradients.
 *
 * The strips of a level are cut into blocks of rows, and a step pairs block i of the queries with
 * block i - step of the keys, counted from the keys of queries 0, so that the pairs of a step touch
 * no row twice and can run at once; a pair of the next step waits only for the two that had its
 * blocks before. Steps, levels and all within a pair have one order: the sums come out the same on
 * any number of threads. */
#include "ops/dilated_attention.h"

#include "cpu/attention_backward.h"
#include "cpu/cpu.h"

#include <sched.h>

enum {
    MAX_BLOCK = 2304, /* rows of a block: a pair ends within a tenth of a second or so */
    MIN_BLOCK = 192,
    WANTED_UNITS = 16,   /* blocks become smaller to have as many pairs at once */
    LINES_A_WAIT = 32,   /* that a thread clears before it looks again */
    ROWS_PER_CHUNK = 64, /* of the pass that stores */
    MIN_WAVE_FLOATS = 4 << 20,
};

/* A level of the rows [first_row, end_row), kv heads [first_kv_head, end_kv_head). */
struct backward_step {
    struct backward *job;
    int64_t end_row, end_kv_head;
    int64_t level, block;       /* rows of a block */
    int64_t blocks, key_blocks; /* of the strip with most: of queries, of keys */
    int64_t units;              /* pairs of blocks of one step */
    int64_t tasks;              /* pairs of all steps */
    _Atomic int64_t *done;      /* (units,) steps that a block of queries is through with */
    int64_t first_sequence, end_sequence;
    int64_t *segments; /* (sequences + 1,) of this level, before each sequence of the wave */
};

/* The segments of a sequence, in the rows of the step, that have queries. */
static struct attention_range segments_of(const struct backward_step *step,
                                          struct attention_sequence sequence) {
    const struct attention_pattern *pattern = &step->job->pattern;
    struct attention_range rows = attention_queries(pattern, sequence.batch_item);
    int64_t w = min_int(pattern->dilation->segment_lengths.items[step->level], sequence.length);
    int64_t begin = max_int(max_int(rows.begin, step->job->first_row), sequence.begin);
    int64_t end = min_int(min_int(rows.end, step->end_row), sequence.begin + sequence.length);
    if (begin >= end) return (struct attention_range){0, 0};
    return (struct attention_range){(begin - sequence.begin) / w,
                                    ceil_div(end - sequence.begin, w)};
}

/* How a strip is cut: blocks of queries and blocks of the keys that they see, which begin at the
 * same rows, and `keys_before` more of those before `first`. Dropout has its keys by fours. */
struct strip_blocks {
    struct attention_range rows, all_keys;
    int64_t first;                      /* row that blocks 0 begin at */
    int64_t queries, keys, keys_before; /* blocks */
};

static struct strip_blocks blocks_of(const struct backward_step *step,
                                     const struct attention_strip *strip, int64_t batch_item) {
    const struct attention_pattern *pattern = &step->job->pattern;
    struct attention_range rows = attention_strip_queries(pattern, strip, batch_item);
    struct attention_range keys = {0, pattern->dilation->causal ? rows.end : strip->count};
    int64_t first = rows.begin / 4 * 4, before = ceil_div(first, step->block);
    return (struct strip_blocks){
        .rows = rows,
        .all_keys = keys,
        .first = first,
        .queries = rows.begin < rows.end ? ceil_div(rows.end - first, step->block) : 0,
        .keys = before + ceil_div(keys.end - first, step->block),
        .keys_before = before,
    };
}

/* Those of the rows that are in block `block`. */
static struct attention_range block_rows(const struct backward_step *step,
                                         struct attention_range rows, int64_t first,
                                         int64_t block) {
    int64_t begin = first + block * step->block;
    return (struct attention_range){max_int(rows.begin, begin),
                                    min_int(rows.end, begin + step->block)};
}

/* Until the unit's pairs of earlier steps are done; false where they may never be. */
static bool wait_for(const struct backward_step *step, int64_t unit, int64_t steps,
                     struct uncovered_place *place) {
    while (atomic_load_explicit(&step->done[unit], memory_order_acquire) < steps) {
        if (lnet_parallel_ends()) return false;
        struct lines bare = uncovered_lines(&step->job->uncovered, place, LINES_A_WAIT);
        stream_zeros(bare.begin, bare.count * LINE);
        sched_yield();
    }
    return true;
}

/* Tasks [begin, end): pairs of blocks, a step's after another's, and then uncovered_turns(). */
static lnet_status show_units(void *context, int64_t begin, int64_t end, int worker) {
    const struct backward_step *step = context;
    struct backward *job = step->job;
    const struct attention_pattern *pattern = &job->pattern;
    int64_t kv_heads = step->end_kv_head - job->first_kv_head;
    int64_t group = pattern->heads / pattern->kv_heads;
    struct ahead ahead = {0};
    struct uncovered_place place = {0};
    struct backward_unit unit = {.ahead = &ahead, .place = &place};
    unit.last = step->key_blocks == 1 && group == 1 && job->args->dq->dtype == LNET_FLOAT32 &&
                step->level + 1 == pattern->dilation->segment_lengths.count;
    backward_lay_out(&unit, job, job->scratch + worker * job->scratch_floats);
    int64_t pairs_end = min_int(end, step->tasks);
    for (int64_t task = begin; task < pairs_end; task++) {
        int64_t i = task % step->units, number = task / step->units;
        int64_t query = i % step->blocks, segment = i / step->blocks / kv_heads;
        int64_t low = step->first_sequence, high = step->end_sequence - 1;
        while (low < high) { /* the last sequence with no more than `segment` before it */
            int64_t middle = low + (high - low + 1) / 2;
            if (step->segments[middle] <= segment)
                low = middle;
            else
                high = middle - 1;
        }
        struct attention_sequence sequence = attention_sequence_at(pattern, low);
        segment += segments_of(step, sequence).begin - step->segments[low];
        unit.kv_head = job->first_kv_head + i / step->blocks % kv_heads;
        unit.sequence = sequence;
        bool shown = false;
        for (unit.head = unit.kv_head * group; unit.head < (unit.kv_head + 1) * group;
             unit.head++) {
            struct attention_strip strip =
                attention_strip_of(pattern, sequence, step->level, segment, unit.head);
            struct strip_blocks blocks = blocks_of(step, &strip, sequence.batch_item);
            int64_t key = query - number; /* counted from that of queries 0 */
            if (query >= blocks.queries || number >= blocks.keys) continue;
            if (key < -blocks.keys_before) {
                if (pattern->dilation->causal) continue;
                key += blocks.keys;
            }
            /* the queries that had these keys at the step before, or a turn of all keys ago */
            int64_t other = query > 0 ? i - 1 : i + blocks.queries - 1;
            int64_t steps = query > 0 ? number : number - (blocks.keys - blocks.queries);
            if (number > 0 &&
                (!wait_for(step, i, number, &place) || !wait_for(step, other, steps, &place)))
                return LNET_OK;
            unit.strip = &strip;
            unit.first_queries = number == 0;
            unit.first_keys = number == 0 || (query == 0 && (key < 0 || key >= blocks.queries));
            struct attention_range keys = block_rows(step, blocks.all_keys, blocks.first, key);
            struct attention_range rows = block_rows(step, blocks.rows, blocks.first, query);
            show_block(&unit, keys.begin, keys.end, rows.begin, rows.end);
            shown = true;
        }
        if (shown && step->done != NULL)
            atomic_store_explicit(&step->done[i], number + 1, memory_order_release);
    }
    uncovered_leave(&job->uncovered, &place);
    atomic_fetch_sub(&job->uncovered.units, max_int(0, pairs_end - begin));
    if (end > pairs_end) uncovered_meanwhile(&job->uncovered, &place);
    return LNET_OK;
}

/* The most rows that a strip of the level may have, */
static int64_t most_rows(const struct attention_pattern *pattern, int64_t level, int64_t longest) {
    const struct lnet_dilation *dilation = pattern->dilation;
    int64_t w = min_int(dilation->segment_lengths.items[level], longest);
    return max_int(1, ceil_div(w, dilation->dilation_rates.items[level]));
}

/* and the most queries. */
static int64_t most_queries(const struct attention_pattern *pattern, int64_t level,
                            int64_t longest) {
    int64_t queries = ceil_div(pattern->queries, pattern->dilation->dilation_rates.items[level]);
    return min_int(most_rows(pattern, level, longest), queries + 3); /* 3 before the first */
}

/* Every pair of the level, in the job's pass. */
static lnet_status show_level(struct backward_step *step) {
    lnet_status status = LNET_OK;
    struct backward *job = step->job;
    const struct attention_pattern *pattern = &job->pattern;
    int64_t heads = step->end_kv_head - job->first_kv_head, longest = 0, segments = 0;
    for (int64_t i = step->first_sequence; i < step->end_sequence; i++) {
        struct attention_sequence sequence = attention_sequence_at(pattern, i);
        struct attention_range range = segments_of(step, sequence);
        step->segments[i] = segments;
        segments += range.end - range.begin;
        longest = max_int(longest, sequence.length);
    }
    int64_t rows = most_rows(pattern, step->level, longest);
    int64_t queries = most_queries(pattern, step->level, longest);
    int64_t wanted =
        min_int(ceil_div(WANTED_UNITS, max_int(1, segments * heads)), ceil_div(queries, MIN_BLOCK));
    int64_t blocks = max_int(wanted, ceil_div(queries, MAX_BLOCK));
    /* one block of queries has no other to be even with: its keys come as many at a time as may */
    int64_t block = blocks > 1 ? ceil_div(queries, blocks) : min_int(rows, MAX_BLOCK);
    step->block = round_up(block, QUERY_TILE);
    step->blocks = ceil_div(queries, step->block);
    step->key_blocks = ceil_div(rows, step->block) + (pattern->queries < pattern->rows);
    step->units = segments * heads * step->blocks;
    if (step->key_blocks > 1) {
        LNET_TRY(lnet_alloc((void **)&step->done, step->units * (int64_t)sizeof *step->done));
        for (int64_t i = 0; i < step->units; i++) atomic_init(&step->done[i], 0);
    }
    step->tasks = step->units * step->key_blocks;
    atomic_init(&job->uncovered.units, step->tasks);
    int64_t grain = max_int(1, MIN_BLOCK / rows);
    int64_t turns = uncovered_turns(&job->uncovered, job->workers);
    LNET_TRY(lnet_parallel_for_workers(step->tasks + turns * grain, grain, job->workers, show_units,
                                       step));
fail:
    lnet_free((void *)step->done);
    step->done = NULL;
    return status;
}

/* Sums of the rows that some level covers and a query sees, rounded into tensors of another dtype.
 */
static lnet_status store_rows(void *context, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const struct backward_step *step = context;
    const struct backward *job = step->job;
    const struct attention_pattern *pattern = &job->pattern;
    int64_t width = pattern->width, levels = pattern->dilation->segment_lengths.count;
    const struct gradient_rows all[] = {job->dq, job->dk, job->dv};
    const lnet_tensor *out[] = {job->args->dq, job->args->dk, job->args->dv};
    struct attention_row at = {0};
    for (int64_t row = begin; row < end; row++) {
        int64_t query = attention_queries_before(pattern, job->first_row + row);
        bool no_query = attention_queries_before(pattern, job->first_row + row + 1) == query;
        attention_row_set(&at, pattern, job->first_row + row);
        for (int i = 0; i < 3; i++) {
            if (all[i].queries && no_query) continue;
            int64_t from = all[i].queries ? query - job->first_query : row;
            int64_t to = all[i].queries ? query : job->first_row + row;
            int64_t heads = out[i]->shape[2], group = pattern->heads / heads;
            int64_t first = job->first_kv_head * heads / pattern->kv_heads;
            for (int64_t head = 0; head < all[i].step / width; head++) {
                int64_t reader = (first + head) * group;
                if (attention_row_covers(&at, pattern, levels, reader, reader + group))
                    store_floats(out[i]->data, (to * heads + first + head) * width,
                                 all[i].data + from * all[i].step + head * width, width,
                                 out[i]->dtype);
            }
        }
    }
    return LNET_OK;
}

/* The rows and kv heads of one wave: add up every level, store. */
static lnet_status run_wave(struct backward_step *step) {
    lnet_status status;
    struct backward *job = step->job;
    const struct attention_pattern *pattern = &job->pattern;
    int64_t rows = step->end_row - job->first_row;
    int64_t statistics = pattern->batch * pattern->heads * pattern->queries;
    step->first_sequence = attention_sequence_after(pattern, job->first_row);
    step->end_sequence = step->first_sequence;
    while (step->end_sequence < pattern->sequences &&
           attention_sequence_at(pattern, step->end_sequence).begin < step->end_row)
        step->end_sequence++;
    for (step->level = 0; step->level < pattern->dilation->segment_lengths.count; step->level++) {
        if (pattern->dilation->detached) {
            memset(job->delta, 0, (size_t)statistics * sizeof(float));
            memset(job->weight, 0, (size_t)statistics * sizeof(float));
            job->pass = DELTA_PASS;
            LNET_TRY(show_level(step));
        }
        job->pass = GRADIENT_PASS;
        LNET_TRY(show_level(step));
    }
    if (job->args->dq->dtype != LNET_FLOAT32)
        LNET_TRY(lnet_parallel_for(rows, ROWS_PER_CHUNK, store_rows, step));
fail:
    return status;
}

/* Rows after which all levels begin new segments; `length` where that never happens before. */
static int64_t nesting_rows(const struct attention_pattern *pattern, int64_t length) {
    const lnet_int64_list w = pattern->dilation->segment_lengths;
    int64_t rows = 1;
    for (int64_t i = 0; i < w.count; i++) {
        int64_t a = rows, b = w.items[i];
        while (b != 0) {
            int64_t rest = a % b;
            a = b;
            b = rest;
        }
        if (w.items[i] >= length || __builtin_mul_overflow(rows / a, w.items[i], &rows) ||
            rows >= length)
            return length;
    }
    return rows;
}

/* The first row after `row` that shares no segment with it. */
static int64_t next_border(const struct attention_pattern *pattern, int64_t row) {
    int64_t i = attention_sequence_after(pattern, row);
    if (i == pattern->sequences) return pattern->batch * pattern->rows;
    struct attention_sequence sequence = attention_sequence_at(pattern, i);
    if (row < sequence.begin) return sequence.begin;
    int64_t nesting = nesting_rows(pattern, sequence.length);
    int64_t border = ((row - sequence.begin) / nesting + 1) * nesting;
    return sequence.begin + min_int(border, sequence.length);
}

/* Gradients of 16-bit tensors are added up in float32 beside them: for so many rows and heads at a
 * time that this takes about a hundredth of the tensors' memory, where segments allow it. */
static lnet_status run_waves(struct backward_step *step) {
    lnet_status status = LNET_OK;
    struct backward *job = step->job;
    const struct attention_pattern *pattern = &job->pattern;
    int64_t total = pattern->batch * pattern->rows, kv_heads = pattern->kv_heads;
    int64_t group = pattern->heads / kv_heads, floats = pattern->width * (group + 2);
    int64_t budget = max_int(MIN_WAVE_FLOATS, total * kv_heads * floats / 50), most = 0;
    float *memory = NULL;
    for (int64_t row = 0, next; row < total; row = next) {
        next = next_border(pattern, row);
        most = max_int(most, next - row);
    }
    int64_t heads = max_int(1, min_int(kv_heads, budget / max_int(1, most * floats)));
    int64_t rows = min_int(total, max_int(most, budget / (heads * floats)));
    int64_t queries = min_int(rows, pattern->batch * pattern->queries);
    floats = pattern->width * (queries * group + rows * 2);
    LNET_TRY(lnet_alloc((void **)&memory, heads * floats * (int64_t)sizeof(float)));
    for (int64_t head = 0; head < kv_heads; head += heads) {
        for (job->first_row = 0; job->first_row < total; job->first_row = step->end_row) {
            int64_t next = next_border(pattern, job->first_row);
            do step->end_row = next;
            while (next < total && (next = next_border(pattern, next)) - job->first_row <= rows);
            job->first_query = attention_queries_before(pattern, job->first_row);
            if (attention_queries_before(pattern, step->end_row) == job->first_query) continue;
            job->first_kv_head = head;
            step->end_kv_head = min_int(kv_heads, head + heads);
            int64_t step_kv = (step->end_kv_head - head) * pattern->width;
            job->dq = (struct gradient_rows){memory, step_kv * group, true};
            job->dk = (struct gradient_rows){memory + queries * step_kv * group, step_kv, false};
            job->dv = (struct gradient_rows){job->dk.data + rows * step_kv, step_kv, false};
            LNET_TRY(run_wave(step));
        }
    }
fail:
    lnet_free(memory);
    return status;
}

/* The most queries that a pair of blocks may have, in whole tiles. */
static int64_t most_block_rows(const struct attention_pattern *pattern) {
    int64_t most = 1, longest = longest_sequence(pattern);
    for (int64_t level = 0; level < pattern->dilation->segment_lengths.count; level++)
        most = max_int(most, most_queries(pattern, level, longest));
    return round_up(min_int(most, MAX_BLOCK), QUERY_TILE);
}

lnet_status
LNET_CPU(dilated_attention_backward)(const struct lnet_dilated_attention_backward_args *args,
                                     lnet_stream *stream) {
    (void)stream;
    lnet_status status;
    struct backward job = {.args = args,
                           .pattern = attention_pattern_of(&args->dilation, args->q, args->k),
                           .uncovered.tensors = {args->dq, args->dk, args->dv},
                           .workers = lnet_num_threads()};
    struct attention_pattern *pattern = &job.pattern;
    struct backward_step step = {.job = &job};
    struct backward_unit unit;
    int64_t statistics = pattern->batch * pattern->heads * pattern->queries;
    job.key_tile = KEY_TILE_FLOATS / pattern->width / (GROUP_PANELS * LANES) * GROUP_PANELS * LANES;
    job.key_tile = max_int(GROUP_PANELS * LANES, min_int(MAX_KEY_TILE, job.key_tile));
    job.block_rows = most_block_rows(pattern);
    job.scratch_floats = backward_lay_out(&unit, &job, NULL);
    LNET_TRY(lnet_alloc((void **)&job.delta, statistics * (int64_t)sizeof(float)));
    if (args->dilation.detached)
        LNET_TRY(lnet_alloc((void **)&job.weight, statistics * (int64_t)sizeof(float)));
    LNET_TRY(
        lnet_alloc((void **)&step.segments, (pattern->sequences + 1) * (int64_t)sizeof(int64_t)));
    LNET_TRY(attention_pattern_offsets(pattern));
    uncovered_begin(&job.uncovered, pattern);
    LNET_TRY(lnet_alloc((void **)&job.scratch,
                        job.workers * job.scratch_floats * (int64_t)sizeof(float)));
    if (args->dq->dtype == LNET_FLOAT32) {
        int64_t step_kv = pattern->kv_heads * pattern->width;
        job.dq = (struct gradient_rows){args->dq->data, pattern->heads * pattern->width, true};
        job.dk = (struct gradient_rows){args->dk->data, step_kv, false};
        job.dv = (struct gradient_rows){args->dv->data, step_kv, false};
        step.end_row = pattern->batch * pattern->rows;
        step.end_kv_head = pattern->kv_heads;
        LNET_TRY(run_wave(&step));
    } else {
        LNET_TRY(run_waves(&step));
    }
    LNET_TRY(uncovered_end(&job.uncovered));
fail:
    lnet_free(pattern->offsets);
    lnet_free(job.scratch);
    lnet_free(step.segments);
    lnet_free(job.weight);
    lnet_free(job.delta);
    return status;
}
