#include "ops/layer_norm.h"

#include "cpu/norm.h"

/* x (M, D) -> y (M, D), mean (M,), rstd (M,) for rows [begin, end). */
static lnet_status forward_rows(void *context, int64_t begin, int64_t end, int worker) {
    const struct row_job *job = context;
    const struct lnet_layer_norm_args *a = job->args;
    int64_t width = job->width;
    float *scratch = row_scratch(job, worker);
    float *mean = a->mean->data, *rstd = a->rstd->data;
    const float *weight = row_in(a->weight, 0, width, scratch + 2 * job->stride);
    const float *bias = row_in(a->bias, 0, width, scratch + 3 * job->stride);
    for (int64_t m = begin; m < end; m++) {
        const float *h = norm_input(a->x, a->residual, a->sum, a->gelu, m, width, scratch,
                                    scratch + 4 * job->stride);
        float *y = row_out(a->y, m * width, scratch + job->stride);
        mean[m] = row_sum(h, width) / (float)width;
        rstd[m] = 1.0f / sqrtf(row_sum_squares(h, mean[m], width) / (float)width + (float)a->eps);
        for (int64_t d = 0; d < width; d += VLEN) {
            vec n = (row_load(h, d, width) - mean[m]) * rstd[m];
            row_store(y, d, width, n * row_load(weight, d, width) + row_load(bias, d, width));
        }
        row_done(a->y, m * width, width, y);
    }
    return LNET_OK;
}

lnet_status LNET_CPU(layer_norm)(const struct lnet_layer_norm_args *args, lnet_stream *stream) {
    (void)stream;
    return for_rows(args, args->x, 5, forward_rows);
}

/* dx for rows [begin, end), and these rows' share of dweight and dbias into the run's sums. */
static lnet_status backward_rows(void *context, int64_t begin, int64_t end, int worker) {
    const struct row_job *job = context;
    const struct lnet_layer_norm_backward_args *a = job->args;
    int64_t width = job->width;
    float *scratch = row_scratch(job, worker);
    float *dweight = row_sums(job, worker), *dbias = dweight + job->stride;
    const float *mean = a->mean->data, *rstd = a->rstd->data;
    const float *weight = row_in(a->weight, 0, width, scratch + 3 * job->stride);
    for (int64_t m = begin; m < end; m++) {
        const float *x = row_in(a->x, m * width, width, scratch);
        const float *dy = row_in(a->dy, m * width, width, scratch + job->stride);
        const float *h = a->gelu ? row_gelu(x, width, scratch + 4 * job->stride) : x, *dsum = NULL;
        if (a->dsum != NULL) dsum = row_in(a->dsum, m * width, width, scratch + 5 * job->stride);
        float *dx = row_out(a->dx, m * width, scratch + 2 * job->stride);
        vec sum_g = {0}, sum_gn = {0};
        for (int64_t d = 0; d < width; d += VLEN) {
            vec n = (row_load(h, d, width) - mean[m]) * rstd[m];
            vec dy_d = row_load(dy, d, width), g = dy_d * row_load(weight, d, width);
            vec_store(dweight + d, vec_load(dweight + d) + dy_d * n);
            vec_store(dbias + d, vec_load(dbias + d) + dy_d);
            sum_g += g;
            sum_gn += g * n;
        }
        float mean_g = vec_sum(sum_g) / (float)width, mean_gn = vec_sum(sum_gn) / (float)width;
        for (int64_t d = 0; d < width; d += VLEN) {
            vec n = (row_load(h, d, width) - mean[m]) * rstd[m];
            vec g = row_load(dy, d, width) * row_load(weight, d, width);
            vec dh = (g - mean_g - n * mean_gn) * rstd[m];
            row_store(dx, d, width, norm_input_gradient(dh, x, dsum, a->gelu, d, width));
        }
        row_done(a->dx, m * width, width, dx);
    }
    return LNET_OK;
}

lnet_status LNET_CPU(layer_norm_backward)(const struct lnet_layer_norm_backward_args *args,
                                          lnet_stream *stream) {
    (void)stream;
    lnet_tensor *const sums[] = {args->dweight, args->dbias};
    return for_rows_with_sums(args, args->x, 6, backward_rows, 2, sums);
}
