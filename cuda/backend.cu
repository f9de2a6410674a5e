/* The table that the core gets, and what the machine must have for it. */
#include "cuda/common.cuh"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const lnet_host *lnet_cuda_host;

/* The core's headers declare it; here it passes the message on. */
lnet_status lnet_fail(lnet_status code, const char *format, ...) {
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return lnet_cuda_host->fail(code, "%s", message);
}

/* After these every call of the process on the GPU fails. */
static bool is_sticky(cudaError_t error) {
    switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContextIsDestroyed:
        return true;
    default:
        return false;
    }
}

lnet_status lnet_cuda_check(cudaError_t error, const char *call) {
    if (error == cudaSuccess) return LNET_OK;
    (void)cudaGetLastError(); /* else the next check would find it again */
    if (error == cudaErrorMemoryAllocation)
        return lnet_fail(LNET_MEMORY_ERROR, "out of GPU memory in %.80s", call);
    if (is_sticky(error))
        return lnet_fail(LNET_DEVICE_ERROR,
                         "the GPU has faulted: %s (%s, seen in %.80s); this process can no longer "
                         "use it and must be restarted",
                         cudaGetErrorString(error), cudaGetErrorName(error), call);
    return lnet_fail(LNET_DEVICE_ERROR, "%.80s: %s (%s)", call, cudaGetErrorString(error),
                     cudaGetErrorName(error));
}

/* ---- the machine ---- */

static const char *visible_devices() {
    const char *value = getenv("CUDA_VISIBLE_DEVICES");
    return value != NULL ? value : "not set";
}

static lnet_status check_driver(int driver, int runtime) {
    if (driver == 0)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "no NVIDIA driver: libcuda.so.1 does not load; install a driver for CUDA "
                         "%d or later (a container needs the GPU passed in: docker run --gpus all)",
                         runtime / 1000);
    if (driver / 1000 < runtime / 1000)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "the NVIDIA driver is too old: it serves CUDA %d.%d, this build needs "
                         "%d.0 or later; update the driver, or build with an older nvcc",
                         driver / 1000, driver % 1000 / 10, runtime / 1000);
    return LNET_OK;
}

static lnet_status check_devices(int32_t *count) {
    int found = 0;
    cudaError_t error = cudaGetDeviceCount(&found);
    (void)cudaGetLastError();
    if (error == cudaErrorNoDevice || (error == cudaSuccess && found == 0))
        return lnet_fail(LNET_DEVICE_ERROR,
                         "there is a driver, but no NVIDIA GPU that this process may use "
                         "(CUDA_VISIBLE_DEVICES: %.60s)",
                         visible_devices());
    if (error != cudaSuccess)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "the NVIDIA driver does not start: %s (%s); nvidia-smi and the kernel's "
                         "log say more",
                         cudaGetErrorString(error), cudaGetErrorName(error));
    *count = found < LNET_MAX_DEVICES ? found : LNET_MAX_DEVICES;
    return LNET_OK;
}

static lnet_status properties(int32_t device, lnet_device_properties *out) {
    cudaDeviceProp found;
    lnet_status status;
    LNET_CUDA_TRY(cudaGetDeviceProperties(&found, device));
    snprintf(out->name, sizeof out->name, "%s", found.name);
    out->major = found.major;
    out->minor = found.minor;
    out->multiprocessors = found.multiProcessorCount;
    out->total_bytes = static_cast<int64_t>(found.totalGlobalMem);
fail:
    return status;
}

static lnet_status device_synchronize(int32_t device) {
    lnet_device_scope scope(device);
    return scope.status != LNET_OK
               ? scope.status
               : lnet_cuda_check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

/* ---- the ops ---- */

/* An op has a kernel where a file of cuda/ defines lnet_cuda_<op>. */
#define LNET_OP(name)                                                                              \
    extern "C" __attribute__((weak, visibility("hidden")))                                         \
    lnet_status lnet_cuda_##name(const struct lnet_##name##_args *, lnet_stream *);                \
    static lnet_status call_##name(const struct lnet_##name##_args *args, lnet_stream *stream) {   \
        lnet_device_scope scope(stream->device);                                                   \
        return scope.status != LNET_OK ? scope.status : lnet_cuda_##name(args, stream);            \
    }
#include "lnet/ops.def"

static const char op_names[] =
#define LNET_OP(name) #name " "
#include "lnet/ops.def"
    "";

static void add_ops(lnet_backend *backend) {
    backend->version = LNET_BACKEND_VERSION;
    backend->name = "cuda";
#define LNET_OP(op)                                                                                \
    if (lnet_cuda_##op != NULL) backend->op = call_##op;
#include "lnet/ops.def"
}

/* ---- the one exported symbol ---- */

extern "C" __attribute__((visibility("default"))) lnet_status
LNET_CUDA_OPEN(const lnet_host *host, const lnet_cuda **cuda) {
    static lnet_cuda table;
    int driver = 0, runtime = 0;
    lnet_status status;
    lnet_cuda_host = host;
    LNET_CUDA_TRY(cudaRuntimeGetVersion(&runtime));
    LNET_CUDA_TRY(cudaDriverGetVersion(&driver));
    LNET_TRY(check_driver(driver, runtime));
    LNET_TRY(check_devices(&table.device_count));
    table.driver_version = driver;
    table.runtime_version = runtime;
    table.ops = op_names;
    table.properties = properties;
    table.device_synchronize = device_synchronize;
    lnet_cuda_add_streams(&table);
    lnet_cuda_add_memory(&table);
    lnet_cuda_add_copies(&table);
    lnet_cuda_add_comm(&table);
    add_ops(&table.backend);
    *cuda = &table;
fail:
    return status;
}
