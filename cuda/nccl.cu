#include "cuda/nccl.cuh"

#include <dlfcn.h>
#include <mutex>

#define SONAME "libnccl.so.2"

static lnet_status find_functions(lnet_nccl *functions, void *library) {
    const char *missing = NULL;
#define FIND(name, ...)                                                                            \
    functions->name = reinterpret_cast<decltype(functions->name)>(dlsym(library, #name));          \
    if (functions->name == NULL) missing = #name;
    LNET_NCCL_FUNCTIONS(FIND)
    FIND(ncclGetErrorString)
    FIND(ncclGetLastError)
#undef FIND
    if (missing == NULL) return LNET_OK;
    return lnet_fail(LNET_DEVICE_ERROR,
                     "communication between GPUs needs NCCL 2.18 or later: " SONAME " has no %s; "
                     "pip install -U 'longnet-native[cuda]'",
                     missing);
}

/* By its name, which also finds one that this process has loaded. */
static lnet_status load(lnet_nccl *functions) {
    void *library = dlopen(SONAME, RTLD_NOW | RTLD_LOCAL);
    if (library != NULL) return find_functions(functions, library);
    return lnet_fail(LNET_DEVICE_ERROR, "NCCL does not load: %.300s", dlerror());
}

lnet_status lnet_nccl_open(const lnet_nccl **library) {
    static std::mutex lock;
    static lnet_nccl functions;
    static bool loaded;
    std::lock_guard<std::mutex> guard(lock);
    lnet_status status = LNET_OK;
    if (!loaded) LNET_TRY(load(&functions));
    loaded = true;
    *library = &functions;
fail:
    return status;
}

lnet_status lnet_nccl_check(const lnet_nccl *library, ncclResult_t found, const char *call) {
    if (found == ncclSuccess || found == ncclInProgress) return LNET_OK;
    return lnet_fail(LNET_DEVICE_ERROR, "%s: %s (%.300s)", call, library->ncclGetErrorString(found),
                     library->ncclGetLastError(NULL));
}
