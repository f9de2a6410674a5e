/* The CUDA array interface, version 3, in and out: what Numba and older libraries exchange. */
#include "python/python.h"

#include <stdlib.h>

/* bfloat16 has no type string. */
static const char *const typestrs[LNET_DTYPE_COUNT] = {
    [LNET_FLOAT32] = "<f4", [LNET_FLOAT16] = "<f2", [LNET_INT32] = "<i4",
    [LNET_INT64] = "<i8",   [LNET_UINT8] = "|u1",
};

/* ---- out ---- */

PyObject *lnet_get_cuda_array(PyObject *self, void *unused) {
    (void)unused;
    lnet_stream *stream;
    lnet_status status;
    lnet_tensor *t = &((tensor_object *)self)->tensor;
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    if (state == NULL) return NULL;
    if (t->device.type != LNET_CUDA || typestrs[t->dtype] == NULL)
        return PyErr_Format(PyExc_AttributeError, "__cuda_array_interface__: %s",
                            t->device.type != LNET_CUDA
                                ? "the tensor lies on the cpu"
                                : "bfloat16 has no type string there: use DLPack");
    /* whoever reads waits for this stream alone, so it waits for the others */
    LNET_TRY(lnet_stream_current(&stream, t->device.index));
    LNET_TRY(lnet_tensor_ready(t, stream));
    lnet_tensor_lend(t);
    PyObject *shape = lnet_int64_tuple(t->ndim, t->shape, 1);
    PyObject *strides = lnet_int64_tuple(t->ndim, t->strides, (int64_t)lnet_dtype_size(t->dtype));
    return Py_BuildValue("{s:N,s:N,s:s,s:(NN),s:i,s:N}", "shape", shape, "strides", strides,
                         "typestr", typestrs[t->dtype], "data", PyLong_FromVoidPtr(t->data),
                         PyBool_FromLong(t->readonly), "version", 3, "stream",
                         PyLong_FromVoidPtr(lnet_stream_number(stream)));
fail:
    return lnet_raise(state, status);
}

/* ---- in ---- */

static void release_object(void *owner) {
    PyGILState_STATE gil = PyGILState_Ensure();
    Py_DECREF((PyObject *)owner);
    PyGILState_Release(gil);
}

/* What the interface's dict says. */
typedef struct description {
    lnet_dtype dtype;
    int32_t ndim;
    int64_t shape[LNET_MAX_DIMS], strides[LNET_MAX_DIMS];
    bool strided, readonly;
    void *data;
    PyObject *stream; /* borrowed, None or an int */
} description;

static lnet_status read_strides(const char *name, description *d) {
    int64_t size = (int64_t)lnet_dtype_size(d->dtype);
    for (int32_t i = 0; d->strided && i < d->ndim; i++) {
        if (d->strides[i] % size != 0)
            return lnet_fail(LNET_VALUE_ERROR,
                             "%s: a stride of %lld bytes, expected a multiple of %lld", name,
                             (long long)d->strides[i], (long long)size);
        d->strides[i] /= size;
    }
    if ((uintptr_t)d->data % (uintptr_t)size != 0)
        return lnet_fail(LNET_VALUE_ERROR, "%s: data not aligned to its %lld-byte elements", name,
                         (long long)size);
    return LNET_OK;
}

static int read_dtype(lnet_state *state, const char *name, PyObject *value, lnet_dtype *dtype) {
    const char *text = value != NULL ? PyUnicode_AsUTF8AndSize(value, NULL) : "missing";
    if (text == NULL) return -1;
    for (int i = 0; i < LNET_DTYPE_COUNT; i++)
        if (typestrs[i] != NULL && strcmp(text, typestrs[i]) == 0) {
            *dtype = (lnet_dtype)i;
            return 0;
        }
    lnet_raise(state, lnet_fail(LNET_DTYPE_ERROR,
                                "%s: type string '%.40s', expected <f4, <f2, <i4, <i8 or |u1 "
                                "(bfloat16 comes by DLPack)",
                                name, text));
    return -1;
}

static int read_interface(lnet_state *state, const char *name, PyObject *dict, description *d) {
    PyObject *data = PyDict_GetItemString(dict, "data");
    PyObject *shape = PyDict_GetItemString(dict, "shape");
    PyObject *strides = PyDict_GetItemString(dict, "strides");
    PyObject *mask = PyDict_GetItemString(dict, "mask");
    PyObject *pointer;
    int readonly;
    d->stream = PyDict_GetItemString(dict, "stream");
    if (read_dtype(state, name, PyDict_GetItemString(dict, "typestr"), &d->dtype) < 0) return -1;
    if (mask != NULL && mask != Py_None) {
        lnet_raise(state, lnet_fail(LNET_VALUE_ERROR,
                                    "%s: a masked array, expected one without "
                                    "a mask",
                                    name));
        return -1;
    }
    if (data == NULL || shape == NULL || !PyTuple_Check(data) ||
        !PyArg_ParseTuple(data, "Op:data", &pointer, &readonly)) {
        if (!PyErr_Occurred())
            lnet_raise(state, lnet_fail(LNET_VALUE_ERROR,
                                        "%s: __cuda_array_interface__ lacks "
                                        "'data' or 'shape'",
                                        name));
        return -1;
    }
    d->data = PyLong_AsVoidPtr(pointer);
    d->readonly = readonly;
    d->strided = strides != NULL && strides != Py_None;
    d->ndim = PyErr_Occurred() ? -1 : lnet_parse_shape(state, shape, d->shape);
    if (d->ndim < 0) return -1;
    if (d->strided && lnet_parse_shape(state, strides, d->strides) != d->ndim) {
        if (!PyErr_Occurred())
            lnet_raise(state,
                       lnet_fail(LNET_SHAPE_ERROR, "%s: not as many strides as dimensions", name));
        return -1;
    }
    lnet_status status = read_strides(name, d);
    if (status != LNET_OK) lnet_raise(state, status);
    return status == LNET_OK ? 0 : -1;
}

/* Our current stream goes on after the work that the owner has queued. */
static lnet_status wait_for_owner(const char *name, PyObject *number, int32_t device) {
    lnet_stream *stream;
    lnet_status status;
    if (number == NULL || number == Py_None) return LNET_OK;
    lnet_stream owner = {.handle = PyLong_AsVoidPtr(number), .device = device};
    if (PyErr_Occurred() || owner.handle == NULL) {
        PyErr_Clear();
        return lnet_fail(LNET_VALUE_ERROR, "%s: stream: expected None or a positive integer", name);
    }
    LNET_TRY(lnet_stream_current(&stream, device));
    LNET_TRY(lnet_stream_after(stream, &owner));
fail:
    return status;
}

int lnet_from_cuda_array(lnet_state *state, const char *name, PyObject *object, PyObject *interface,
                         lnet_tensor *tensor) {
    const lnet_cuda *cuda;
    description d;
    lnet_status status;
    int32_t device = 0;
    if (!PyDict_Check(interface)) {
        PyErr_Format(PyExc_TypeError, "%s: __cuda_array_interface__ is not a dict", name);
        return -1;
    }
    if (read_interface(state, name, interface, &d) < 0) return -1;
    LNET_TRY(lnet_cuda_get(&cuda));
    bool empty = false;
    for (int32_t i = 0; i < d.ndim; i++) empty = empty || d.shape[i] == 0;
    if (!empty) LNET_TRY(cuda->pointer_device(name, d.data, &device));
    LNET_TRY(wait_for_owner(name, d.stream, device));
    LNET_TRY(lnet_tensor_wrap(tensor, d.data, d.dtype, (lnet_device){LNET_CUDA, device}, d.ndim,
                              d.shape, d.strided ? d.strides : NULL, d.readonly, release_object,
                              object));
    Py_INCREF(object);
    return 0;
fail:
    lnet_raise(state, status);
    return -1;
}
