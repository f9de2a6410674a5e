/* Ops on rows a step apart (ops/stepped_rows.h): a kernel gets runs of rows of one head. */
#ifndef LNET_CPU_STEPPED_ROWS_H
#define LNET_CPU_STEPPED_ROWS_H

#include "cpu/rows.h"
#include "ops/stepped_rows.h"

struct stepped_job;

/* Handles rows [begin, end) of the M rows of a head. */
typedef void (*stepped_kernel)(const struct stepped_job *job, int64_t batch, int64_t head,
                               int64_t begin, int64_t end);

struct stepped_job {
    const void *args;
    stepped_kernel kernel;
    struct lnet_stepped_rows *heads; /* (H,) */
    int64_t head_count, rows;        /* H and M */
    int64_t blocks;                  /* of rows */
    int64_t step;
};

enum {
    STEPPED_SLAB = 512, /* elements of a row that a kernel has in scratch memory at a time */
    STEPPED_BLOCK = 32, /* rows; each may lie on a page of its own, all heads' on the same */
};

static inline bool stepped_has(const struct lnet_stepped_rows *rows, int64_t k) {
    return k >= 0 && k < rows->count;
}

static inline int64_t stepped_row(const struct stepped_job *job,
                                  const struct lnet_stepped_rows *rows, int64_t k) {
    return rows->residue + k * job->step;
}

/* Item i is a block of rows of all heads: they are neighbours in the sequence. */
static inline lnet_status run_stepped(void *context, int64_t begin, int64_t end, int worker) {
    const struct stepped_job *job = context;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        int64_t first = i % job->blocks * STEPPED_BLOCK;
        int64_t last = job->rows - first < STEPPED_BLOCK ? job->rows : first + STEPPED_BLOCK;
        for (int64_t h = 0; h < job->head_count; h++)
            job->kernel(job, i / job->blocks, h, first, last);
    }
    return LNET_OK;
}

/* `part` (B*H, M, ...) are the rows; `length` is N. */
static inline lnet_status for_stepped_rows(const void *args, stepped_kernel kernel,
                                           const lnet_tensor *part, int64_t length,
                                           lnet_int64_list starts, int64_t step) {
    struct stepped_job job = {.args = args,
                              .kernel = kernel,
                              .head_count = starts.count,
                              .rows = part->shape[1],
                              .step = step};
    int64_t width = part->ndim > 2 ? part->shape[2] : 1;
    lnet_status status;
    if (part->shape[0] == 0 || job.rows == 0) return LNET_OK;
    job.blocks = (job.rows - 1) / STEPPED_BLOCK + 1;
    LNET_TRY(lnet_alloc((void **)&job.heads, starts.count * (int64_t)sizeof *job.heads));
    for (int64_t h = 0; h < starts.count; h++)
        job.heads[h] = lnet_rows_from(starts.items[h], step, length);
    LNET_TRY(lnet_parallel_for(
        part->shape[0] / starts.count * job.blocks,
        ROW_CHUNK_ELEMENTS / (STEPPED_BLOCK * starts.count * (width + 1)) + 1, run_stepped, &job));
fail:
    lnet_free(job.heads);
    return status;
}

#endif
