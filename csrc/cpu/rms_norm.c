#include "ops/rms_norm.h"

#include "cpu/norm.h"

/* x (M, D) -> y (M, D), rstd (M,) for rows [begin, end). */
static lnet_status forward_rows(void *context, int64_t begin, int64_t end, int worker) {
    const struct row_job *job = context;
    const struct lnet_rms_norm_args *a = job->args;
    int64_t width = job->width;
    float *scratch = row_scratch(job, worker), *rstd = a->rstd->data;
    const float *weight = row_in(a->weight, 0, width, scratch + 2 * job->stride);
    for (int64_t m = begin; m < end; m++) {
        const float *h = norm_input(a->x, a->residual, a->sum, a->gelu, m, width, scratch,
                                    scratch + 3 * job->stride);
        float *y = row_out(a->y, m * width, scratch + job->stride);
        rstd[m] = 1.0f / sqrtf(row_sum_squares(h, 0.0f, width) / (float)width + (float)a->eps);
        for (int64_t d = 0; d < width; d += VLEN)
            row_store(y, d, width, row_load(h, d, width) * rstd[m] * row_load(weight, d, width));
        row_done(a->y, m * width, width, y);
    }
    return LNET_OK;
}

lnet_status LNET_CPU(rms_norm)(const struct lnet_rms_norm_args *args, lnet_stream *stream) {
    (void)stream;
    return for_rows(args, args->x, 4, forward_rows);
}

/* dx for rows [begin, end), and these rows' share of dweight into the run's sum. */
static lnet_status backward_rows(void *context, int64_t begin, int64_t end, int worker) {
    const struct row_job *job = context;
    const struct lnet_rms_norm_backward_args *a = job->args;
    int64_t width = job->width;
    float *scratch = row_scratch(job, worker), *dweight = row_sums(job, worker);
    const float *rstd = a->rstd->data;
    const float *weight = row_in(a->weight, 0, width, scratch + 3 * job->stride);
    for (int64_t m = begin; m < end; m++) {
        const float *x = row_in(a->x, m * width, width, scratch);
        const float *dy = row_in(a->dy, m * width, width, scratch + job->stride);
        const float *h = a->gelu ? row_gelu(x, width, scratch + 4 * job->stride) : x, *dsum = NULL;
        if (a->dsum != NULL) dsum = row_in(a->dsum, m * width, width, scratch + 5 * job->stride);
        float *dx = row_out(a->dx, m * width, scratch + 2 * job->stride);
        vec sum = {0};
        for (int64_t d = 0; d < width; d += VLEN) {
            vec n = row_load(h, d, width) * rstd[m], dy_n = row_load(dy, d, width) * n;
            vec_store(dweight + d, vec_load(dweight + d) + dy_n);
            sum += dy_n * row_load(weight, d, width);
        }
        float c = vec_sum(sum) / (float)width;
        for (int64_t d = 0; d < width; d += VLEN) {
            vec n = row_load(h, d, width) * rstd[m];
            vec g = row_load(dy, d, width) * row_load(weight, d, width);
            vec dh = (g - n * c) * rstd[m];
            row_store(dx, d, width, norm_input_gradient(dh, x, dsum, a->gelu, d, width));
        }
        row_done(a->dx, m * width, width, dx);
    }
    return LNET_OK;
}

lnet_status LNET_CPU(rms_norm_backward)(const struct lnet_rms_norm_backward_args *args,
                                        lnet_stream *stream) {
    (void)stream;
    lnet_tensor *const sums[] = {args->dweight};
    return for_rows_with_sums(args, args->x, 6, backward_rows, 1, sums);
}
