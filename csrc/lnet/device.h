/* The boundary between the core and the CUDA backend, and the core's side of it.
 *
 * The CUDA backend is a shared object that nothing links to. The core opens it on first use, hands
 * it a lnet_host and gets a lnet_cuda back; each side calls the other through these tables alone.
 * A stream is a queue of work on one device. Every thread has a current stream of each device:
 * the innermost that it pushed, else the device's default stream, which is ours alone. */
#ifndef LNET_DEVICE_H
#define LNET_DEVICE_H

#include "lnet/backend.h"
#include "lnet/comm.h"
#include "lnet/parallel.h"

enum { LNET_MAX_DEVICES = 64 };

/* The one symbol that the CUDA backend exports. Its number changes with any struct that both sides
 * see; one of another number does not open. */
#define LNET_CUDA_OPEN lnet_cuda_open_4
#define LNET_CUDA_OPEN_NAME "lnet_cuda_open_4"

struct lnet_stream {
    void *handle; /* cudaStream_t */
    int32_t device;
    bool owned; /* destroyed with this; false where another library made the handle */
    int64_t references;
    struct lnet_stream *previous, *next; /* all that live, kept by the core */
};

typedef struct lnet_device_properties {
    char name[256];
    int32_t major, minor; /* compute capability */
    int32_t multiprocessors;
    int64_t total_bytes;
} lnet_device_properties;

/* What the core gives. */
typedef struct lnet_host {
    lnet_status (*fail)(lnet_status code, const char *format, ...);
    lnet_status (*parallel_for)(int64_t count, int64_t grain, lnet_task task, void *context);
    /* Scratch of a launcher: counted, and ordered on the stream like the kernels that use it. */
    lnet_status (*alloc)(void **memory, int64_t bytes, lnet_stream *stream);
    void (*free)(void *memory, int64_t bytes, lnet_stream *stream);
} lnet_host;

/* What the CUDA backend gives. Events are cudaEvent_t; a stream's work is queued, never awaited,
 * except where a line says so. The calling thread's current device is left as it was. */
typedef struct lnet_cuda {
    int32_t device_count;
    int32_t driver_version, runtime_version; /* 13000 is CUDA 13.0 */
    const char *ops;                         /* the ops that it was built for, in order */
    lnet_status (*properties)(int32_t device, lnet_device_properties *properties);
    lnet_status (*device_synchronize)(int32_t device);

    lnet_status (*stream_create)(int32_t device, void **handle);
    void (*stream_destroy)(lnet_stream *stream); /* waits for its work */
    lnet_status (*stream_synchronize)(lnet_stream *stream);
    lnet_status (*stream_wait)(lnet_stream *stream, void *event);

    lnet_status (*event_create)(int32_t device, bool timing, void **event);
    void (*event_destroy)(void *event);
    lnet_status (*event_record)(void *event, lnet_stream *stream);
    lnet_status (*event_synchronize)(void *event);
    lnet_status (*event_query)(void *event, bool *done);
    lnet_status (*event_elapsed)(double *seconds, void *start, void *stop);

    lnet_status (*alloc)(void **memory, int64_t bytes, lnet_stream *stream);
    void (*free)(void *memory, lnet_stream *stream);
    lnet_status (*trim)(int32_t device); /* gives unused memory back to the system; waits */
    lnet_status (*memory_info)(int32_t device, int64_t *reserved, int64_t *free, int64_t *total);
    lnet_status (*pinned_alloc)(void **memory, int64_t bytes);
    void (*pinned_free)(void *memory);

    lnet_status (*fill)(void *memory, int byte, int64_t bytes, lnet_stream *stream);
    /* From and to host memory; from pageable memory in pieces through pinned buffers, and then
     * copy_in waits until `host` may change and copy_out until it is complete. */
    lnet_status (*copy_in)(void *memory, const void *host, int64_t bytes, bool pinned,
                           lnet_stream *stream);
    lnet_status (*copy_out)(void *host, const void *memory, int64_t bytes, bool pinned,
                            lnet_stream *stream);
    /* Between devices, on the stream of the target's. */
    lnet_status (*copy_peer)(void *target, const void *source, int32_t source_device, int64_t bytes,
                             lnet_stream *stream);
    /* Any strides into a contiguous tensor of the same shape and device. */
    lnet_status (*copy_strided)(const lnet_tensor *target, const lnet_tensor *source,
                                lnet_stream *stream);
    /* Fails unless `memory` is memory of the device. */
    lnet_status (*check_pointer)(const char *name, const void *memory, int32_t device);
    /* The device of a pointer; fails where it is none of a GPU. */
    lnet_status (*pointer_device)(const char *name, const void *memory, int32_t *device);

    lnet_comm_table comm;
    lnet_backend backend; /* slots of ops without a CUDA kernel are NULL */
} lnet_cuda;

/* ---- the loader (csrc/core/cuda.c) ---- */

/* Where the shared object lies; LONGNET_CUDA_LIBRARY overrides it. */
void lnet_cuda_set_path(const char *path);
const char *lnet_cuda_path(void);

/* The CUDA backend, opened once; where it cannot be, each call fails with the cause and the
 * remedy. `cuda` may be NULL. */
lnet_status lnet_cuda_get(const lnet_cuda **cuda);

/* The ops of the GPUs: on the stream given, or the thread's current one of the tensors' device. */
extern const lnet_backend lnet_cuda_backend;

/* As lnet_cuda_get, and the device exists. */
lnet_status lnet_cuda_device(const lnet_cuda **cuda, int32_t device);

/* ---- streams (csrc/core/stream.c) ---- */

lnet_status lnet_stream_new(lnet_stream **stream, int32_t device);
/* Over a handle of another library, which must outlive whatever uses it. */
lnet_status lnet_stream_wrap(lnet_stream **stream, int32_t device, void *handle);
lnet_stream *lnet_stream_retain(lnet_stream *stream);
void lnet_stream_release(lnet_stream *stream); /* NULL is allowed */

/* This thread's current stream of a device; a borrowed reference, good until the next pop. */
lnet_status lnet_stream_current(lnet_stream **stream, int32_t device);
lnet_status lnet_stream_push(lnet_stream *stream);
/* Fails unless `stream` is the innermost. */
lnet_status lnet_stream_pop(lnet_stream *stream);

/* The number that other libraries know a stream by; 1 is CUDA's default stream. */
static inline void *lnet_stream_number(const lnet_stream *stream) {
    return stream->handle != NULL ? stream->handle : (void *)1;
}

/* `stream` goes on after the work queued on `other` so far. */
lnet_status lnet_stream_after(lnet_stream *stream, lnet_stream *other);
/* `stream` goes on after the work queued so far on every stream of ours. */
lnet_status lnet_stream_after_all(lnet_stream *stream);

/* ---- memory (csrc/core/device_memory.c) ---- */

/* Device memory, counted, ordered on the stream. */
lnet_status lnet_device_alloc(void **memory, int64_t bytes, lnet_stream *stream);
void lnet_device_free(void *memory, int64_t bytes, lnet_stream *stream);

/* Calls release(owner) once the work queued on `stream` so far is done; takes over a reference to
 * the stream. */
void lnet_release_after(lnet_stream *stream, void (*release)(void *owner), void *owner);
/* Calls what is due of these. */
void lnet_release_due(void);

/* ---- page-locked host memory (csrc/core/pinned_memory.c) ---- */

typedef struct lnet_pinned {
    void *memory;
    int64_t bytes;
    struct lnet_pinned *next;
} lnet_pinned;

lnet_status lnet_pinned_alloc(lnet_pinned **block, int64_t bytes);
void lnet_pinned_free(void *block); /* a lnet_pinned; kept for another request */
void lnet_pinned_trim(void);        /* gives back what is kept */

/* Bytes that tensors and scratch of ours hold on a device now, and the most since the last reset.
 */
int64_t lnet_device_bytes(int32_t device);
int64_t lnet_device_peak_bytes(int32_t device);
void lnet_device_reset_peak(int32_t device);

#endif
