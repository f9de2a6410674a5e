/* Copies between host and device, and between devices.
 *
 * A GPU reads page-locked memory on its own. Pageable memory goes in pieces through page-locked
 * buffers of ours, which the threads of the CPU fill or empty while the GPU copies the one before.
 */
#include "cuda/common.cuh"

#include <mutex>
#include <string.h>

static const int PIECES = 3;
static const int64_t PIECE_BYTES = 8 << 20, GRAIN = 512 << 10;

struct staging {
    char *piece[PIECES];
    cudaEvent_t done[PIECES]; /* the GPU's last copy from or to the piece */
    int next;                 /* piece of the next copy in, so that small ones wait for none */
};

static lnet_status staging_of(staging **found, int32_t device) {
    static staging all[LNET_MAX_DEVICES];
    staging *s = &all[device];
    lnet_status status = LNET_OK;
    for (int i = 0; i < PIECES && s->done[i] == NULL; i++) {
        if (s->piece[i] == NULL)
            LNET_CUDA_TRY(cudaHostAlloc(reinterpret_cast<void **>(&s->piece[i]), PIECE_BYTES,
                                        cudaHostAllocPortable));
        LNET_CUDA_TRY(cudaEventCreateWithFlags(&s->done[i], cudaEventDisableTiming));
    }
    *found = s;
fail:
    return status;
}

/* One copy at a time on a device. */
static std::mutex &staging_lock(int32_t device) {
    static std::mutex locks[LNET_MAX_DEVICES];
    return locks[device];
}

struct span {
    char *target;
    const char *source;
};

static lnet_status copy_span(void *context, int64_t begin, int64_t end, int worker) {
    const span *s = static_cast<const span *>(context);
    (void)worker;
    memcpy(s->target + begin, s->source + begin, static_cast<size_t>(end - begin));
    return LNET_OK;
}

static lnet_status copy_on_host(void *target, const void *source, int64_t bytes) {
    span s = {static_cast<char *>(target), static_cast<const char *>(source)};
    return lnet_cuda_host->parallel_for(bytes, GRAIN, copy_span, &s);
}

static int64_t piece_bytes(int64_t bytes, int64_t begin) {
    return bytes - begin < PIECE_BYTES ? bytes - begin : PIECE_BYTES;
}

static lnet_status copy_in(void *memory, const void *host, int64_t bytes, bool pinned,
                           lnet_stream *stream) {
    lnet_device_scope scope(stream->device);
    cudaStream_t queue = lnet_cuda_stream(stream);
    staging *s;
    lnet_status status = scope.status;
    if (status != LNET_OK) return status;
    if (pinned)
        return lnet_cuda_check(cudaMemcpyAsync(memory, host, static_cast<size_t>(bytes),
                                               cudaMemcpyHostToDevice, queue),
                               "cudaMemcpyAsync");
    std::lock_guard<std::mutex> guard(staging_lock(stream->device));
    LNET_TRY(staging_of(&s, stream->device));
    for (int64_t begin = 0; begin < bytes; begin += PIECE_BYTES) {
        int64_t count = piece_bytes(bytes, begin);
        int i = s->next;
        s->next = (i + 1) % PIECES;
        LNET_CUDA_TRY(cudaEventSynchronize(s->done[i]));
        LNET_TRY(copy_on_host(s->piece[i], static_cast<const char *>(host) + begin, count));
        LNET_CUDA_TRY(cudaMemcpyAsync(static_cast<char *>(memory) + begin, s->piece[i],
                                      static_cast<size_t>(count), cudaMemcpyHostToDevice, queue));
        LNET_CUDA_TRY(cudaEventRecord(s->done[i], queue));
    }
fail:
    return status;
}

/* The GPU fills piece after piece; each is emptied PIECES - 1 pieces later. */
static lnet_status copy_out(void *host, const void *memory, int64_t bytes, bool pinned,
                            lnet_stream *stream) {
    lnet_device_scope scope(stream->device);
    cudaStream_t queue = lnet_cuda_stream(stream);
    staging *s;
    int64_t pieces = (bytes + PIECE_BYTES - 1) / PIECE_BYTES;
    lnet_status status = scope.status;
    if (status != LNET_OK) return status;
    if (pinned)
        return lnet_cuda_check(cudaMemcpyAsync(host, memory, static_cast<size_t>(bytes),
                                               cudaMemcpyDeviceToHost, queue),
                               "cudaMemcpyAsync");
    std::lock_guard<std::mutex> guard(staging_lock(stream->device));
    LNET_TRY(staging_of(&s, stream->device));
    for (int64_t p = 0; p < pieces + PIECES - 1; p++) {
        int64_t full = p - (PIECES - 1);
        if (full >= 0) {
            int64_t begin = full * PIECE_BYTES;
            LNET_CUDA_TRY(cudaEventSynchronize(s->done[full % PIECES]));
            LNET_TRY(copy_on_host(static_cast<char *>(host) + begin, s->piece[full % PIECES],
                                  piece_bytes(bytes, begin)));
        }
        if (p < pieces) {
            int64_t begin = p * PIECE_BYTES;
            LNET_CUDA_TRY(cudaStreamWaitEvent(queue, s->done[p % PIECES], 0));
            LNET_CUDA_TRY(cudaMemcpyAsync(
                s->piece[p % PIECES], static_cast<const char *>(memory) + begin,
                static_cast<size_t>(piece_bytes(bytes, begin)), cudaMemcpyDeviceToHost, queue));
            LNET_CUDA_TRY(cudaEventRecord(s->done[p % PIECES], queue));
        }
    }
fail:
    return status;
}

static lnet_status copy_peer(void *target, const void *source, int32_t source_device, int64_t bytes,
                             lnet_stream *stream) {
    lnet_device_scope scope(stream->device);
    if (scope.status != LNET_OK) return scope.status;
    return lnet_cuda_check(cudaMemcpyPeerAsync(target, stream->device, source, source_device,
                                               static_cast<size_t>(bytes),
                                               lnet_cuda_stream(stream)),
                           "cudaMemcpyPeerAsync");
}

static lnet_status fill(void *memory, int byte, int64_t bytes, lnet_stream *stream) {
    lnet_device_scope scope(stream->device);
    if (scope.status != LNET_OK) return scope.status;
    return lnet_cuda_check(
        cudaMemsetAsync(memory, byte, static_cast<size_t>(bytes), lnet_cuda_stream(stream)),
        "cudaMemsetAsync");
}

void lnet_cuda_add_copies(lnet_cuda *table) {
    table->fill = fill;
    table->copy_in = copy_in;
    table->copy_out = copy_out;
    table->copy_peer = copy_peer;
    table->copy_strided = lnet_cuda_copy_strided;
}
