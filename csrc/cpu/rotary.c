#include "ops/rotary.h"

#include "cpu/positions.h"
#include "cpu/rows.h"

/* Tables of one number a pair, shared by all threads, and memory for each thread's state. */
struct rotary_job {
    const struct lnet_rotary_args *args;
    int64_t pairs;      /* D / 2 */
    long double *turns; /* base^(-2i/D) / (2 pi); at position 2^40 float64 would be too short */
    double *log_zeta;
    double *step_cos, *step_sin, *step_zoom; /* from one position to the next */
    double *states;                          /* (threads, STATE_DOUBLES * pairs) */
};

/* What a thread knows of the position it is at. */
struct state {
    double *cos, *sin, *zoom; /* (pairs,) */
    float *straight;          /* (D,): z cos a, twice for each pair */
    float *crossed;           /* (D,): -z sin a and z sin a for each pair */
    float *in, *out;          /* (D,): scratch */
};

enum { CHUNK_ROWS = 128, STATE_DOUBLES = 7 };

static struct state worker_state(const struct rotary_job *job, int worker) {
    int64_t pairs = job->pairs, dim = 2 * pairs;
    double *numbers = job->states + worker * STATE_DOUBLES * pairs;
    float *rows = (float *)(numbers + 3 * pairs);
    return (struct state){numbers,    numbers + pairs, numbers + 2 * pairs, rows,
                          rows + dim, rows + 2 * dim,  rows + 3 * dim};
}

/* zeta^(sign * power / scale_base), computed from its logarithm. */
static double zoom_of(const struct rotary_job *job, int64_t pair, double power) {
    const struct lnet_rotary_args *a = job->args;
    if (a->scale_base == 0.0) return 1.0;
    return exp((double)a->sign * power / a->scale_base * job->log_zeta[pair]);
}

static void set_zoom(const struct rotary_job *job, struct state *s, int64_t position) {
    int64_t block = job->args->block;
    double power = block > 0 ? (double)(position % block) - 0.5 * (double)block : 0.0;
    for (int64_t i = 0; i < job->pairs; i++) s->zoom[i] = zoom_of(job, i, power);
}

static void set_position(const struct rotary_job *job, struct state *s, int64_t position) {
    for (int64_t i = 0; i < job->pairs; i++) {
        long double turns = (long double)position * job->turns[i];
        double angle = 2.0 * M_PI * (double)(turns - rintl(turns));
        s->cos[i] = cos(angle);
        s->sin[i] = sin(angle);
    }
    set_zoom(job, s, position);
}

/* From position - 1 to position. */
static void advance(const struct rotary_job *job, struct state *s, int64_t position) {
    for (int64_t i = 0; i < job->pairs; i++) {
        double c = s->cos[i], d = s->sin[i];
        s->cos[i] = c * job->step_cos[i] - d * job->step_sin[i];
        s->sin[i] = d * job->step_cos[i] + c * job->step_sin[i];
        s->zoom[i] *= job->step_zoom[i];
    }
    if (job->args->scale_base > 0.0 && position % job->args->block == 0) set_zoom(job, s, position);
}

static void make_tables(const struct rotary_job *job, struct state *s) {
    double direction = job->args->inverse ? -1.0 : 1.0;
    for (int64_t i = 0; i < job->pairs; i++) {
        float c = (float)(s->zoom[i] * s->cos[i]), d = (float)(direction * s->zoom[i] * s->sin[i]);
        s->straight[2 * i] = s->straight[2 * i + 1] = c;
        s->crossed[2 * i] = -d;
        s->crossed[2 * i + 1] = d;
    }
}

static vec swap_neighbours(vec x) {
    veci order;
    for (int i = 0; i < VLEN; i++) order[i] = i ^ 1;
    return __builtin_shuffle(x, order);
}

/* Heads first, first + 1, ... of x (..., D), which all stand at the state's position. */
static void turn_heads(const struct rotary_job *job, const struct state *s, int64_t first,
                       int64_t heads) {
    const struct lnet_rotary_args *a = job->args;
    int64_t dim = 2 * job->pairs;
    for (int64_t h = first; h < first + heads; h++) {
        const float *x = row_in(a->x, h * dim, dim, s->in);
        float *out = row_out(a->out, h * dim, s->out);
        for (int64_t d = 0; d < dim; d += VLEN) {
            vec pairs = row_load(x, d, dim);
            row_store(out, d, dim,
                      pairs * row_load(s->straight, d, dim) +
                          swap_neighbours(pairs) * row_load(s->crossed, d, dim));
        }
        row_done(a->out, h * dim, dim, out);
    }
}

static lnet_status turn_rows(void *context, int64_t begin, int64_t end, int worker) {
    const struct rotary_job *job = context;
    const struct lnet_rotary_args *a = job->args;
    struct state s = worker_state(job, worker);
    int64_t heads = a->x->shape[2], position = 0, run_end = 0;
    for (int64_t row = begin; row < end; row++) {
        if (row >= run_end) {
            position = row_position(a->x, a->start, a->cu_seqlens, row, &run_end);
            set_position(job, &s, position);
        } else {
            advance(job, &s, ++position);
        }
        make_tables(job, &s);
        turn_heads(job, &s, row * heads, heads);
    }
    return LNET_OK;
}

static void make_steps(struct rotary_job *job) {
    const struct lnet_rotary_args *a = job->args;
    for (int64_t i = 0; i < job->pairs; i++) {
        long double share = (long double)i / (long double)job->pairs; /* 2i / D */
        long double frequency = lnet_rotary_frequency(a, powl((long double)a->base, -share));
        job->turns[i] = frequency / (2.0L * 3.14159265358979323846264338327950288L);
        job->log_zeta[i] = log(((double)share + 0.4) / 1.4);
        job->step_cos[i] = cos((double)frequency);
        job->step_sin[i] = sin((double)frequency);
        job->step_zoom[i] = zoom_of(job, i, 1.0);
    }
}

lnet_status LNET_CPU(rotary)(const struct lnet_rotary_args *args, lnet_stream *stream) {
    struct rotary_job job = {.args = args, .pairs = args->x->shape[3] / 2};
    int64_t rows = args->x->shape[0] * args->x->shape[1];
    int workers = lnet_num_threads();
    lnet_status status;
    (void)stream;
    LNET_TRY(lnet_alloc((void **)&job.turns, job.pairs * (int64_t)sizeof *job.turns));
    LNET_TRY(lnet_alloc((void **)&job.log_zeta,
                        (4 + workers * STATE_DOUBLES) * job.pairs * (int64_t)sizeof *job.log_zeta));
    job.step_cos = job.log_zeta + job.pairs;
    job.step_sin = job.step_cos + job.pairs;
    job.step_zoom = job.step_sin + job.pairs;
    job.states = job.step_zoom + job.pairs;
    make_steps(&job);
    LNET_TRY(lnet_parallel_for_workers(rows, CHUNK_ROWS, workers, turn_rows, &job));
fail:
    lnet_free(job.log_zeta);
    lnet_free(job.turns);
    return status;
}
