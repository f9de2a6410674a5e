/* sched_getaffinity is not POSIX. */
#define _GNU_SOURCE
#include "lnet/parallel.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MAX_THREADS = 1024, MESSAGE_BYTES = 512 };

/* One call of lnet_parallel_for. */
typedef struct job {
    lnet_task task;
    void *context;
    int64_t count, grain, chunks;
    _Atomic int64_t next_chunk;
    _Atomic int64_t failed_chunk; /* the earliest that failed, or `chunks` */
    pthread_mutex_t failure_lock;
    lnet_status failure;
    char message[MESSAGE_BYTES];
} job;

static struct {
    pthread_mutex_t use; /* held by the thread whose call the pool serves */
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    pthread_t threads[MAX_THREADS];
    int started;         /* threads that exist, beside the caller */
    int wanted;          /* threads that take part in the job, beside the caller */
    int running;         /* of those, the ones that have not finished */
    uint64_t generation; /* jobs so far */
    job *current;
} pool = {
    .use = PTHREAD_MUTEX_INITIALIZER,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .start = PTHREAD_COND_INITIALIZER,
    .done = PTHREAD_COND_INITIALIZER,
};

static atomic_int thread_count = 1;
static int (*_Atomic interrupt_check)(void);
static _Thread_local job *current_job; /* whose task this thread is in */

void lnet_set_interrupt_check(int (*check)(void)) {
    atomic_store(&interrupt_check, check);
}

static void record_failure(job *j, int64_t chunk, lnet_status status) {
    pthread_mutex_lock(&j->failure_lock);
    if (chunk < atomic_load(&j->failed_chunk)) {
        atomic_store(&j->failed_chunk, chunk);
        j->failure = status;
        snprintf(j->message, sizeof j->message, "%s", lnet_message());
    }
    pthread_mutex_unlock(&j->failure_lock);
}

/* Takes chunks until none is left. Only the calling thread asks for interrupts. */
static void work(job *j, int worker) {
    bool caller = worker == 0;
    job *outer = current_job;
    current_job = j;
    for (;;) {
        int64_t chunk = atomic_fetch_add(&j->next_chunk, 1);
        if (chunk >= j->chunks || chunk > atomic_load(&j->failed_chunk)) break;
        int (*check)(void) = caller ? atomic_load(&interrupt_check) : NULL;
        if (check != NULL && check() != 0) {
            record_failure(j, -1, LNET_INTERRUPTED);
            break;
        }
        int64_t begin = chunk * j->grain;
        int64_t end = begin + j->grain < j->count ? begin + j->grain : j->count;
        lnet_status status = j->task(j->context, begin, end, worker);
        if (status != LNET_OK) record_failure(j, chunk, status);
    }
    current_job = outer;
}

bool lnet_parallel_ends(void) {
    return current_job != NULL && atomic_load(&current_job->failed_chunk) < current_job->chunks;
}

static void *worker_main(void *argument) {
    int worker = (int)(intptr_t)argument;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (pool.generation == seen || worker > pool.wanted) {
            seen = pool.generation;
            pthread_cond_wait(&pool.start, &pool.lock);
        }
        seen = pool.generation;
        job *j = pool.current;
        pthread_mutex_unlock(&pool.lock);
        work(j, worker);
        pthread_mutex_lock(&pool.lock);
        if (--pool.running == 0) pthread_cond_signal(&pool.done);
    }
    return NULL;
}

/* A forked child has only the thread that forked: it starts again with an empty pool. Taking the
 * locks before the fork instead would deadlock with a job whose interrupt check waits for a lock
 * of the forking thread, such as Python's. */
static void after_fork_child(void) {
    pthread_mutex_init(&pool.use, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.start, NULL);
    pthread_cond_init(&pool.done, NULL);
    pool.started = pool.wanted = pool.running = 0;
    pool.generation = 0;
}

static void install_fork_handlers(void) {
    pthread_atfork(NULL, NULL, after_fork_child);
}

static int usable_processors(void) {
    cpu_set_t set;
    int usable = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                             : (int)sysconf(_SC_NPROCESSORS_ONLN);
    return usable < 1 ? 1 : usable < MAX_THREADS ? usable : MAX_THREADS;
}

lnet_status lnet_parallel_init(void) {
    const char *value = getenv("LONGNET_NUM_THREADS");
    if (value == NULL || *value == '\0') return lnet_set_num_threads(usable_processors());
    char *end;
    errno = 0;
    long n = strtol(value, &end, 10);
    if (*end != '\0' || errno != 0 || n < 1 || n > MAX_THREADS)
        return lnet_fail(LNET_VALUE_ERROR, "LONGNET_NUM_THREADS=%.40s: expected 1 to %d", value,
                         MAX_THREADS);
    return lnet_set_num_threads((int)n);
}

int lnet_num_threads(void) {
    return atomic_load(&thread_count);
}

lnet_status lnet_set_num_threads(int n) {
    if (n < 1 || n > MAX_THREADS)
        return lnet_fail(LNET_VALUE_ERROR, "%d threads, expected 1 to %d", n, MAX_THREADS);
    atomic_store(&thread_count, n);
    return LNET_OK;
}

/* Starts threads up to `wanted`; fewer are enough where the system refuses more. */
static void start_threads(int wanted) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install_fork_handlers);
    while (pool.started < wanted) {
        int worker = pool.started + 1;
        if (pthread_create(&pool.threads[worker - 1], NULL, worker_main,
                           (void *)(intptr_t)worker) != 0)
            break;
        pool.started = worker;
    }
}

lnet_status lnet_parallel_for(int64_t count, int64_t grain, lnet_task task, void *context) {
    return lnet_parallel_for_workers(count, grain, lnet_num_threads(), task, context);
}

lnet_status lnet_parallel_for_workers(int64_t count, int64_t grain, int workers, lnet_task task,
                                      void *context) {
    if (count <= 0) return LNET_OK;
    job j = {.task = task, .context = context, .count = count, .grain = grain < 1 ? 1 : grain};
    j.chunks = (count - 1) / j.grain + 1;
    atomic_init(&j.failed_chunk, j.chunks);
    pthread_mutex_init(&j.failure_lock, NULL);

    int64_t helpers = workers - 1;
    if (helpers > j.chunks - 1) helpers = j.chunks - 1;
    if (helpers > 0 && current_job == NULL && pthread_mutex_trylock(&pool.use) == 0) {
        pthread_mutex_lock(&pool.lock);
        start_threads((int)helpers);
        pool.wanted = helpers < pool.started ? (int)helpers : pool.started;
        pool.running = pool.wanted;
        pool.current = &j;
        pool.generation++;
        pthread_cond_broadcast(&pool.start);
        pthread_mutex_unlock(&pool.lock);
        work(&j, 0);
        pthread_mutex_lock(&pool.lock);
        while (pool.running > 0) pthread_cond_wait(&pool.done, &pool.lock);
        pthread_mutex_unlock(&pool.lock);
        pthread_mutex_unlock(&pool.use);
    } else {
        work(&j, 0);
    }
    pthread_mutex_destroy(&j.failure_lock);
    if (j.failure == LNET_OK || j.failure == LNET_INTERRUPTED) return j.failure;
    return lnet_fail(j.failure, "%s", j.message);
}
