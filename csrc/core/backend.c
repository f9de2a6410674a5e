#include "lnet/backend.h"

#include "lnet/device.h"

#include <stdlib.h>
#include <string.h>

extern const lnet_backend lnet_cpu_backend_scalar;
#ifdef LNET_X86
extern const lnet_backend lnet_cpu_backend_avx2, lnet_cpu_backend_avx512;

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

static bool has_scalar(void) {
    return true;
}

/* Best first. */
static const struct {
    const lnet_backend *backend;
    bool (*supported)(void);
} cpu_backends[] = {
#ifdef LNET_X86
    {&lnet_cpu_backend_avx512, has_avx512},
    {&lnet_cpu_backend_avx2, has_avx2},
#endif
    {&lnet_cpu_backend_scalar, has_scalar},
};

static const lnet_backend *chosen;

lnet_status lnet_backend_init(void) {
    const char *wanted = getenv("LONGNET_CPU");
    if (wanted != NULL && *wanted == '\0') wanted = NULL;
    for (size_t i = 0; i < sizeof cpu_backends / sizeof *cpu_backends; i++) {
        const lnet_backend *backend = cpu_backends[i].backend;
        if (wanted != NULL && strcmp(wanted, backend->name) != 0) continue;
        if (cpu_backends[i].supported()) {
            chosen = backend;
            return LNET_OK;
        }
        if (wanted != NULL)
            return lnet_fail(LNET_DEVICE_ERROR, "LONGNET_CPU=%s: this processor has no %s", wanted,
                             wanted);
    }
    return lnet_fail(LNET_VALUE_ERROR, "LONGNET_CPU=%s: expected scalar, avx2 or avx512", wanted);
}

const lnet_backend *lnet_cpu_backend(void) {
    return chosen;
}

lnet_status lnet_backend_get(const lnet_backend **backend, lnet_device device) {
    *backend = device.type == LNET_CPU ? chosen : &lnet_cuda_backend;
    return device.type == LNET_CPU ? LNET_OK : lnet_cuda_device(NULL, device.index);
}
