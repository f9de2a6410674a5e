/* The functions of longnet._core about GPUs and memory. */
#include "lnet/memory.h"
#include "python/python.h"

#include <limits.h>
#include <stdlib.h>

int lnet_parse_gpu(lnet_state *state, PyObject *name, lnet_device *device) {
    if (lnet_parse_device(state, name, device) < 0) return -1;
    if (device->type == LNET_CUDA) return 0;
    lnet_raise(state, lnet_fail(LNET_DEVICE_ERROR, "device 'cpu', expected cuda or cuda:N"));
    return -1;
}

/* The one argument `device` of a function: None and "cpu" are the CPU. */
static int parse_argument(PyObject *module, PyObject *args, PyObject *kwargs, const char *format,
                          lnet_device *device) {
    static char *names[] = {"device", NULL};
    PyObject *name = Py_None;
    *device = (lnet_device){LNET_CPU, 0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, names, &name)) return -1;
    if (name == Py_None) return 0;
    return lnet_parse_device(PyModule_GetState(module), name, device);
}

static int set_item(PyObject *dict, const char *key, PyObject *value) {
    int result = value != NULL ? PyDict_SetItemString(dict, key, value) : -1;
    Py_XDECREF(value);
    return result;
}

/* ---- memory ---- */

static PyObject *memory_stats(PyObject *module, PyObject *args, PyObject *kwargs) {
    const lnet_cuda *cuda;
    lnet_device device;
    int64_t reserved, free_bytes, total;
    lnet_status status;
    if (parse_argument(module, args, kwargs, "|O:memory_stats", &device) < 0) return NULL;
    if (device.type == LNET_CPU)
        return Py_BuildValue("{s:L,s:L}", "bytes", (long long)lnet_alloc_bytes(), "peak_bytes",
                             (long long)lnet_alloc_peak_bytes());
    LNET_TRY(lnet_cuda_device(&cuda, device.index));
    lnet_release_due();
    LNET_TRY(cuda->memory_info(device.index, &reserved, &free_bytes, &total));
    return Py_BuildValue(
        "{s:L,s:L,s:L,s:L,s:L}", "bytes", (long long)lnet_device_bytes(device.index), "peak_bytes",
        (long long)lnet_device_peak_bytes(device.index), "reserved_bytes", (long long)reserved,
        "free_bytes", (long long)free_bytes, "total_bytes", (long long)total);
fail:
    return lnet_raise(PyModule_GetState(module), status);
}

static PyObject *reset_peak_memory(PyObject *module, PyObject *args, PyObject *kwargs) {
    lnet_device device;
    if (parse_argument(module, args, kwargs, "|O:reset_peak_memory", &device) < 0) return NULL;
    if (device.type == LNET_CPU) {
        lnet_alloc_reset_peak();
        Py_RETURN_NONE;
    }
    lnet_status status = lnet_cuda_device(NULL, device.index);
    if (status != LNET_OK) return lnet_raise(PyModule_GetState(module), status);
    lnet_device_reset_peak(device.index);
    Py_RETURN_NONE;
}

static PyObject *empty_cache(PyObject *module, PyObject *args, PyObject *kwargs) {
    const lnet_cuda *cuda;
    lnet_device device;
    if (parse_argument(module, args, kwargs, "O:empty_cache", &device) < 0) return NULL;
    if (device.type == LNET_CPU) {
        lnet_alloc_trim();
        Py_RETURN_NONE;
    }
    lnet_status status = lnet_cuda_device(&cuda, device.index);
    if (status == LNET_OK) {
        Py_BEGIN_ALLOW_THREADS status = cuda->device_synchronize(device.index);
        lnet_release_due();
        lnet_pinned_trim();
        if (status == LNET_OK) status = cuda->trim(device.index);
        Py_END_ALLOW_THREADS
    }
    if (status != LNET_OK) return lnet_raise(PyModule_GetState(module), status);
    Py_RETURN_NONE;
}

static PyObject *synchronize(PyObject *module, PyObject *args, PyObject *kwargs) {
    const lnet_cuda *cuda;
    lnet_device device;
    if (parse_argument(module, args, kwargs, "O:synchronize", &device) < 0) return NULL;
    if (device.type == LNET_CPU) {
        lnet_alloc_trim();
        Py_RETURN_NONE;
    }
    lnet_status status = lnet_cuda_device(&cuda, device.index);
    if (status == LNET_OK) {
        Py_BEGIN_ALLOW_THREADS status = cuda->device_synchronize(device.index);
        lnet_release_due();
        Py_END_ALLOW_THREADS
    }
    if (status != LNET_OK) return lnet_raise(PyModule_GetState(module), status);
    Py_RETURN_NONE;
}

/* ---- what there is ---- */

static PyObject *describe_device(lnet_state *state, const lnet_cuda *cuda, int32_t device) {
    lnet_device_properties found;
    lnet_status status = cuda->properties(device, &found);
    if (status != LNET_OK) return lnet_raise(state, status);
    return Py_BuildValue("{s:s,s:(ii),s:i,s:L}", "name", found.name, "compute_capability",
                         (int)found.major, (int)found.minor, "multiprocessors",
                         (int)found.multiprocessors, "total_bytes", (long long)found.total_bytes);
}

static PyObject *version_text(int32_t version) {
    return PyUnicode_FromFormat("%d.%d", (int)version / 1000, (int)version % 1000 / 10);
}

static PyObject *cuda_status(PyObject *module, PyObject *unused) {
    (void)unused;
    lnet_state *state = PyModule_GetState(module);
    const lnet_cuda *cuda;
    PyObject *details = PyDict_New(), *devices = PyList_New(0);
    bool available = lnet_cuda_get(&cuda) == LNET_OK;
    PyObject *reason = PyUnicode_FromString(available ? "" : lnet_message());
    if (details == NULL || devices == NULL || reason == NULL ||
        set_item(details, "library", PyUnicode_DecodeFSDefault(lnet_cuda_path())) < 0)
        goto fail;
    for (int32_t i = 0; available && i < cuda->device_count; i++) {
        PyObject *device = describe_device(state, cuda, i);
        int result = device != NULL ? PyList_Append(devices, device) : -1;
        Py_XDECREF(device);
        if (result < 0) goto fail;
    }
    if (available && (set_item(details, "driver", version_text(cuda->driver_version)) < 0 ||
                      set_item(details, "runtime", version_text(cuda->runtime_version)) < 0))
        goto fail;
    if (PyDict_SetItemString(details, "devices", devices) < 0) goto fail;
    Py_DECREF(devices);
    return Py_BuildValue("(NNN)", PyBool_FromLong(available), reason, details);
fail:
    Py_XDECREF(reason);
    Py_XDECREF(details);
    Py_XDECREF(devices);
    return NULL;
}

static PyMethodDef functions[] = {
    {"memory_stats", (PyCFunction)(void (*)(void))memory_stats, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR(
         "memory_stats(device=None)\n--\n\n"
         "Bytes that the package's own tensors and scratch hold now on the host, or on a GPU\n"
         "('cuda:0'), and the most held since reset_peak_memory(), as {'bytes': int,\n"
         "'peak_bytes': int}. Of a GPU also 'reserved_bytes', what the package's pool keeps of\n"
         "it, and the whole card's 'free_bytes' and 'total_bytes'.")},
    {"reset_peak_memory", (PyCFunction)(void (*)(void))reset_peak_memory,
     METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("reset_peak_memory(device=None)\n--\n\n"
               "Lets the peak of memory_stats(device) begin again.")},
    {"empty_cache", (PyCFunction)(void (*)(void))empty_cache, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR(
         "empty_cache(device)\n--\n\n"
         "Gives back memory that no tensor holds: the host's, or a GPU's, for which it waits, and\n"
         "pinned memory.")},
    {"synchronize", (PyCFunction)(void (*)(void))synchronize, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("synchronize(device)\n--\n\nWaits until all work queued on the GPU is done.")},
    {"cuda_status", cuda_status, METH_NOARGS,
     PyDoc_STR(
         "cuda_status()\n--\n\n"
         "Whether GPUs can be used, why not, and what there is.\n\n"
         "Returns\n-------\n"
         "available : bool\n"
         "reason : str\n    Cause and remedy where it is not available, else ''.\n"
         "details : dict\n"
         "    'library': path of the CUDA backend; 'devices': one dict a GPU with 'name',\n"
         "    'compute_capability', 'multiprocessors' and 'total_bytes'; where available also\n"
         "    'driver' and 'runtime', the versions of CUDA that both serve.")},
    {NULL, NULL, 0, NULL},
};

/* The CUDA backend lies beside the extension. */
static int set_cuda_path(PyObject *module) {
    PyObject *file = PyModule_GetFilenameObject(module);
    PyObject *bytes = file != NULL ? PyUnicode_EncodeFSDefault(file) : NULL;
    const char *path = bytes != NULL ? PyBytes_AsString(bytes) : NULL;
    int result = -1;
    if (path != NULL) {
        char text[PATH_MAX];
        const char *slash = strrchr(path, '/');
        int folder = slash != NULL ? (int)(slash - path) + 1 : 0;
        snprintf(text, sizeof text, "%.*sliblongnet_cuda.so", folder, path);
        lnet_cuda_set_path(text);
        result = 0;
    }
    Py_XDECREF(bytes);
    Py_XDECREF(file);
    return result;
}

int lnet_add_device_functions(PyObject *module, lnet_state *state) {
    const char *required = getenv("LONGNET_REQUIRE_CUDA");
    if (PyModule_AddFunctions(module, functions) < 0 || set_cuda_path(module) < 0) return -1;
    if (required == NULL || *required == '\0' || strcmp(required, "0") == 0) return 0;
    char reason[400];
    lnet_status status = lnet_cuda_get(NULL);
    if (status == LNET_OK) return 0;
    snprintf(reason, sizeof reason, "%s", lnet_message());
    lnet_raise(state, lnet_fail(status, "LONGNET_REQUIRE_CUDA=%.8s: %s", required, reason));
    return -1;
}
