/* Backward dilated attention: level after level over the same gradients.
 *
 * The strips of a level are cut into blocks of rows, and a step pairs block i of the keys with
 * block i + step of the queries, so that the pairs of a step touch no row twice and can run at
 * once; a pair of the next step waits only for the two that had its blocks before. Steps, levels
 * and all within a pair have one order: the sums come out the same on any number of threads. */
#include "ops/dilated_attention.h"

#include "cpu/attention_backward.h"
#include "cpu/cpu.h"

#include <sched.h>

enum {
    MAX_BLOCK = 2304, /* rows of a block: a pair ends within a tenth of a second or so */
    MIN_BLOCK = 192,
    WANTED_UNITS = 16,   /* blocks become smaller to have as many pairs at once */
    ROWS_PER_CHUNK = 64, /* of the pass that stores */
    MIN_WAVE_FLOATS = 4 << 20,
};

/* A level of the rows [first_row, end_row), kv heads [first_kv_head, end_kv_head). */
struct backward_step {
    struct backward *job;
    int64_t end_row, end_kv_head;
    int64_t level, block, blocks; /* rows of a block; blocks of the longest strip */
    int64_t units;                /* pairs of blocks of one step */
    _Atomic int64_t *done;        /* (units,) steps that a block of keys is through with */
    int64_t first_sequence, end_sequence;
    int64_t *segments; /* (sequences + 1,) of this level, before each sequence of the wave */
};

/* The first row of a sequence's segment that begins at or after `row`, as the segment's number. */
static int64_t segment_from(const struct attention_pattern *pattern,
                            struct attention_sequence sequence, int64_t level, int64_t row) {
    int64_t w = min_int(pattern->dilation->segment_lengths.items[level], sequence.length);
    return w == 0 ? 0 : ceil_div(min_int(row - sequence.begin, sequence.length), w);
}

/* Until the unit's pairs of earlier steps are done; false where they may never be. */
static bool wait_for(const struct backward_step *step, int64_t unit, int64_t steps,
                     struct uncovered_place *place) {
    while (atomic_load_explicit(&step->done[unit], memory_order_acquire) < steps) {
        if (lnet_parallel_ends()) return false;
        uncovered_go_on(&step->job->uncovered, place, BACKWARD_ZEROS);
        sched_yield();
    }
    return true;
}

static lnet_status show_units(void *context, int64_t begin, int64_t end, int worker) {
    const struct backward_step *step = context;
    struct backward *job = step->job;
    const struct attention_pattern *pattern = &job->pattern;
    int64_t kv_heads = step->end_kv_head - job->first_kv_head;
    int64_t group = pattern->heads / pattern->kv_heads;
    struct ahead ahead = {0};
    struct uncovered_place place = {0};
    struct backward_unit unit = {.ahead = &ahead, .place = &place};
    backward_lay_out(&unit, job, job->scratch + worker * job->scratch_floats);
    for (int64_t task = begin; task < end; task++) {
        int64_t i = task % step->units, number = task / step->units;
        int64_t block = i % step->blocks, segment = i / step->blocks / kv_heads;
        int64_t low = step->first_sequence, high = step->end_sequence - 1;
        while (low < high) { /* the last sequence with no more than `segment` before it */
            int64_t middle = low + (high - low + 1) / 2;
            if (step->segments[middle] <= segment)
                low = middle;
            else
                high = middle - 1;
        }
        struct attention_sequence sequence = attention_sequence_at(pattern, low);
        segment +=
            segment_from(pattern, sequence, step->level, job->first_row) - step->segments[low];
        unit.kv_head = job->first_kv_head + i / step->blocks % kv_heads;
        unit.sequence = sequence;
        bool shown = false;
        for (unit.head = unit.kv_head * group; unit.head < (unit.kv_head + 1) * group;
             unit.head++) {
            struct attention_strip strip =
                attention_strip_of(pattern, sequence, step->level, segment, unit.head);
            int64_t blocks = ceil_div(strip.count, step->block), other = block + number;
            if (block >= blocks || number >= blocks) continue;
            if (other >= blocks) {
                if (pattern->dilation->causal) continue;
                other -= blocks;
            }
            unit.strip = &strip;
            if (number > 0 && (!wait_for(step, i, number, &place) ||
                               !wait_for(step, i - block + (block + 1) % blocks, number, &place)))
                return LNET_OK;
            unit.first_step = number == 0;
            show_block(&unit, block * step->block, min_int((block + 1) * step->block, strip.count),
                       other * step->block, min_int((other + 1) * step->block, strip.count));
            shown = true;
        }
        if (shown && step->blocks > 1) /* one that had nothing to wait for says nothing */
            atomic_store_explicit(&step->done[i], number + 1, memory_order_release);
    }
    uncovered_leave(&job->uncovered, &place);
    return LNET_OK;
}

/* Every pair of the level, in the job's pass. */
static lnet_status show_level(struct backward_step *step) {
    lnet_status status = LNET_OK;
    struct backward *job = step->job;
    const struct attention_pattern *pattern = &job->pattern;
    const struct lnet_dilation *dilation = pattern->dilation;
    int64_t heads = step->end_kv_head - job->first_kv_head, longest = 0, segments = 0;
    for (int64_t i = step->first_sequence; i < step->end_sequence; i++) {
        struct attention_sequence sequence = attention_sequence_at(pattern, i);
        step->segments[i] = segments;
        segments += segment_from(pattern, sequence, step->level, step->end_row) -
                    segment_from(pattern, sequence, step->level, job->first_row);
        longest = max_int(longest, sequence.length);
    }
    int64_t w = min_int(dilation->segment_lengths.items[step->level], longest);
    int64_t rows = max_int(1, ceil_div(w, dilation->dilation_rates.items[step->level]));
    int64_t wanted =
        min_int(ceil_div(WANTED_UNITS, max_int(1, segments * heads)), ceil_div(rows, MIN_BLOCK));
    int64_t blocks = max_int(wanted, ceil_div(rows, MAX_BLOCK));
    step->block = round_up(ceil_div(rows, blocks), QUERY_TILE);
    step->blocks = ceil_div(rows, step->block);
    step->units = segments * heads * step->blocks;
    if (step->blocks > 1) {
        LNET_TRY(lnet_alloc((void **)&step->done, step->units * (int64_t)sizeof *step->done));
        for (int64_t i = 0; i < step->units; i++) atomic_init(&step->done[i], 0);
    }
    LNET_TRY(lnet_parallel_for_workers(step->units * step->blocks, max_int(1, MIN_BLOCK / rows),
                                       job->workers, show_units, step));
fail:
    lnet_free((void *)step->done);
    step->done = NULL;
    return status;
}

/* Sums of the rows that some level covers, rounded into tensors of another dtype. */
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
        attention_row_set(&at, pattern, job->first_row + row);
        for (int i = 0; i < 3; i++) {
            int64_t heads = out[i]->shape[2], group = pattern->heads / heads;
            int64_t first = job->first_kv_head * heads / pattern->kv_heads;
            for (int64_t head = 0; head < all[i].step / width; head++) {
                int64_t reader = (first + head) * group;
                if (attention_row_covers(&at, pattern, levels, reader, reader + group))
                    store_floats(
                        out[i]->data, ((job->first_row + row) * heads + first + head) * width,
                        all[i].data + row * all[i].step + head * width, width, out[i]->dtype);
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
    int64_t statistics = pattern->batch * pattern->heads * pattern->rows;
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
    LNET_TRY(lnet_alloc((void **)&memory, rows * heads * floats * (int64_t)sizeof(float)));
    for (int64_t head = 0; head < kv_heads; head += heads) {
        for (job->first_row = 0; job->first_row < total; job->first_row = step->end_row) {
            int64_t next = next_border(pattern, job->first_row);
            do step->end_row = next;
            while (next < total && (next = next_border(pattern, next)) - job->first_row <= rows);
            job->first_kv_head = head;
            step->end_kv_head = min_int(kv_heads, head + heads);
            int64_t step_kv = (step->end_kv_head - head) * pattern->width;
            job->dq = (struct gradient_rows){memory, step_kv * group};
            job->dk = (struct gradient_rows){memory + rows * step_kv * group, step_kv};
            job->dv = (struct gradient_rows){job->dk.data + rows * step_kv, step_kv};
            LNET_TRY(run_wave(step));
        }
    }
fail:
    lnet_free(memory);
    return status;
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
    int64_t statistics = pattern->batch * pattern->heads * pattern->rows;
    job.key_tile = KEY_TILE_FLOATS / pattern->width / (GROUP_PANELS * LANES) * GROUP_PANELS * LANES;
    job.key_tile = max_int(GROUP_PANELS * LANES, min_int(MAX_KEY_TILE, job.key_tile));
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
        job.dq = (struct gradient_rows){args->dq->data, pattern->heads * pattern->width};
        job.dk = (struct gradient_rows){args->dk->data, pattern->kv_heads * pattern->width};
        job.dv = (struct gradient_rows){args->dv->data, pattern->kv_heads * pattern->width};
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
