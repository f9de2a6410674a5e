#include "ops/bias_add.h"

#include "cpu/rows.h"

static lnet_status add_rows(void *context, int64_t begin, int64_t end, int worker) {
    const struct row_job *job = context;
    const struct lnet_bias_add_args *a = job->args;
    int64_t width = job->width;
    float *scratch = row_scratch(job, worker);
    const float *bias = row_in(a->bias, 0, width, scratch + 2 * job->stride);
    for (int64_t m = begin; m < end; m++) {
        const float *x = row_in(a->x, m * width, width, scratch);
        float *y = row_out(a->y, m * width, scratch + job->stride);
        for (int64_t d = 0; d < width; d += VLEN)
            row_store(y, d, width, row_load(x, d, width) + row_load(bias, d, width));
        row_done(a->y, m * width, width, y);
    }
    return LNET_OK;
}

lnet_status LNET_CPU(bias_add)(const struct lnet_bias_add_args *args, lnet_stream *stream) {
    (void)stream;
    return for_rows(args, args->x, 3, add_rows);
}
