/* Opens the CUDA backend on first use, and puts its ops behind one door. */
#include "lnet/device.h"
#include "lnet/op.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    char path[4096];
    lnet_status status; /* of the only attempt, once `tried` */
    char reason[512];
    const lnet_cuda *table;
    pid_t process; /* a forked child cannot use its parent's GPU state */
    atomic_bool tried;
} loader = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const char op_names[] =
#define LNET_OP(name) #name " "
#include "lnet/ops.def"
    "";

void lnet_cuda_set_path(const char *path) {
    const char *override = getenv("LONGNET_CUDA_LIBRARY");
    if (override != NULL && *override != '\0') path = override;
    pthread_mutex_lock(&loader.lock);
    snprintf(loader.path, sizeof loader.path, "%s", path);
    pthread_mutex_unlock(&loader.lock);
}

const char *lnet_cuda_path(void) {
    return loader.path;
}

static lnet_status open_library(const lnet_cuda **table) {
    static const lnet_host host = {
        .fail = lnet_fail,
        .parallel_for = lnet_parallel_for,
        .alloc = lnet_device_alloc,
        .free = lnet_device_free,
    };
    if (access(loader.path, F_OK) != 0)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "no CUDA backend: %s is not there; reinstall with CUDA's nvcc on the PATH "
                         "and LONGNET_CUDA=1",
                         loader.path);
    void *library = dlopen(loader.path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "the CUDA backend does not load: %s; reinstall with LONGNET_CUDA=1",
                         dlerror());
    lnet_status (*open)(const lnet_host *, const lnet_cuda **);
    *(void **)&open = dlsym(library, LNET_CUDA_OPEN_NAME);
    lnet_status status =
        open != NULL ? open(&host, table)
                     : lnet_fail(LNET_DEVICE_ERROR,
                                 "the CUDA backend %s is of another version of longnet: it has no "
                                 "%s; reinstall",
                                 loader.path, LNET_CUDA_OPEN_NAME);
    if (status == LNET_OK && strcmp((*table)->ops, op_names) != 0)
        status = lnet_fail(LNET_DEVICE_ERROR,
                           "the CUDA backend %s was built for other ops: rebuild it with "
                           "LONGNET_CUDA=1",
                           loader.path);
    if (status != LNET_OK) dlclose(library);
    return status;
}

/* ---- the ops ---- */

/* The device of an op's first tensor. */
static int32_t device_of(const lnet_op *op, const void *args) {
    for (int i = 0; i < op->field_count; i++) {
        const lnet_field *field = &op->fields[i];
        if (field->kind != LNET_FIELD_OUTPUT && field->kind != LNET_FIELD_INPUT) continue;
        const lnet_tensor *tensor =
            *(const lnet_tensor *const *)((const char *)args + field->offset);
        if (tensor != NULL) return tensor->device.index;
    }
    return 0;
}

/* Every tensor knows that the stream uses it; lnet_run() has seen that all lie on one device. */
static void use_tensors(const lnet_op *op, const void *args, lnet_stream *stream) {
    for (int i = 0; i < op->field_count; i++) {
        const lnet_field *field = &op->fields[i];
        if (field->kind != LNET_FIELD_OUTPUT && field->kind != LNET_FIELD_INPUT) continue;
        const lnet_tensor *tensor =
            *(const lnet_tensor *const *)((const char *)args + field->offset);
        if (tensor != NULL) lnet_tensor_use(tensor, stream);
    }
}

/* What the ops of a GPU go through: the thread's current stream where none is given. */
#define LNET_OP(name)                                                                              \
    static lnet_status run_##name(const struct lnet_##name##_args *args, lnet_stream *stream) {    \
        lnet_status status;                                                                        \
        if (loader.table->backend.name == NULL)                                                    \
            return lnet_fail(LNET_DEVICE_ERROR, #name ": no CUDA kernel in this build");           \
        if (stream == NULL)                                                                        \
            LNET_TRY(lnet_stream_current(&stream, device_of(lnet_op_##name(), args)));             \
        use_tensors(lnet_op_##name(), args, stream);                                               \
        status = loader.table->backend.name(args, stream);                                         \
    fail:                                                                                          \
        return status;                                                                             \
    }
#include "lnet/ops.def"

const lnet_backend lnet_cuda_backend = {
    .version = LNET_BACKEND_VERSION,
    .name = "cuda",
#define LNET_OP(op) .op = run_##op,
#include "lnet/ops.def"
};

/* ---- the door ---- */

lnet_status lnet_cuda_get(const lnet_cuda **cuda) {
    if (!atomic_load(&loader.tried)) {
        pthread_mutex_lock(&loader.lock);
        if (!atomic_load(&loader.tried)) {
            loader.status = open_library(&loader.table);
            snprintf(loader.reason, sizeof loader.reason, "%s", lnet_message());
            loader.process = getpid();
            atomic_store(&loader.tried, true);
        }
        pthread_mutex_unlock(&loader.lock);
    }
    if (loader.status != LNET_OK) return lnet_fail(loader.status, "%s", loader.reason);
    if (loader.process != getpid())
        return lnet_fail(LNET_DEVICE_ERROR,
                         "this process was forked from one that had opened its GPUs: start it by "
                         "spawn, or open them after the fork");
    if (cuda != NULL) *cuda = loader.table;
    return LNET_OK;
}

lnet_status lnet_cuda_device(const lnet_cuda **cuda, int32_t device) {
    const lnet_cuda *table = NULL;
    if (lnet_cuda_get(&table) != LNET_OK) {
        char reason[sizeof loader.reason];
        snprintf(reason, sizeof reason, "%s", lnet_message());
        return lnet_fail(LNET_DEVICE_ERROR, "device cuda:%d: %s", device, reason);
    }
    if (device < 0 || device >= table->device_count)
        return lnet_fail(LNET_DEVICE_ERROR, "device cuda:%d, expected cuda:0 to cuda:%d", device,
                         table->device_count - 1);
    if (cuda != NULL) *cuda = table;
    return LNET_OK;
}
