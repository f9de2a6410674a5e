/* NCCL, opened when first used: nothing links to it, and building needs none. What is declared here
 * is its interface since 2.18, which later versions keep. */
#ifndef LNET_CUDA_NCCL_CUH
#define LNET_CUDA_NCCL_CUH

#include "cuda/common.cuh"

#include <limits.h>

typedef struct ncclComm *ncclComm_t;

enum ncclResult_t { ncclSuccess = 0, ncclInProgress = 7 };
enum ncclRedOp_t { ncclSum = 0, ncclMax = 2 };
enum ncclDataType_t {
    ncclUint8 = 1,
    ncclInt32 = 2,
    ncclInt64 = 4,
    ncclFloat16 = 6,
    ncclFloat32 = 7,
    ncclBfloat16 = 9,
};

struct ncclUniqueId {
    char internal[LNET_COMM_ID_BYTES];
};

/* The first fields of its struct; it takes the rest as not set, by `size` and `version`. */
struct ncclConfig_t {
    size_t size = sizeof(ncclConfig_t);
    unsigned int magic = 0xcafebeef;
    unsigned int version = 21800;
    int blocking = INT_MIN;
    int cgaClusterSize = INT_MIN;
    int minCTAs = INT_MIN;
    int maxCTAs = INT_MIN;
    const char *netName = NULL;
    int splitShare = INT_MIN;
    int trafficClass = INT_MIN; /* of 2.25: where 2.18 has padding */
};

#define LNET_NCCL_FUNCTIONS(F)                                                                     \
    F(ncclGetVersion, int *)                                                                       \
    F(ncclGetUniqueId, ncclUniqueId *)                                                             \
    F(ncclCommInitRankConfig, ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *)                \
    F(ncclCommGetAsyncError, ncclComm_t, ncclResult_t *)                                           \
    F(ncclCommFinalize, ncclComm_t)                                                                \
    F(ncclCommDestroy, ncclComm_t)                                                                 \
    F(ncclCommAbort, ncclComm_t)                                                                   \
    F(ncclGroupStart)                                                                              \
    F(ncclGroupEnd)                                                                                \
    F(ncclAllGather, const void *, void *, size_t, ncclDataType_t, ncclComm_t, cudaStream_t)       \
    F(ncclReduceScatter, const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t,    \
      cudaStream_t)                                                                                \
    F(ncclAllReduce, const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t,        \
      cudaStream_t)                                                                                \
    F(ncclBroadcast, const void *, void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t)  \
    F(ncclSend, const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t)               \
    F(ncclRecv, void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t)

struct lnet_nccl {
#define LNET_NCCL_POINTER(name, ...) ncclResult_t (*name)(__VA_ARGS__);
    LNET_NCCL_FUNCTIONS(LNET_NCCL_POINTER)
#undef LNET_NCCL_POINTER
    const char *(*ncclGetErrorString)(ncclResult_t);
    const char *(*ncclGetLastError)(ncclComm_t);
};

/* The library. Fails where there is none, with what to install; the next call looks again. */
lnet_status lnet_nccl_open(const lnet_nccl **library);

/* LNET_OK, also for what is in progress, or a failure that names the call and what NCCL says. */
lnet_status lnet_nccl_check(const lnet_nccl *library, ncclResult_t found, const char *call);

/* lnet_comm_table's `largest` (largest.cu). */
lnet_status lnet_cuda_largest(const lnet_tensor *x, const lnet_tensor *parts, int32_t size,
                              lnet_stream *stream);

#endif
