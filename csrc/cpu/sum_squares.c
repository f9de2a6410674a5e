#include "ops/sum_squares.h"

#include "cpu/convert.h"
#include "cpu/cpu.h"

enum { CHUNK = 1 << 16, BLOCK = 1024, LANES = 16 };

struct sum_job {
    const lnet_tensor *x;
    double *partials; /* one a chunk */
};

static lnet_status add_chunk(void *context, int64_t begin, int64_t end, int worker) {
    const struct sum_job *job = context;
    double sums[LANES] = {0}, total = 0.0;
    float scratch[BLOCK];
    (void)worker;
    for (int64_t first = begin; first < end; first += BLOCK) {
        int64_t n = end - first < BLOCK ? end - first : BLOCK, i = 0;
        const float *x = row_in(job->x, first, n, scratch);
        for (; i + LANES <= n; i += LANES)
            for (int j = 0; j < LANES; j++) sums[j] += (double)x[i + j] * (double)x[i + j];
        for (; i < n; i++) sums[0] += (double)x[i] * (double)x[i];
    }
    for (int j = 0; j < LANES; j++) total += sums[j];
    job->partials[begin / CHUNK] = total;
    return LNET_OK;
}

lnet_status LNET_CPU(sum_squares)(const struct lnet_sum_squares_args *args, lnet_stream *stream) {
    struct sum_job job = {.x = args->x};
    int64_t count = lnet_tensor_count(args->x), chunks = (count + CHUNK - 1) / CHUNK;
    double total = 0.0;
    lnet_status status;
    (void)stream;
    LNET_TRY(lnet_alloc((void **)&job.partials, chunks * (int64_t)sizeof *job.partials));
    LNET_TRY(lnet_parallel_for(count, CHUNK, add_chunk, &job));
    for (int64_t i = 0; i < chunks; i++) total += job.partials[i];
    *(float *)args->out->data = (float)total;
fail:
    lnet_free(job.partials);
    return status;
}
