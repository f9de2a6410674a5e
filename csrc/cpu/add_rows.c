/* Heads of a group may meet in a row of x: the first of them adds up all of theirs. */
#include "ops/add_rows.h"

#include "cpu/stepped_rows.h"

/* Whether head `other` has row k of those with the residue of `rows`. */
static bool meets(const struct stepped_job *job, const struct lnet_stepped_rows *rows, int64_t k,
                  int64_t other) {
    const struct lnet_stepped_rows *others = &job->heads[other];
    return others->residue == rows->residue && k >= others->first && k < others->first + job->rows;
}

/* Row k of `head` and of the heads after it up to group_end; `place` is where x has it. */
static void add_row(const struct stepped_job *job, int64_t batch, int64_t head, int64_t group_end,
                    int64_t k, int64_t place) {
    const struct lnet_add_rows_args *a = job->args;
    const struct lnet_stepped_rows *rows = &job->heads[head];
    float sum_scratch[STEPPED_SLAB], part_scratch[STEPPED_SLAB];
    int64_t width = a->x->shape[3];
    for (int64_t first = 0; first < width; first += STEPPED_SLAB) {
        int64_t n = width - first < STEPPED_SLAB ? width - first : STEPPED_SLAB;
        const float *before = row_in(a->x, place + first, n, sum_scratch);
        float *sum = row_out(a->x, place + first, sum_scratch);
        for (int64_t h = head; h < group_end; h++) {
            if (!meets(job, rows, k, h)) continue;
            int64_t row = (batch * job->head_count + h) * job->rows + k - job->heads[h].first;
            const float *part = row_in(a->part, row * width + first, n, part_scratch);
            for (int64_t d = 0; d < n; d += VLEN)
                row_store(sum, d, n, row_load(before, d, n) + row_load(part, d, n));
        }
        row_done(a->x, place + first, n, sum);
    }
}

static void add_kernel(const struct stepped_job *job, int64_t batch, int64_t head, int64_t begin,
                       int64_t end) {
    const struct lnet_add_rows_args *a = job->args;
    const struct lnet_stepped_rows *rows = &job->heads[head];
    const int64_t *shape = a->x->shape;
    int64_t group = job->head_count / shape[2], group_begin = head / group * group;
    for (int64_t m = begin; m < end; m++) {
        int64_t k = rows->first + m;
        bool done = !stepped_has(rows, k);
        for (int64_t h = group_begin; h < head && !done; h++) done = meets(job, rows, k, h);
        if (done) continue;
        int64_t row = (batch * shape[1] + stepped_row(job, rows, k)) * shape[2] + head / group;
        add_row(job, batch, head, group_begin + group, k, row * shape[3]);
    }
}

lnet_status LNET_CPU(add_rows)(const struct lnet_add_rows_args *args, lnet_stream *stream) {
    (void)stream;
    return for_stepped_rows(args, add_kernel, args->part, args->x->shape[1], args->starts,
                            args->step);
}
