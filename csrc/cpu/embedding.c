#include "ops/embedding.h"

#include "cpu/rows.h"

/* out (M, E) for positions [begin, end). */
static lnet_status forward_rows(void *context, int64_t begin, int64_t end, int worker) {
    const struct row_job *job = context;
    const struct lnet_embedding_args *a = job->args;
    int64_t width = job->width;
    float *scratch = row_scratch(job, worker);
    for (int64_t m = begin; m < end; m++) {
        int64_t token = lnet_index(a->tokens, m);
        const float *row = row_in(a->weight, token * width, width, scratch);
        float *out = row_out(a->out, m * width, scratch + job->stride);
        for (int64_t e = 0; e < width; e += VLEN)
            row_store(out, e, width, row_load(row, e, width) * (float)a->scale);
        row_done(a->out, m * width, width, out);
    }
    return LNET_OK;
}

lnet_status LNET_CPU(embedding)(const struct lnet_embedding_args *args, lnet_stream *stream) {
    (void)stream;
    return for_rows(args, args->out, 2, forward_rows);
}

enum {
    SLAB = 128,            /* columns a task handles */
    VOCABULARY_PARTS = 16, /* into which the rows of dweight are cut */
    RUN = 64, /* terms added to a sum of their own, so that rounding errors stay small */
};

/* Positions ordered by their tokens: those of token t begin at order[start[t]]. */
struct backward_job {
    const struct lnet_embedding_backward_args *args;
    int64_t *start; /* (V + 1,) */
    int64_t *order; /* (M,) */
};

/* dweight[token, first : first + n] += scale * the sum of dout's rows with this token. */
static void add_token(const struct backward_job *job, int64_t token, int64_t first, int64_t n) {
    const struct lnet_embedding_backward_args *a = job->args;
    int64_t width = lnet_width(a->dweight), place = token * width + first;
    float scratch[SLAB], run[SLAB], total[SLAB] = {0};
    for (int64_t i = job->start[token]; i < job->start[token + 1];) {
        int64_t run_end = i + RUN < job->start[token + 1] ? i + RUN : job->start[token + 1];
        memset(run, 0, sizeof run);
        for (; i < run_end; i++) {
            const float *dout = row_in(a->dout, job->order[i] * width + first, n, scratch);
            for (int64_t e = 0; e < n; e += VLEN)
                vec_store(run + e, vec_load(run + e) + row_load(dout, e, n));
        }
        for (int64_t e = 0; e < n; e += VLEN)
            vec_store(total + e, vec_load(total + e) + vec_load(run + e));
    }
    const float *before = row_in(a->dweight, place, n, scratch);
    float *after = row_out(a->dweight, place, run);
    for (int64_t e = 0; e < n; e += VLEN)
        row_store(after, e, n, row_load(before, e, n) + vec_load(total + e) * (float)a->scale);
    row_done(a->dweight, place, n, after);
}

/* Task i handles a part of the vocabulary in a slab of columns. */
static lnet_status backward_parts(void *context, int64_t begin, int64_t end, int worker) {
    const struct backward_job *job = context;
    const lnet_tensor *dweight = job->args->dweight;
    int64_t vocabulary = dweight->shape[0], width = dweight->shape[1];
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        int64_t part = i % VOCABULARY_PARTS, first = i / VOCABULARY_PARTS * SLAB;
        int64_t n = width - first < SLAB ? width - first : SLAB;
        int64_t token_end = (part + 1) * vocabulary / VOCABULARY_PARTS;
        for (int64_t t = part * vocabulary / VOCABULARY_PARTS; t < token_end; t++)
            if (job->start[t] < job->start[t + 1]) add_token(job, t, first, n);
    }
    return LNET_OK;
}

/* Counting sort: stable, so that a token's positions stay in order. */
static void sort_positions(const struct backward_job *job) {
    const lnet_tensor *tokens = job->args->tokens;
    int64_t vocabulary = job->args->dweight->shape[0], count = lnet_tensor_count(tokens);
    memset(job->start, 0, (size_t)(vocabulary + 1) * sizeof *job->start);
    for (int64_t m = 0; m < count; m++) job->start[lnet_index(tokens, m)]++;
    for (int64_t t = 0, sum = 0; t <= vocabulary; t++) {
        int64_t tokens_here = job->start[t];
        job->start[t] = sum;
        sum += tokens_here;
    }
    for (int64_t m = 0; m < count; m++) job->order[job->start[lnet_index(tokens, m)]++] = m;
    /* each start[t] has moved on to where t ends */
    memmove(job->start + 1, job->start, (size_t)vocabulary * sizeof *job->start);
    job->start[0] = 0;
}

lnet_status LNET_CPU(embedding_backward)(const struct lnet_embedding_backward_args *args,
                                         lnet_stream *stream) {
    struct backward_job job = {.args = args};
    int64_t vocabulary = args->dweight->shape[0], width = args->dweight->shape[1];
    lnet_status status;
    (void)stream;
    LNET_TRY(lnet_alloc((void **)&job.start, (vocabulary + 1) * (int64_t)sizeof *job.start));
    LNET_TRY(lnet_alloc((void **)&job.order,
                        lnet_tensor_count(args->tokens) * (int64_t)sizeof *job.order));
    sort_positions(&job);
    LNET_TRY(
        lnet_parallel_for((width + SLAB - 1) / SLAB * VOCABULARY_PARTS, 1, backward_parts, &job));
fail:
    lnet_free(job.order);
    lnet_free(job.start);
    return status;
}
