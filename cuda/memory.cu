/* Device memory from one pool a device, page-locked host memory, and whose memory a pointer is. */
#include "cuda/common.cuh"

#include <inttypes.h>
#include <mutex>

/* A pool of our own: the device's default one keeps the settings that other libraries gave it. */
static lnet_status pool_of(cudaMemPool_t *pool, int32_t device) {
    static std::mutex lock;
    static cudaMemPool_t pools[LNET_MAX_DEVICES];
    cudaMemPoolProps wanted = {};
    uint64_t keep = UINT64_MAX; /* freed memory stays ours until trim */
    lnet_status status = LNET_OK;
    std::lock_guard<std::mutex> guard(lock);
    if (pools[device] == NULL) {
        wanted.allocType = cudaMemAllocationTypePinned;
        wanted.location.type = cudaMemLocationTypeDevice;
        wanted.location.id = device;
        LNET_CUDA_TRY(cudaMemPoolCreate(&pools[device], &wanted));
        LNET_CUDA_TRY(
            cudaMemPoolSetAttribute(pools[device], cudaMemPoolAttrReleaseThreshold, &keep));
    }
    *pool = pools[device];
fail:
    return status;
}

static lnet_status device_alloc(void **memory, int64_t bytes, lnet_stream *stream) {
    lnet_device_scope scope(stream->device);
    cudaMemPool_t pool;
    lnet_status status = scope.status;
    if (status != LNET_OK) return status;
    LNET_TRY(pool_of(&pool, stream->device));
    LNET_CUDA_TRY(cudaMallocFromPoolAsync(memory, static_cast<size_t>(bytes > 0 ? bytes : 1), pool,
                                          lnet_cuda_stream(stream)));
fail:
    return status;
}

static void device_free(void *memory, lnet_stream *stream) {
    lnet_device_scope scope(stream->device);
    (void)cudaFreeAsync(memory, lnet_cuda_stream(stream));
    (void)cudaGetLastError(); /* a fault shows in the next call that can say so */
}

static lnet_status trim(int32_t device) {
    lnet_device_scope scope(device);
    cudaMemPool_t pool;
    lnet_status status = scope.status;
    if (status != LNET_OK) return status;
    LNET_TRY(pool_of(&pool, device));
    LNET_CUDA_TRY(cudaDeviceSynchronize());
    LNET_CUDA_TRY(cudaMemPoolTrimTo(pool, 0));
fail:
    return status;
}

static lnet_status memory_info(int32_t device, int64_t *reserved, int64_t *free, int64_t *total) {
    lnet_device_scope scope(device);
    cudaMemPool_t pool;
    uint64_t held = 0;
    size_t free_bytes = 0, total_bytes = 0;
    lnet_status status = scope.status;
    if (status != LNET_OK) return status;
    LNET_TRY(pool_of(&pool, device));
    LNET_CUDA_TRY(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &held));
    LNET_CUDA_TRY(cudaMemGetInfo(&free_bytes, &total_bytes));
    *reserved = static_cast<int64_t>(held);
    *free = static_cast<int64_t>(free_bytes);
    *total = static_cast<int64_t>(total_bytes);
fail:
    return status;
}

static lnet_status pinned_alloc(void **memory, int64_t bytes) {
    cudaError_t error =
        cudaHostAlloc(memory, static_cast<size_t>(bytes > 0 ? bytes : 1), cudaHostAllocPortable);
    if (error != cudaErrorMemoryAllocation) return lnet_cuda_check(error, "cudaHostAlloc");
    (void)cudaGetLastError();
    return lnet_fail(LNET_MEMORY_ERROR,
                     "%" PRId64 " bytes of page-locked host memory asked for: "
                     "not to be had",
                     bytes);
}

static void pinned_free(void *memory) {
    (void)cudaFreeHost(memory);
    (void)cudaGetLastError();
}

static lnet_status pointer_device(const char *name, const void *memory, int32_t *device) {
    cudaPointerAttributes found;
    lnet_status status;
    LNET_CUDA_TRY(cudaPointerGetAttributes(&found, memory));
    if (found.type != cudaMemoryTypeDevice && found.type != cudaMemoryTypeManaged)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "%s: %p is host memory, expected memory of a GPU, as its owner says", name,
                         memory);
    *device = found.device;
fail:
    return status;
}

static lnet_status check_pointer(const char *name, const void *memory, int32_t device) {
    int32_t found = -1;
    lnet_status status;
    LNET_TRY(pointer_device(name, memory, &found));
    if (found != device)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "%s: %p is memory of cuda:%d, expected of cuda:%d, as its owner says",
                         name, memory, found, device);
fail:
    return status;
}

void lnet_cuda_add_memory(lnet_cuda *table) {
    table->alloc = device_alloc;
    table->free = device_free;
    table->trim = trim;
    table->memory_info = memory_info;
    table->pinned_alloc = pinned_alloc;
    table->pinned_free = pinned_free;
    table->check_pointer = check_pointer;
    table->pointer_device = pointer_device;
}
