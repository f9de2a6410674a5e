#include "cuda/cublaslt.cuh"

#include <dlfcn.h>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>

#define TEXT_(value) #value
#define TEXT(value) TEXT_(value)
#define MAJOR TEXT(CUBLAS_VER_MAJOR)
/* Its structures are those of the header only within one major version. */
#define SONAME "libcublasLt.so." MAJOR

/* By its name first, which also finds one that this process has loaded; then in the toolkit. */
static void *open_library() {
    static const char *const variables[] = {"CUDA_HOME", "CUDA_PATH"};
    void *library = dlopen(SONAME, RTLD_NOW | RTLD_LOCAL);
    char path[4096];
    for (const char *variable : variables) {
        const char *home = getenv(variable);
        if (library != NULL || home == NULL || *home == '\0') continue;
        snprintf(path, sizeof path, "%s/lib64/" SONAME, home);
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    return library != NULL ? library
                           : dlopen("/usr/local/cuda/lib64/" SONAME, RTLD_NOW | RTLD_LOCAL);
}

static lnet_status find_functions(lnet_cublaslt *functions, void *library) {
    const char *missing = NULL;
#define FIND(name)                                                                                 \
    functions->name = reinterpret_cast<decltype(&::name)>(dlsym(library, #name));                  \
    if (functions->name == NULL) missing = #name;
    LNET_CUBLASLT_FUNCTIONS(FIND)
#undef FIND
    if (missing == NULL) return LNET_OK;
    return lnet_fail(LNET_DEVICE_ERROR,
                     "matrix products need cuBLASLt: " SONAME " has no %s; install a newer one: "
                     "pip install -U 'longnet-native[cuda]'",
                     missing);
}

static lnet_status load(lnet_cublaslt *functions) {
    void *library = open_library();
    if (library != NULL) return find_functions(functions, library);
    return lnet_fail(LNET_DEVICE_ERROR,
                     "matrix products need cuBLASLt: " SONAME " does not load (%.200s); pip "
                     "install 'longnet-native[cuda]', or set CUDA_HOME to a toolkit of "
                     "CUDA " MAJOR,
                     dlerror());
}

lnet_status lnet_cublaslt_open(const lnet_cublaslt **library, cublasLtHandle_t *handle,
                               int32_t device) {
    static std::mutex lock;
    static lnet_cublaslt functions;
    static bool loaded;
    static cublasLtHandle_t handles[LNET_MAX_DEVICES];
    std::lock_guard<std::mutex> guard(lock);
    lnet_status status = LNET_OK;
    if (!loaded) LNET_TRY(load(&functions));
    loaded = true;
    if (handles[device] == NULL)
        LNET_TRY(lnet_cublaslt_check(&functions, functions.cublasLtCreate(&handles[device]),
                                     "cublasLtCreate"));
    *library = &functions;
    *handle = handles[device];
fail:
    return status;
}

lnet_status lnet_cublaslt_check(const lnet_cublaslt *library, cublasStatus_t found,
                                const char *call) {
    if (found == CUBLAS_STATUS_SUCCESS) return LNET_OK;
    if (found == CUBLAS_STATUS_ALLOC_FAILED)
        return lnet_fail(LNET_MEMORY_ERROR, "out of GPU memory in %s", call);
    /* A kernel's fault shows in any call of cuBLASLt, which does not know its cause; CUDA does. */
    lnet_status status = lnet_cuda_check(cudaDeviceSynchronize(), call);
    if (status != LNET_OK) return status;
    return lnet_fail(LNET_DEVICE_ERROR, "%s: %s", call, library->cublasLtGetStatusName(found));
}
