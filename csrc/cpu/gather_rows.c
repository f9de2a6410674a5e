#include "ops/gather_rows.h"

#include "cpu/stepped_rows.h"

static void gather_kernel(const struct stepped_job *job, int64_t batch, int64_t head, int64_t begin,
                          int64_t end) {
    const struct lnet_gather_rows_args *a = job->args;
    const struct lnet_stepped_rows *rows = &job->heads[head];
    const lnet_tensor *x = a->x;
    int64_t size = (int64_t)lnet_dtype_size(x->dtype) * x->shape[3];
    int64_t pitch = x->shape[2] * size;
    const char *from = (const char *)x->data + batch * x->shape[1] * pitch +
                       head / (job->head_count / x->shape[2]) * size;
    char *to = (char *)a->out->data + (batch * job->head_count + head) * job->rows * size;
    for (int64_t m = begin; m < end; m++) {
        int64_t k = rows->first + m;
        if (stepped_has(rows, k))
            memcpy(to + m * size, from + stepped_row(job, rows, k) * pitch, (size_t)size);
        else
            memset(to + m * size, 0, (size_t)size);
    }
}

static void gather_lse_kernel(const struct stepped_job *job, int64_t batch, int64_t head,
                              int64_t begin, int64_t end) {
    const struct lnet_gather_rows_args *a = job->args;
    const struct lnet_stepped_rows *rows = &job->heads[head];
    int64_t part = batch * job->head_count + head;
    const float *from = (const float *)a->x->data + part * a->x->shape[2];
    float *to = (float *)a->out->data + part * job->rows;
    for (int64_t m = begin; m < end; m++) {
        int64_t k = rows->first + m;
        to[m] = stepped_has(rows, k) ? from[stepped_row(job, rows, k)] : -INFINITY;
    }
}

lnet_status LNET_CPU(gather_rows)(const struct lnet_gather_rows_args *args, lnet_stream *stream) {
    const lnet_tensor *x = args->x;
    (void)stream;
    if (x->ndim == 3)
        return for_stepped_rows(args, gather_lse_kernel, args->out, x->shape[2], args->starts,
                                args->step);
    return for_stepped_rows(args, gather_kernel, args->out, x->shape[1], args->starts, args->step);
}
