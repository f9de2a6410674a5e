/* Collectives of NCCL behind lnet_comm_table. Communicators are non-blocking. */
#include "cuda/nccl.cuh"
#include "cuda/packs.cuh"

#include <mutex>
#include <new>

/* The lock is held in short calls only: stop() takes `nccl` away under it, and aborts without. */
struct lnet_comm {
    const lnet_nccl *library;
    ncclComm_t nccl; /* NULL once it is stopped or closed */
    int32_t device;
    std::mutex lock;
};

static lnet_status version(int32_t *version) {
    const lnet_nccl *library;
    int found = 0;
    lnet_status status;
    LNET_TRY(lnet_nccl_open(&library));
    LNET_TRY(lnet_nccl_check(library, library->ncclGetVersion(&found), "ncclGetVersion"));
    *version = found;
fail:
    return status;
}

static lnet_status unique_id(char id[LNET_COMM_ID_BYTES]) {
    const lnet_nccl *library;
    lnet_status status;
    LNET_TRY(lnet_nccl_open(&library));
    status = lnet_nccl_check(
        library, library->ncclGetUniqueId(reinterpret_cast<ncclUniqueId *>(id)), "ncclGetUniqueId");
fail:
    return status;
}

static void comm_free(lnet_comm *comm);

static lnet_status comm_open(lnet_comm **comm, const char id[LNET_COMM_ID_BYTES], int32_t rank,
                             int32_t size, int32_t device) {
    lnet_device_scope scope(device);
    const lnet_nccl *library;
    ncclConfig_t config;
    lnet_status status = scope.status;
    *comm = NULL;
    if (status != LNET_OK) return status;
    LNET_TRY(lnet_nccl_open(&library));
    *comm = new (std::nothrow) lnet_comm{library, NULL, device, {}};
    if (*comm == NULL) return lnet_fail(LNET_MEMORY_ERROR, "out of host memory: a communicator");
    config.blocking = 0;
    status = lnet_nccl_check(
        library,
        library->ncclCommInitRankConfig(&(*comm)->nccl, size,
                                        *reinterpret_cast<const ncclUniqueId *>(id), rank, &config),
        "ncclCommInitRankConfig");
fail:
    if (status != LNET_OK && *comm != NULL) {
        comm_free(*comm);
        *comm = NULL;
    }
    return status;
}

static lnet_status stream_create(int32_t device, void **handle) {
    lnet_device_scope scope(device);
    int least = 0, greatest = 0;
    lnet_status status = scope.status;
    if (status != LNET_OK) return status;
    LNET_CUDA_TRY(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    LNET_CUDA_TRY(cudaStreamCreateWithPriority(reinterpret_cast<cudaStream_t *>(handle),
                                               cudaStreamNonBlocking, greatest));
fail:
    return status;
}

/* Calls function(library, nccl), unless the communicator is stopped. */
template <typename Function>
static lnet_status begin(lnet_comm *comm, const char *call, Function function) {
    std::lock_guard<std::mutex> guard(comm->lock);
    if (comm->nccl == NULL)
        return lnet_fail(LNET_DEVICE_ERROR, "%s: the communicator is stopped", call);
    lnet_device_scope scope(comm->device);
    if (scope.status != LNET_OK) return scope.status;
    return lnet_nccl_check(comm->library, function(comm->library, comm->nccl), call);
}

static lnet_status comm_poll(lnet_comm *comm, bool *done) {
    ncclResult_t state = ncclSuccess;
    lnet_status status;
    LNET_TRY(begin(comm, "ncclCommGetAsyncError", [&](const lnet_nccl *library, ncclComm_t nccl) {
        ncclResult_t found = library->ncclCommGetAsyncError(nccl, &state);
        return found == ncclSuccess ? state : found;
    }));
    *done = state == ncclSuccess;
fail:
    return status;
}

/* ---- collectives ---- */

static ncclDataType_t type_of(const lnet_tensor *tensor) {
    static const ncclDataType_t types[LNET_DTYPE_COUNT] = {
        ncclFloat32, ncclFloat16, ncclBfloat16, ncclInt32, ncclInt64, ncclUint8,
    }; /* in the order of lnet_dtype */
    return types[tensor->dtype];
}

static size_t count_of(const lnet_tensor *tensor) {
    return static_cast<size_t>(lnet_elements_of(tensor));
}

static lnet_status all_gather(lnet_comm *comm, const lnet_tensor *out, const lnet_tensor *x,
                              lnet_stream *stream) {
    return begin(comm, "ncclAllGather", [&](const lnet_nccl *library, ncclComm_t nccl) {
        return library->ncclAllGather(x->data, out->data, count_of(x), type_of(x), nccl,
                                      lnet_cuda_stream(stream));
    });
}

static lnet_status reduce_scatter(lnet_comm *comm, const lnet_tensor *out, const lnet_tensor *x,
                                  lnet_stream *stream) {
    return begin(comm, "ncclReduceScatter", [&](const lnet_nccl *library, ncclComm_t nccl) {
        return library->ncclReduceScatter(x->data, out->data, count_of(out), type_of(x), ncclSum,
                                          nccl, lnet_cuda_stream(stream));
    });
}

static lnet_status all_reduce(lnet_comm *comm, const lnet_tensor *x, lnet_reduction reduction,
                              lnet_stream *stream) {
    return begin(comm, "ncclAllReduce", [&](const lnet_nccl *library, ncclComm_t nccl) {
        return library->ncclAllReduce(x->data, x->data, count_of(x), type_of(x),
                                      reduction == LNET_MAX ? ncclMax : ncclSum, nccl,
                                      lnet_cuda_stream(stream));
    });
}

static lnet_status broadcast(lnet_comm *comm, const lnet_tensor *x, int32_t root,
                             lnet_stream *stream) {
    return begin(comm, "ncclBroadcast", [&](const lnet_nccl *library, ncclComm_t nccl) {
        return library->ncclBroadcast(x->data, x->data, count_of(x), type_of(x), root, nccl,
                                      lnet_cuda_stream(stream));
    });
}

static ncclResult_t transfer(const lnet_nccl *library, ncclComm_t nccl, const lnet_transfer *t,
                             lnet_stream *stream) {
    const lnet_tensor *x = t->tensor;
    return t->receive ? library->ncclRecv(x->data, count_of(x), type_of(x), t->peer, nccl,
                                          lnet_cuda_stream(stream))
                      : library->ncclSend(x->data, count_of(x), type_of(x), t->peer, nccl,
                                          lnet_cuda_stream(stream));
}

static bool is_fine(ncclResult_t found) {
    return found == ncclSuccess || found == ncclInProgress;
}

static lnet_status exchange(lnet_comm *comm, int64_t count, const lnet_transfer *transfers,
                            lnet_stream *stream) {
    return begin(comm, "ncclGroupEnd", [&](const lnet_nccl *library, ncclComm_t nccl) {
        ncclResult_t first = library->ncclGroupStart();
        if (first != ncclSuccess) return first;
        for (int64_t i = 0; i < count && is_fine(first); i++)
            first = transfer(library, nccl, &transfers[i], stream);
        ncclResult_t last = library->ncclGroupEnd(); /* also ends a group that failed */
        return is_fine(first) ? last : first;
    });
}

/* ---- the end ---- */

static lnet_status finalize(lnet_comm *comm) {
    return begin(comm, "ncclCommFinalize", [](const lnet_nccl *library, ncclComm_t nccl) {
        return library->ncclCommFinalize(nccl);
    });
}

static ncclComm_t take(lnet_comm *comm) {
    std::lock_guard<std::mutex> guard(comm->lock);
    ncclComm_t nccl = comm->nccl;
    comm->nccl = NULL;
    return nccl;
}

static lnet_status comm_close(lnet_comm *comm) {
    lnet_device_scope scope(comm->device);
    ncclComm_t nccl = take(comm);
    if (nccl == NULL) return LNET_OK;
    return lnet_nccl_check(comm->library, comm->library->ncclCommDestroy(nccl), "ncclCommDestroy");
}

static void comm_stop(lnet_comm *comm) {
    lnet_device_scope scope(comm->device);
    ncclComm_t nccl = take(comm);
    if (nccl != NULL) (void)comm->library->ncclCommAbort(nccl);
}

static void comm_free(lnet_comm *comm) {
    comm_stop(comm);
    delete comm;
}

void lnet_cuda_add_comm(lnet_cuda *table) {
    table->comm.version = version;
    table->comm.unique_id = unique_id;
    table->comm.open = comm_open;
    table->comm.stream_create = stream_create;
    table->comm.poll = comm_poll;
    table->comm.all_gather = all_gather;
    table->comm.reduce_scatter = reduce_scatter;
    table->comm.all_reduce = all_reduce;
    table->comm.broadcast = broadcast;
    table->comm.exchange = exchange;
    table->comm.largest = lnet_cuda_largest;
    table->comm.finalize = finalize;
    table->comm.close = comm_close;
    table->comm.stop = comm_stop;
    table->comm.free = comm_free;
}
