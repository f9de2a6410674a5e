/* Ops that treat a tensor (..., D) as rows: scratch rows for each thread, and sums over all rows (a
 * weight's gradient). A sum is made in three steps, runs of rows in chunks of runs, so that
 * rounding errors stay small and that the result does not depend on the number of threads. */
#ifndef LNET_CPU_ROWS_H
#define LNET_CPU_ROWS_H

#include "cpu/convert.h"
#include "cpu/cpu.h"
#include "cpu/simd.h"
#include "lnet/check.h"

struct row_job {
    const void *args;
    lnet_task task;
    int64_t width;  /* D */
    int64_t stride; /* floats between two rows of scratch or sums */
    int64_t grain;  /* rows a chunk */
    int64_t scratch_rows, sum_rows;
    float *scratch; /* (threads, sum_rows + scratch_rows, stride) */
    float *totals;  /* (chunks, sum_rows, stride) */
};

enum {
    ROW_CHUNK_ELEMENTS = 1 << 15, /* enough to outweigh handing a chunk out */
    ROW_CHUNKS_WITH_SUMS = 64,
    ROW_RUN = 64,
};

/* Where a task adds up its rows: sum_rows rows of zeros, the next one job->stride on. */
static inline float *row_sums(const struct row_job *job, int worker) {
    return job->scratch + worker * (job->sum_rows + job->scratch_rows) * job->stride;
}

/* Unwritten rows of a thread. */
static inline float *row_scratch(const struct row_job *job, int worker) {
    return row_sums(job, worker) + job->sum_rows * job->stride;
}

/* Elements d to d + VLEN - 1 of a row; those past its width are 0 and are not stored. */
static inline vec row_load(const float *row, int64_t d, int64_t width) {
    return d + VLEN <= width ? vec_load(row + d) : vec_load_part(row + d, width - d, 0.0f);
}

static inline void row_store(float *row, int64_t d, int64_t width, vec v) {
    if (d + VLEN <= width)
        vec_store(row + d, v);
    else
        vec_store_part(row + d, v, width - d);
}

/* Several vectors are added up side by side: additions need not wait for each other, and rounding
 * errors stay smaller. So do those of long rows, which are added up in blocks. */
enum { ROW_SUMS = 4, ROW_SUM_BLOCK = 4096 };

/* The sum of (row[d] - mean)^power for d < width <= ROW_SUM_BLOCK, power 1 or 2. */
static inline float row_block_sum(const float *row, float mean, int power, int64_t width) {
    vec sums[ROW_SUMS] = {{0}};
    int64_t d = 0;
    for (; d + ROW_SUMS * VLEN <= width; d += ROW_SUMS * VLEN)
        for (int j = 0; j < ROW_SUMS; j++) {
            vec distance = vec_load(row + d + j * VLEN) - mean;
            sums[j] += power == 2 ? distance * distance : distance;
        }
    for (; d < width; d += VLEN) {
        vec distance =
            (width - d < VLEN ? vec_load_part(row + d, width - d, mean) : vec_load(row + d)) - mean;
        sums[0] += power == 2 ? distance * distance : distance;
    }
    return vec_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

static inline float row_power_sum(const float *row, float mean, int power, int64_t width) {
    float total = 0.0f;
    for (int64_t d = 0; d < width; d += ROW_SUM_BLOCK)
        total += row_block_sum(row + d, mean, power,
                               width - d < ROW_SUM_BLOCK ? width - d : ROW_SUM_BLOCK);
    return total;
}

static inline float row_sum(const float *row, int64_t width) {
    return row_power_sum(row, 0.0f, 1, width);
}

/* The sum of (row[d] - mean)^2. */
static inline float row_sum_squares(const float *row, float mean, int64_t width) {
    return row_power_sum(row, mean, 2, width);
}

/* Adds each of n numbers to those of `total`. */
static inline void row_add(float *total, const float *row, int64_t n) {
    for (int64_t i = 0; i < n; i++) total[i] += row[i];
}

/* A chunk: the op's task in runs of rows, the sums of which go to the chunk's total. */
static inline lnet_status run_chunk(void *context, int64_t begin, int64_t end, int worker) {
    const struct row_job *job = context;
    int64_t sum_floats = job->sum_rows * job->stride;
    float *total = job->totals + begin / job->grain * sum_floats, *sums = row_sums(job, worker);
    memset(total, 0, (size_t)sum_floats * sizeof *total);
    for (int64_t first = begin; first < end; first += ROW_RUN) {
        memset(sums, 0, (size_t)sum_floats * sizeof *sums);
        lnet_status status =
            job->task(context, first, first + ROW_RUN < end ? first + ROW_RUN : end, worker);
        if (status != LNET_OK) return status;
        row_add(total, sums, sum_floats);
    }
    return LNET_OK;
}

/* Runs `task` over the rows of `x`; `sums` vectors (D,) over all rows go to `results`. */
static inline lnet_status for_rows_with_sums(const void *args, const lnet_tensor *x,
                                             int64_t scratch_rows, lnet_task task, int64_t sums,
                                             lnet_tensor *const *results) {
    int64_t rows = lnet_rows(x), width = lnet_width(x);
    struct row_job job = {.args = args,
                          .task = task,
                          .width = width,
                          .stride = (width + 15) / 16 * 16,
                          .grain = width > 0 ? ROW_CHUNK_ELEMENTS / width + 1 : 1,
                          .scratch_rows = scratch_rows,
                          .sum_rows = sums};
    lnet_status status;
    if (sums > 0 && job.grain < rows / ROW_CHUNKS_WITH_SUMS)
        job.grain = rows / ROW_CHUNKS_WITH_SUMS;
    int64_t chunks = rows > 0 ? (rows - 1) / job.grain + 1 : 0, sum_floats = sums * job.stride;
    int workers = lnet_num_threads();
    LNET_TRY(lnet_alloc((void **)&job.scratch,
                        workers * (scratch_rows + sums) * job.stride * (int64_t)sizeof(float)));
    LNET_TRY(lnet_alloc((void **)&job.totals, (chunks + 1) * sum_floats * (int64_t)sizeof(float)));
    LNET_TRY(lnet_parallel_for_workers(rows, job.grain, workers, run_chunk, &job));
    float *total = job.totals + chunks * sum_floats;
    memset(total, 0, (size_t)sum_floats * sizeof *total);
    for (int64_t i = 0; i < chunks; i++) row_add(total, job.totals + i * sum_floats, sum_floats);
    for (int64_t s = 0; s < sums; s++)
        store_floats(results[s]->data, 0, total + s * job.stride, width, results[s]->dtype);
fail:
    lnet_free(job.totals);
    lnet_free(job.scratch);
    return status;
}

static inline lnet_status for_rows(const void *args, const lnet_tensor *x, int64_t scratch_rows,
                                   lnet_task task) {
    return for_rows_with_sums(args, x, scratch_rows, task, 0, NULL);
}

#endif
