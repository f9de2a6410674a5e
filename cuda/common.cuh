/* What every file of the CUDA backend uses: the core's headers, errors, the device of a call. */
#ifndef LNET_CUDA_COMMON_CUH
#define LNET_CUDA_COMMON_CUH

extern "C" {
#include "lnet/device.h"
}

#include <cuda_runtime.h>

/* The core's functions, set when the backend is opened. */
extern const lnet_host *lnet_cuda_host;

/* LNET_OK, or a failure that names the call, what CUDA says and, where the process has lost its
 * GPU, what to do. */
lnet_status lnet_cuda_check(cudaError_t error, const char *call);

/* For `status` and the label `fail`, as LNET_TRY. */
#define LNET_CUDA_TRY(call) LNET_TRY(lnet_cuda_check((call), #call))

/* The launch just made, in a launcher's last line. */
static inline lnet_status lnet_cuda_launched(const char *kernel) {
    return lnet_cuda_check(cudaGetLastError(), kernel);
}

static inline cudaStream_t lnet_cuda_stream(const lnet_stream *stream) {
    return static_cast<cudaStream_t>(stream->handle);
}

/* Makes a device current in a scope, and puts the caller's back after it. */
class lnet_device_scope {
  public:
    explicit lnet_device_scope(int32_t device) : status(LNET_OK), restore(false) {
        status = lnet_cuda_check(cudaGetDevice(&previous), "cudaGetDevice");
        if (status != LNET_OK || previous == device) return;
        status = lnet_cuda_check(cudaSetDevice(device), "cudaSetDevice");
        restore = status == LNET_OK;
    }
    ~lnet_device_scope() {
        if (restore) (void)cudaSetDevice(previous);
    }
    lnet_device_scope(const lnet_device_scope &) = delete;
    lnet_device_scope &operator=(const lnet_device_scope &) = delete;

    lnet_status status;

  private:
    int previous = 0;
    bool restore;
};

/* The parts of the table: stream.cu, memory.cu, copy.cu, strided_copy.cu, comm_nccl.cu. */
void lnet_cuda_add_streams(lnet_cuda *table);
void lnet_cuda_add_memory(lnet_cuda *table);
void lnet_cuda_add_copies(lnet_cuda *table);
void lnet_cuda_add_comm(lnet_cuda *table);
lnet_status lnet_cuda_copy_strided(const lnet_tensor *target, const lnet_tensor *source,
                                   lnet_stream *stream);

#endif
