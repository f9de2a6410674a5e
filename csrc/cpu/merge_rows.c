#include "ops/merge_rows.h"

#include "cpu/stepped_rows.h"

/* The row at `place` of out becomes keep * itself + take * the row at `from` of part; a side
 * without weight is not looked at. */
static void mix_row(const struct lnet_merge_rows_args *a, int64_t place, float keep, int64_t from,
                    float take) {
    float out_scratch[STEPPED_SLAB], part_scratch[STEPPED_SLAB];
    int64_t width = a->out->shape[3];
    for (int64_t first = 0; first < width; first += STEPPED_SLAB) {
        int64_t n = width - first < STEPPED_SLAB ? width - first : STEPPED_SLAB;
        const float *part = row_in(a->part, from + first, n, part_scratch);
        const float *before = row_in(a->out, place + first, n, out_scratch);
        float *out = row_out(a->out, place + first, out_scratch);
        for (int64_t d = 0; d < n; d += VLEN) {
            vec mixed = row_load(part, d, n) * take;
            if (keep != 0.0f) mixed += row_load(before, d, n) * keep;
            row_store(out, d, n, mixed);
        }
        row_done(a->out, place + first, n, out);
    }
}

static void merge_kernel(const struct stepped_job *job, int64_t batch, int64_t head, int64_t begin,
                         int64_t end) {
    const struct lnet_merge_rows_args *a = job->args;
    const struct lnet_stepped_rows *rows = &job->heads[head];
    int64_t length = a->out->shape[1], width = a->out->shape[3];
    int64_t part = batch * job->head_count + head;
    const float *part_lse = (const float *)a->part_lse->data + part * job->rows;
    float *lse = (float *)a->lse->data + part * length;
    for (int64_t m = begin; m < end; m++) {
        int64_t k = rows->first + m;
        if (!stepped_has(rows, k) || part_lse[m] == -INFINITY) continue;
        int64_t n = stepped_row(job, rows, k);
        float l = lse[n], p = part_lse[m];
        /* the weights of the larger denominator and of the smaller one */
        float ratio = expf(-fabsf(l - p)), large = 1.0f / (1.0f + ratio), small = ratio * large;
        bool kept = l > p;
        lse[n] = (kept ? l : p) + log1pf(ratio);
        mix_row(a, ((batch * length + n) * job->head_count + head) * width, kept ? large : small,
                (part * job->rows + m) * width, kept ? small : large);
    }
}

lnet_status LNET_CPU(merge_rows)(const struct lnet_merge_rows_args *args, lnet_stream *stream) {
    (void)stream;
    return for_stepped_rows(args, merge_kernel, args->part, args->out->shape[1], args->starts,
                            args->step);
}
