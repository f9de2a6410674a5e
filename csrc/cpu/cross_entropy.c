#include "ops/cross_entropy.h"

#include "cpu/functions.h"
#include "cpu/rows.h"

/* Logits that stay in the L1 cache from their maximum to their sum; short sums err less. */
enum { BLOCK = 512 };

/* Of a row the largest element and the sum of exp(x - largest). */
struct softmax {
    float largest, sum;
};

static float block_max(const float *x, int64_t n) {
    vec largest = vec_set(-INFINITY);
    int64_t i = 0;
    for (; i + VLEN <= n; i += VLEN) largest = vec_max(largest, vec_load(x + i));
    if (i < n) largest = vec_max(largest, vec_load_part(x + i, n - i, -INFINITY));
    return vec_hmax(largest);
}

/* The sum of exp(x - shift); the terms go to `terms` unless it is NULL. */
static float block_sum(float *terms, const float *x, int64_t n, float shift) {
    vec sum = {0};
    int64_t i = 0;
    for (; i + VLEN <= n; i += VLEN) {
        vec term = vec_exp_negative(vec_load(x + i) - shift);
        if (terms != NULL) vec_store(terms + i, term);
        sum += term;
    }
    if (i < n) {
        vec term = vec_exp_negative(vec_load_part(x + i, n - i, -INFINITY) - shift);
        if (terms != NULL) vec_store_part(terms + i, term, n - i);
        sum += term;
    }
    return vec_sum(sum);
}

/* Reads the row once, block by block. Each block's terms are relative to the largest element so
 * far, kept in `shifts`. Of a row with a NaN or +inf, or of nothing but -inf, the sum is NaN or 0,
 * and so loss and gradient become NaN. */
static struct softmax softmax_terms(float *terms, float *shifts, const float *x, int64_t width) {
    struct softmax s = {-INFINITY, 0.0f};
    for (int64_t first = 0; first < width; first += BLOCK) {
        int64_t n = width - first < BLOCK ? width - first : BLOCK;
        float before = s.largest, largest = block_max(x + first, n);
        if (largest > s.largest) s.largest = largest;
        float shift = s.largest == -INFINITY ? 0.0f : s.largest; /* -inf - -inf would be NaN */
        shifts[first / BLOCK] = s.largest;
        s.sum = s.sum * expf(before - shift) +
                block_sum(terms != NULL ? terms + first : NULL, x + first, n, shift);
    }
    return s;
}

/* Turns the terms into scale * probability. */
static void scale_terms(float *terms, const float *shifts, int64_t width, struct softmax s,
                        float scale) {
    for (int64_t first = 0; first < width; first += BLOCK) {
        int64_t n = width - first < BLOCK ? width - first : BLOCK;
        float factor = expf(shifts[first / BLOCK] - s.largest) * (scale / s.sum);
        for (int64_t i = 0; i < n; i++) terms[first + i] *= factor;
    }
}

/* loss (M,) and dlogits (M, V) for rows [begin, end). */
static lnet_status loss_rows(void *context, int64_t begin, int64_t end, int worker) {
    const struct row_job *job = context;
    const struct lnet_cross_entropy_args *a = job->args;
    int64_t width = job->width;
    float *scratch = row_scratch(job, worker), *shifts = scratch + 2 * job->stride;
    float *loss = a->loss->data, *dx = NULL, scale = (float)a->scale;
    for (int64_t m = begin; m < end; m++) {
        int64_t target = lnet_index(a->targets, m);
        if (a->dlogits != NULL) dx = row_out(a->dlogits, m * width, scratch + job->stride);
        if (target == a->ignore_index) {
            loss[m] = 0.0f;
            if (dx != NULL) memset(dx, 0, (size_t)width * sizeof *dx);
        } else {
            const float *x = row_in(a->logits, m * width, width, scratch);
            float x_target = x[target]; /* dx may be x */
            struct softmax s = softmax_terms(dx, shifts, x, width);
            loss[m] = logf(s.sum) - (x_target - s.largest);
            if (dx != NULL) {
                scale_terms(dx, shifts, width, s, scale);
                dx[target] -= scale;
            }
        }
        if (dx != NULL) row_done(a->dlogits, m * width, width, dx);
    }
    return LNET_OK;
}

lnet_status LNET_CPU(cross_entropy)(const struct lnet_cross_entropy_args *args,
                                    lnet_stream *stream) {
    (void)stream;
    return for_rows(args, args->logits, 3, loss_rows);
}
