#include "ops/sum_rows.h"

#include "cpu/rows.h"

static lnet_status add_rows(void *context, int64_t begin, int64_t end, int worker) {
    const struct row_job *job = context;
    const struct lnet_sum_rows_args *a = job->args;
    float *total = row_sums(job, worker);
    for (int64_t m = begin; m < end; m++) {
        const float *x = row_in(a->x, m * job->width, job->width, row_scratch(job, worker));
        for (int64_t d = 0; d < job->width; d += VLEN)
            vec_store(total + d, vec_load(total + d) + row_load(x, d, job->width));
    }
    return LNET_OK;
}

lnet_status LNET_CPU(sum_rows)(const struct lnet_sum_rows_args *args, lnet_stream *stream) {
    (void)stream;
    lnet_tensor *const sums[] = {args->out};
    return for_rows_with_sums(args, args->x, 1, add_rows, 1, sums);
}
