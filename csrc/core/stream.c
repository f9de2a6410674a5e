#include "lnet/device.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

enum { MAX_DEPTH = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static lnet_stream *live; /* all of this process; the lock guards the list and the next line */
static lnet_stream *default_streams[LNET_MAX_DEVICES];

static _Thread_local lnet_stream *stack[MAX_DEPTH];
static _Thread_local int depth;

/* ---- their lives ---- */

static lnet_status add(lnet_stream **stream, int32_t device, void *handle, bool owned) {
    lnet_stream *s = malloc(sizeof *s);
    *stream = s;
    if (s == NULL) return lnet_fail(LNET_MEMORY_ERROR, "out of host memory: a stream");
    *s = (lnet_stream){.handle = handle, .device = device, .owned = owned, .references = 1};
    pthread_mutex_lock(&lock);
    s->next = live;
    if (live != NULL) live->previous = s;
    live = s;
    pthread_mutex_unlock(&lock);
    return LNET_OK;
}

lnet_status lnet_stream_new(lnet_stream **stream, int32_t device) {
    const lnet_cuda *cuda;
    void *handle;
    lnet_status status;
    LNET_TRY(lnet_cuda_device(&cuda, device));
    LNET_TRY(cuda->stream_create(device, &handle));
    status = add(stream, device, handle, true);
fail:
    return status;
}

lnet_status lnet_stream_wrap(lnet_stream **stream, int32_t device, void *handle) {
    lnet_status status;
    LNET_TRY(lnet_cuda_device(NULL, device));
    status = add(stream, device, handle, false);
fail:
    return status;
}

lnet_stream *lnet_stream_retain(lnet_stream *stream) {
    __atomic_fetch_add(&stream->references, 1, __ATOMIC_RELAXED);
    return stream;
}

void lnet_stream_release(lnet_stream *stream) {
    const lnet_cuda *cuda;
    if (stream == NULL || __atomic_fetch_sub(&stream->references, 1, __ATOMIC_ACQ_REL) != 1) return;
    pthread_mutex_lock(&lock);
    if (stream->previous != NULL)
        stream->previous->next = stream->next;
    else
        live = stream->next;
    if (stream->next != NULL) stream->next->previous = stream->previous;
    pthread_mutex_unlock(&lock);
    if (stream->owned && lnet_cuda_get(&cuda) == LNET_OK) cuda->stream_destroy(stream);
    free(stream);
}

/* ---- the current one ---- */

lnet_status lnet_stream_current(lnet_stream **stream, int32_t device) {
    lnet_status status;
    for (int i = depth - 1; i >= 0; i--)
        if (stack[i]->device == device) {
            *stream = stack[i];
            return LNET_OK;
        }
    LNET_TRY(lnet_cuda_device(NULL, device));
    pthread_mutex_lock(&lock);
    *stream = default_streams[device];
    pthread_mutex_unlock(&lock);
    if (*stream != NULL) return LNET_OK;
    LNET_TRY(lnet_stream_new(stream, device));
    pthread_mutex_lock(&lock);
    lnet_stream *ours = *stream, *theirs = default_streams[device];
    if (theirs == NULL) default_streams[device] = ours;
    pthread_mutex_unlock(&lock);
    if (theirs != NULL) { /* another thread was first */
        lnet_stream_release(ours);
        *stream = theirs;
    }
fail:
    return status;
}

lnet_status lnet_stream_push(lnet_stream *stream) {
    if (depth == MAX_DEPTH)
        return lnet_fail(LNET_VALUE_ERROR,
                         "%d streams are current in this thread, expected at most"
                         " %d inside each other",
                         depth, MAX_DEPTH);
    stack[depth++] = lnet_stream_retain(stream);
    return LNET_OK;
}

lnet_status lnet_stream_pop(lnet_stream *stream) {
    if (depth == 0 || stack[depth - 1] != stream)
        return lnet_fail(LNET_VALUE_ERROR,
                         "a stream is left that is not this thread's innermost current stream");
    lnet_stream_release(stack[--depth]);
    return LNET_OK;
}

/* ---- order between streams ---- */

lnet_status lnet_stream_after(lnet_stream *stream, lnet_stream *other) {
    const lnet_cuda *cuda;
    void *event = NULL;
    lnet_status status;
    if (stream->handle == other->handle && stream->device == other->device) return LNET_OK;
    LNET_TRY(lnet_cuda_get(&cuda));
    LNET_TRY(cuda->event_create(other->device, false, &event));
    LNET_TRY(cuda->event_record(event, other));
    LNET_TRY(cuda->stream_wait(stream, event));
fail:
    if (event != NULL) cuda->event_destroy(event);
    return status;
}

lnet_status lnet_stream_after_all(lnet_stream *stream) {
    lnet_status status = LNET_OK;
    pthread_mutex_lock(&lock); /* keeps each stream of the list alive */
    for (lnet_stream *other = live; other != NULL && status == LNET_OK; other = other->next)
        status = lnet_stream_after(stream, other);
    pthread_mutex_unlock(&lock);
    return status;
}
