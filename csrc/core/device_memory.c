#include "lnet/device.h"
#include "lnet/memory.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

static struct { _Atomic int64_t now, peak; } bytes_of[LNET_MAX_DEVICES];

static void count_bytes(int32_t device, int64_t bytes) {
    int64_t now = atomic_fetch_add(&bytes_of[device].now, bytes) + bytes;
    int64_t peak = atomic_load(&bytes_of[device].peak);
    while (now > peak && !atomic_compare_exchange_weak(&bytes_of[device].peak, &peak, now)) {
    }
}

int64_t lnet_device_bytes(int32_t device) {
    return atomic_load(&bytes_of[device].now);
}

int64_t lnet_device_peak_bytes(int32_t device) {
    return atomic_load(&bytes_of[device].peak);
}

void lnet_device_reset_peak(int32_t device) {
    atomic_store(&bytes_of[device].peak, atomic_load(&bytes_of[device].now));
}

/* ---- allocation ---- */

static lnet_status out_of_memory(const lnet_cuda *cuda, int64_t bytes, int32_t device) {
    int64_t reserved = 0, free = 0, total = 0;
    int64_t held = lnet_device_bytes(device);
    if (cuda->memory_info(device, &reserved, &free, &total) == LNET_OK && reserved > held)
        free += reserved - held; /* what the pool keeps is free for us */
    return lnet_fail(LNET_MEMORY_ERROR,
                     "out of memory on cuda:%d: %" PRId64 " bytes asked for, %" PRId64
                     " free of %" PRId64 ", %" PRId64 " held by tensors",
                     device, bytes, free, total, held);
}

lnet_status lnet_device_alloc(void **memory, int64_t bytes, lnet_stream *stream) {
    const lnet_cuda *cuda;
    lnet_status status;
    *memory = NULL;
    LNET_TRY(lnet_cuda_get(&cuda));
    lnet_release_due();
    if (lnet_alloc_must_fail()) return out_of_memory(cuda, bytes, stream->device);
    status = cuda->alloc(memory, bytes, stream);
    if (status == LNET_MEMORY_ERROR) { /* once more, when all that is on its way out is gone */
        LNET_TRY(cuda->device_synchronize(stream->device));
        lnet_release_due();
        LNET_TRY(cuda->trim(stream->device));
        status = cuda->alloc(memory, bytes, stream);
    }
    if (status == LNET_MEMORY_ERROR) return out_of_memory(cuda, bytes, stream->device);
    if (status == LNET_OK) count_bytes(stream->device, bytes);
fail:
    return status;
}

void lnet_device_free(void *memory, int64_t bytes, lnet_stream *stream) {
    const lnet_cuda *cuda;
    count_bytes(stream->device, -bytes);
    if (lnet_cuda_get(&cuda) == LNET_OK) cuda->free(memory, stream);
}

/* ---- memory of others, released when the GPU is done with it ---- */

typedef struct pending {
    struct pending *next;
    void *event;
    lnet_stream *stream;
    void (*release)(void *owner);
    void *owner;
} pending;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pending *waiting;

void lnet_release_after(lnet_stream *stream, void (*release)(void *owner), void *owner) {
    const lnet_cuda *cuda;
    void *event = NULL;
    if (lnet_cuda_get(&cuda) != LNET_OK) { /* a forked child: the work is its parent's */
        release(owner);
        lnet_stream_release(stream);
        return;
    }
    pending *p = malloc(sizeof *p);
    if (p == NULL || cuda->event_create(stream->device, false, &event) != LNET_OK ||
        cuda->event_record(event, stream) != LNET_OK) {
        (void)cuda->stream_synchronize(stream);
        if (event != NULL) cuda->event_destroy(event);
        free(p);
        release(owner);
        lnet_stream_release(stream);
        return;
    }
    *p = (pending){.event = event, .stream = stream, .release = release, .owner = owner};
    pthread_mutex_lock(&lock);
    p->next = waiting;
    waiting = p;
    pthread_mutex_unlock(&lock);
}

void lnet_release_due(void) {
    const lnet_cuda *cuda;
    pending *due = NULL;
    if (lnet_cuda_get(&cuda) != LNET_OK) return;
    pthread_mutex_lock(&lock);
    for (pending **link = &waiting; *link != NULL;) {
        pending *p = *link;
        bool done = true; /* also after a fault, which ends all work */
        if (cuda->event_query(p->event, &done) == LNET_OK && !done) {
            link = &p->next;
        } else {
            *link = p->next;
            p->next = due;
            due = p;
        }
    }
    pthread_mutex_unlock(&lock);
    while (due != NULL) { /* without the lock: an owner's code may come back here */
        pending *p = due;
        due = p->next;
        cuda->event_destroy(p->event);
        p->release(p->owner);
        lnet_stream_release(p->stream);
        free(p);
    }
}
