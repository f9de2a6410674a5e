/* DLPack in and out: the array exchange of PyTorch, CuPy, JAX and NumPy, versions 0.x and 1.x.
 * The structs are the interface that DLPack's specification fixes. */
#include "python/python.h"

#include <stdlib.h>

enum { DL_CPU = 1, DL_CUDA = 2, DL_CUDA_HOST = 3, DL_CUDA_MANAGED = 13 };
/* Numbers of streams: CUDA's two default ones; larger numbers are handles. */
enum { LEGACY_STREAM = 1, THREAD_STREAM = 2, UNKNOWN_STREAM = -1 };
enum { DL_INT = 0, DL_UINT = 1, DL_FLOAT = 2, DL_BFLOAT = 4 };
enum { DL_READ_ONLY = 1 };

typedef struct dl_tensor {
    void *data;
    struct {
        int32_t type, index;
    } device;
    int32_t ndim;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape;
    int64_t *strides; /* in elements, NULL where contiguous */
    uint64_t byte_offset;
} dl_tensor;

typedef struct dl_managed {
    dl_tensor tensor;
    void *context;
    void (*deleter)(struct dl_managed *self);
} dl_managed;

typedef struct dl_versioned {
    uint32_t major, minor;
    void *context;
    void (*deleter)(struct dl_versioned *self);
    uint64_t flags;
    dl_tensor tensor;
} dl_versioned;

static const struct {
    uint8_t code, bits;
} dl_dtypes[LNET_DTYPE_COUNT] = {
    [LNET_FLOAT32] = {DL_FLOAT, 32},   [LNET_FLOAT16] = {DL_FLOAT, 16},
    [LNET_BFLOAT16] = {DL_BFLOAT, 16}, [LNET_INT32] = {DL_INT, 32},
    [LNET_INT64] = {DL_INT, 64},       [LNET_UINT8] = {DL_UINT, 8},
};

/* ---- out ---- */

/* What an exported capsule owns. */
typedef struct exported {
    union {
        dl_managed plain;
        dl_versioned versioned;
    };
    lnet_tensor tensor;
    intptr_t consumer; /* number of the stream that uses it, 0 where none does */
} exported;

/* The handle of a stream that another library destroyed cannot be told from a live one: only the
 * default streams are sure to live. */
static void delete_exported(exported *e) {
    lnet_stream user = {.handle = (void *)e->consumer, .device = e->tensor.device.index};
    if (e->consumer != 0)
        lnet_tensor_given_back(&e->tensor, e->consumer == LEGACY_STREAM ? &user : NULL);
    lnet_tensor_release(&e->tensor);
    free(e);
}

static void delete_plain(dl_managed *self) {
    delete_exported(self->context);
}

static void delete_versioned(dl_versioned *self) {
    delete_exported(self->context);
}

/* A capsule that nobody consumed still has its first name. */
static void capsule_dealloc(PyObject *capsule) {
    exported *e = NULL;
    if (PyCapsule_IsValid(capsule, "dltensor"))
        e = ((dl_managed *)PyCapsule_GetPointer(capsule, "dltensor"))->context;
    else if (PyCapsule_IsValid(capsule, "dltensor_versioned"))
        e = ((dl_versioned *)PyCapsule_GetPointer(capsule, "dltensor_versioned"))->context;
    if (e == NULL) return;
    e->consumer = 0;
    delete_exported(e);
}

static void describe(dl_tensor *out, lnet_tensor *tensor) {
    out->data = tensor->data;
    out->device.type = tensor->device.type == LNET_CPU ? DL_CPU : DL_CUDA;
    out->device.index = tensor->device.index;
    out->ndim = tensor->ndim;
    out->dtype.code = dl_dtypes[tensor->dtype].code;
    out->dtype.bits = dl_dtypes[tensor->dtype].bits;
    out->dtype.lanes = 1;
    out->shape = tensor->shape;
    out->strides = tensor->strides;
    out->byte_offset = 0;
}

/* The consumer's stream goes on after our work on the tensor. */
static lnet_status hand_over(const lnet_tensor *tensor, intptr_t consumer) {
    lnet_stream user = {.handle = (void *)consumer, .device = tensor->device.index};
    if (consumer == 0 || consumer == UNKNOWN_STREAM) return LNET_OK;
    return lnet_tensor_ready(tensor, &user);
}

PyObject *lnet_to_dlpack(lnet_state *state, PyObject *object, bool versioned, intptr_t consumer) {
    lnet_tensor *tensor = &((tensor_object *)object)->tensor;
    if (tensor->readonly && !versioned) {
        PyErr_SetString(PyExc_BufferError,
                        "the tensor is read-only, which DLPack can say from max_version (1, 0) on");
        return NULL;
    }
    lnet_status status = hand_over(tensor, consumer);
    if (status != LNET_OK) return lnet_raise(state, status);
    exported *e = calloc(1, sizeof *e);
    if (e == NULL) return PyErr_NoMemory();
    e->consumer = consumer;
    lnet_tensor_share(&e->tensor, tensor);
    PyObject *capsule;
    if (versioned) {
        e->versioned.major = 1;
        e->versioned.context = e;
        e->versioned.deleter = delete_versioned;
        e->versioned.flags = tensor->readonly ? DL_READ_ONLY : 0;
        describe(&e->versioned.tensor, &e->tensor);
        capsule = PyCapsule_New(&e->versioned, "dltensor_versioned", capsule_dealloc);
    } else {
        e->plain.context = e;
        e->plain.deleter = delete_plain;
        describe(&e->plain.tensor, &e->tensor);
        capsule = PyCapsule_New(&e->plain, "dltensor", capsule_dealloc);
    }
    if (capsule == NULL) delete_exported(e);
    return capsule;
}

/* The number of the consumer's stream from __dlpack__'s argument; raises BufferError. */
static int parse_stream(PyObject *stream, const lnet_tensor *tensor, intptr_t *consumer) {
    *consumer = 0;
    if (tensor->device.type == LNET_CPU) return 0;
    *consumer = LEGACY_STREAM;
    if (stream == Py_None) return 0;
    *consumer = (intptr_t)PyLong_AsLongLong(stream);
    if (PyErr_Occurred()) return -1;
    if (*consumer > 0 || *consumer == UNKNOWN_STREAM) return 0;
    PyErr_Format(PyExc_BufferError,
                 "stream %zd, expected None, -1, 1 (default), 2 (per thread) or a handle",
                 (Py_ssize_t)*consumer);
    return -1;
}

/* What is exported: the tensor, or a copy where one is asked for or the CPU wants it; NULL raises.
 */
static PyObject *exported_object(lnet_state *state, PyObject *self, PyObject *device,
                                 PyObject *copy) {
    const lnet_tensor *tensor = &((tensor_object *)self)->tensor;
    int type = tensor->device.type == LNET_CPU ? DL_CPU : DL_CUDA, index = tensor->device.index;
    int wanted_type = type, wanted_index = index;
    if (device != Py_None && !PyArg_ParseTuple(device, "ii:dl_device", &wanted_type, &wanted_index))
        return NULL;
    if (wanted_type == type && wanted_index == index)
        return copy == Py_True ? lnet_contiguous_copy(state, self) : Py_NewRef(self);
    if (wanted_type == DL_CPU && copy != Py_False)
        return lnet_tensor_to(state, self, (lnet_device){LNET_CPU, 0}, false);
    return PyErr_Format(PyExc_BufferError, "dl_device (%d, %d), expected (%d, %d)%s", wanted_type,
                        wanted_index, type, index, type == DL_CPU ? ", the CPU" : "");
}

PyObject *lnet_tensor_dlpack(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"stream", "max_version", "dl_device", "copy", NULL};
    PyObject *stream = Py_None, *version = Py_None, *device = Py_None, *copy = Py_None;
    int major = 0, minor = 0;
    intptr_t consumer;
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOOO:__dlpack__", names, &stream, &version,
                                     &device, &copy) ||
        (version != Py_None && !PyArg_ParseTuple(version, "ii:max_version", &major, &minor)))
        return NULL;
    PyObject *object = exported_object(state, self, device, copy), *capsule = NULL;
    if (object == NULL) return NULL;
    if (parse_stream(stream, &((tensor_object *)object)->tensor, &consumer) == 0)
        capsule = lnet_to_dlpack(state, object, major >= 1, consumer);
    Py_DECREF(object);
    return capsule;
}

PyObject *lnet_tensor_dlpack_device(PyObject *self, PyObject *unused) {
    (void)unused;
    lnet_device device = ((tensor_object *)self)->tensor.device;
    return Py_BuildValue("(ii)", device.type == LNET_CPU ? DL_CPU : DL_CUDA, (int)device.index);
}

/* ---- in ---- */

static void release_plain(void *owner) {
    dl_managed *managed = owner;
    PyGILState_STATE gil = PyGILState_Ensure(); /* a producer's deleter may be Python's */
    if (managed->deleter != NULL) managed->deleter(managed);
    PyGILState_Release(gil);
}

static void release_versioned(void *owner) {
    dl_versioned *managed = owner;
    PyGILState_STATE gil = PyGILState_Ensure();
    if (managed->deleter != NULL) managed->deleter(managed);
    PyGILState_Release(gil);
}

/* On which GPU the object says it lies, or -1; -2 raises. */
static int gpu_of(PyObject *object) {
    int type = DL_CPU, index = 0;
    PyObject *method = PyObject_GetAttrString(object, "__dlpack_device__");
    if (method == NULL) {
        PyErr_Clear();
        return -1;
    }
    PyObject *device = PyObject_CallNoArgs(method);
    Py_DECREF(method);
    if (device == NULL || !PyArg_ParseTuple(device, "ii:__dlpack_device__", &type, &index))
        index = -2;
    else if (type != DL_CUDA && type != DL_CUDA_MANAGED)
        index = -1;
    Py_XDECREF(device);
    return index;
}

/* The object's capsule, asked for in version 1 and, of older producers, without a version; the
 * producer lets `stream`, a number or NULL on the CPU, wait for its work. */
static PyObject *request_capsule(PyObject *object, PyObject *stream) {
    PyObject *method = PyObject_GetAttrString(object, "__dlpack__");
    PyObject *none = PyTuple_New(0), *arguments = PyDict_New(), *capsule = NULL;
    PyObject *version = Py_BuildValue("(ii)", 1, 0);
    if (method != NULL && none != NULL && arguments != NULL && version != NULL &&
        (stream == NULL || PyDict_SetItemString(arguments, "stream", stream) == 0) &&
        PyDict_SetItemString(arguments, "max_version", version) == 0) {
        capsule = PyObject_Call(method, none, arguments);
        if (capsule == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
            if (PyDict_DelItemString(arguments, "max_version") == 0)
                capsule = PyObject_Call(method, none, arguments);
        }
    }
    Py_XDECREF(version);
    Py_XDECREF(arguments);
    Py_XDECREF(none);
    Py_XDECREF(method);
    return capsule;
}

/* The same of an object on any device; `*gpu` is whose current stream waits, or -1. */
static PyObject *request_on_device(lnet_state *state, PyObject *object, int *gpu) {
    lnet_stream *stream;
    *gpu = gpu_of(object);
    if (*gpu == -2) return NULL;
    if (*gpu == -1) return request_capsule(object, NULL);
    lnet_status status = lnet_stream_current(&stream, *gpu);
    if (status != LNET_OK) return lnet_raise(state, status);
    PyObject *number = PyLong_FromVoidPtr(lnet_stream_number(stream));
    PyObject *capsule = number != NULL ? request_capsule(object, number) : NULL;
    Py_XDECREF(number);
    return capsule;
}

/* The memory is the GPU's, as the producer says. */
static lnet_status check_gpu_memory(const char *name, const dl_tensor *in, const void *data) {
    const lnet_cuda *cuda;
    lnet_status status;
    LNET_TRY(lnet_cuda_device(&cuda, in->device.index));
    for (int32_t i = 0; i < in->ndim; i++)
        if (in->shape[i] == 0) return LNET_OK;
    status = cuda->check_pointer(name, data, in->device.index);
fail:
    return status;
}

static lnet_status wrap(const char *name, const dl_tensor *in, int gpu, bool readonly,
                        void (*release)(void *), void *owner, lnet_tensor *tensor) {
    int dtype = 0;
    while (dtype < LNET_DTYPE_COUNT &&
           (dl_dtypes[dtype].code != in->dtype.code || dl_dtypes[dtype].bits != in->dtype.bits))
        dtype++;
    if (dtype == LNET_DTYPE_COUNT || in->dtype.lanes != 1)
        return lnet_fail(LNET_DTYPE_ERROR,
                         "%s: DLPack type code %d of %d bits, %d lanes, expected float32, float16, "
                         "bfloat16, int32, int64 or uint8",
                         name, in->dtype.code, in->dtype.bits, in->dtype.lanes);
    bool host = in->device.type == DL_CPU || in->device.type == DL_CUDA_HOST;
    if (!host && in->device.type != DL_CUDA && in->device.type != DL_CUDA_MANAGED)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "%s: DLPack device type %d, expected 1 (CPU) or 2 (CUDA)", name,
                         in->device.type);
    if (!host && in->device.index != gpu)
        return lnet_fail(LNET_DEVICE_ERROR,
                         "%s: memory of cuda:%d, where __dlpack_device__ says otherwise", name,
                         in->device.index);
    if (in->ndim > LNET_MAX_DIMS)
        return lnet_fail(LNET_SHAPE_ERROR, "%s: %d dimensions, expected at most %d", name, in->ndim,
                         LNET_MAX_DIMS);
    char *data = (char *)in->data + in->byte_offset;
    if ((uintptr_t)data % lnet_dtype_size((lnet_dtype)dtype) != 0)
        return lnet_fail(LNET_VALUE_ERROR, "%s: data not aligned to its %zu-byte elements", name,
                         lnet_dtype_size((lnet_dtype)dtype));
    lnet_device device = {host ? LNET_CPU : LNET_CUDA, host ? 0 : in->device.index};
    lnet_status status = host ? LNET_OK : check_gpu_memory(name, in, data);
    if (status != LNET_OK) return status;
    return lnet_tensor_wrap(tensor, data, (lnet_dtype)dtype, device, in->ndim, in->shape,
                            in->strides, readonly, release, owner);
}

int lnet_from_dlpack(lnet_state *state, const char *name, PyObject *object, lnet_tensor *tensor) {
    lnet_status status;
    int gpu;
    PyObject *capsule = request_on_device(state, object, &gpu);
    if (capsule == NULL) return -1;
    if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
        dl_versioned *managed = PyCapsule_GetPointer(capsule, "dltensor_versioned");
        status = managed->major == 1
                     ? wrap(name, &managed->tensor, gpu, managed->flags & DL_READ_ONLY,
                            release_versioned, managed, tensor)
                     : lnet_fail(LNET_VALUE_ERROR, "%s: DLPack version %u, expected 1", name,
                                 managed->major);
        if (status == LNET_OK) PyCapsule_SetName(capsule, "used_dltensor_versioned");
    } else if (PyCapsule_IsValid(capsule, "dltensor")) {
        dl_managed *managed = PyCapsule_GetPointer(capsule, "dltensor");
        status = wrap(name, &managed->tensor, gpu, false, release_plain, managed, tensor);
        if (status == LNET_OK) PyCapsule_SetName(capsule, "used_dltensor");
    } else {
        status = lnet_fail(LNET_VALUE_ERROR,
                           "%s: __dlpack__ gave something else than a DLPack capsule", name);
    }
    Py_DECREF(capsule); /* not consumed: its own destructor frees it */
    if (status == LNET_OK) return 0;
    lnet_raise(state, status);
    return -1;
}
