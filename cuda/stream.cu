/* Streams and events. */
#include "cuda/common.cuh"

static lnet_status stream_create(int32_t device, void **handle) {
    lnet_device_scope scope(device);
    if (scope.status != LNET_OK) return scope.status;
    return lnet_cuda_check(
        cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t *>(handle), cudaStreamNonBlocking),
        "cudaStreamCreateWithFlags");
}

static void stream_destroy(lnet_stream *stream) {
    lnet_device_scope scope(stream->device);
    (void)cudaStreamSynchronize(lnet_cuda_stream(stream));
    (void)cudaStreamDestroy(lnet_cuda_stream(stream));
    (void)cudaGetLastError();
}

static lnet_status stream_synchronize(lnet_stream *stream) {
    lnet_device_scope scope(stream->device);
    if (scope.status != LNET_OK) return scope.status;
    return lnet_cuda_check(cudaStreamSynchronize(lnet_cuda_stream(stream)),
                           "cudaStreamSynchronize");
}

static lnet_status stream_wait(lnet_stream *stream, void *event) {
    lnet_device_scope scope(stream->device);
    if (scope.status != LNET_OK) return scope.status;
    return lnet_cuda_check(
        cudaStreamWaitEvent(lnet_cuda_stream(stream), static_cast<cudaEvent_t>(event), 0),
        "cudaStreamWaitEvent");
}

static lnet_status event_create(int32_t device, bool timing, void **event) {
    lnet_device_scope scope(device);
    if (scope.status != LNET_OK) return scope.status;
    return lnet_cuda_check(
        cudaEventCreateWithFlags(reinterpret_cast<cudaEvent_t *>(event),
                                 timing ? cudaEventDefault : cudaEventDisableTiming),
        "cudaEventCreateWithFlags");
}

static void event_destroy(void *event) {
    (void)cudaEventDestroy(static_cast<cudaEvent_t>(event));
    (void)cudaGetLastError();
}

static lnet_status event_record(void *event, lnet_stream *stream) {
    lnet_device_scope scope(stream->device);
    if (scope.status != LNET_OK) return scope.status;
    return lnet_cuda_check(
        cudaEventRecord(static_cast<cudaEvent_t>(event), lnet_cuda_stream(stream)),
        "cudaEventRecord");
}

static lnet_status event_synchronize(void *event) {
    return lnet_cuda_check(cudaEventSynchronize(static_cast<cudaEvent_t>(event)),
                           "cudaEventSynchronize");
}

static lnet_status event_query(void *event, bool *done) {
    cudaError_t found = cudaEventQuery(static_cast<cudaEvent_t>(event));
    *done = found != cudaErrorNotReady;
    if (!*done) (void)cudaGetLastError();
    return *done ? lnet_cuda_check(found, "cudaEventQuery") : LNET_OK;
}

static lnet_status event_elapsed(double *seconds, void *start, void *stop) {
    float milliseconds = 0;
    lnet_status status;
    LNET_CUDA_TRY(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(start),
                                       static_cast<cudaEvent_t>(stop)));
    *seconds = milliseconds * 1e-3;
fail:
    return status;
}

void lnet_cuda_add_streams(lnet_cuda *table) {
    table->stream_create = stream_create;
    table->stream_destroy = stream_destroy;
    table->stream_synchronize = stream_synchronize;
    table->stream_wait = stream_wait;
    table->event_create = event_create;
    table->event_destroy = event_destroy;
    table->event_record = event_record;
    table->event_synchronize = event_synchronize;
    table->event_query = event_query;
    table->event_elapsed = event_elapsed;
}
