/* longnet.Tensor. */
#include "python/python.h"

static lnet_tensor *tensor_of(PyObject *self) {
    return &((tensor_object *)self)->tensor;
}

bool lnet_is_tensor(lnet_state *state, PyObject *object) {
    return PyObject_TypeCheck(object, state->tensor_type);
}

PyObject *lnet_tensor_object(lnet_state *state, lnet_tensor *tensor) {
    allocfunc allocate = PyType_GetSlot(state->tensor_type, Py_tp_alloc);
    PyObject *self = allocate(state->tensor_type, 0);
    if (self == NULL) {
        lnet_tensor_release(tensor);
        return NULL;
    }
    *tensor_of(self) = *tensor;
    return self;
}

static void tensor_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    lnet_tensor_release(tensor_of(self));
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

int lnet_parse_dtype(lnet_state *state, PyObject *name, lnet_dtype *dtype) {
    const char *text = PyUnicode_AsUTF8AndSize(name, NULL);
    if (text == NULL) return -1;
    for (int i = 0; i < LNET_DTYPE_COUNT; i++)
        if (strcmp(text, lnet_dtype_name((lnet_dtype)i)) == 0) {
            *dtype = (lnet_dtype)i;
            return 0;
        }
    lnet_raise(state, lnet_fail(LNET_DTYPE_ERROR,
                                "dtype '%.40s', expected float32, float16, bfloat16, int32, int64 "
                                "or uint8",
                                text));
    return -1;
}

int lnet_parse_device(lnet_state *state, PyObject *name, lnet_device *device) {
    const char *text = PyUnicode_AsUTF8AndSize(name, NULL);
    if (text == NULL) return -1;
    *device = (lnet_device){LNET_CPU, 0};
    if (strcmp(text, "cpu") == 0) return 0;
    device->type = LNET_CUDA;
    char rest;
    if (strcmp(text, "cuda") == 0 || sscanf(text, "cuda:%d%c", &device->index, &rest) == 1)
        return 0;
    lnet_raise(state,
               lnet_fail(LNET_DEVICE_ERROR, "device '%.40s', expected cpu, cuda or cuda:N", text));
    return -1;
}

PyObject *lnet_int64_tuple(int32_t count, const int64_t *items, int64_t factor) {
    PyObject *tuple = PyTuple_New(count);
    for (int32_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *item = PyLong_FromLongLong(items[i] * factor);
        if (item == NULL || PyTuple_SetItem(tuple, i, item) < 0) Py_CLEAR(tuple);
    }
    return tuple;
}

/* Tensor(object): the object's memory as a tensor. */
static PyObject *tensor_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"object", NULL};
    PyObject *object;
    lnet_state *state = lnet_state_of(type);
    if (state == NULL || !PyArg_ParseTupleAndKeywords(args, kwargs, "O:Tensor", names, &object))
        return NULL;
    return lnet_as_tensor(state, "Tensor", object);
}

static PyObject *tensor_borrow(PyObject *type, PyObject *object) {
    lnet_state *state = lnet_state_of((PyTypeObject *)type);
    PyObject *self = state != NULL ? lnet_as_tensor(state, "borrow", object) : NULL;
    if (self != NULL) lnet_tensor_borrow(tensor_of(self));
    return self;
}

static PyObject *tensor_empty(PyObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"shape", "dtype", "device", "pinned", NULL};
    PyObject *shape_object, *dtype_name = NULL, *device_name = NULL;
    int pinned = 0;
    lnet_dtype dtype = LNET_FLOAT32;
    lnet_device device = {LNET_CPU, 0};
    int64_t shape[LNET_MAX_DIMS];
    lnet_tensor tensor;
    lnet_status status;
    lnet_state *state = lnet_state_of((PyTypeObject *)type);
    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "O|UU$p:empty", names, &shape_object,
                                     &dtype_name, &device_name, &pinned))
        return NULL;
    if (dtype_name != NULL && lnet_parse_dtype(state, dtype_name, &dtype) < 0) return NULL;
    if (device_name != NULL && lnet_parse_device(state, device_name, &device) < 0) return NULL;
    int ndim = lnet_parse_shape(state, shape_object, shape);
    if (ndim < 0) return NULL;
    if (pinned && device.type != LNET_CPU)
        return lnet_raise(state, lnet_fail(LNET_DEVICE_ERROR,
                                           "empty: pinned memory on cuda:%d, "
                                           "expected on the cpu",
                                           device.index));
    Py_BEGIN_ALLOW_THREADS status = pinned ? lnet_tensor_new_pinned(&tensor, dtype, ndim, shape)
                                           : lnet_tensor_new(&tensor, dtype, device, ndim, shape);
    Py_END_ALLOW_THREADS if (status != LNET_OK) return lnet_raise(state, status);
    return lnet_tensor_object(state, &tensor);
}

static PyObject *get_shape(PyObject *self, void *unused) {
    (void)unused;
    return lnet_int64_tuple(tensor_of(self)->ndim, tensor_of(self)->shape, 1);
}

static PyObject *get_strides(PyObject *self, void *unused) {
    (void)unused;
    lnet_tensor *t = tensor_of(self);
    return lnet_int64_tuple(t->ndim, t->strides, (int64_t)lnet_dtype_size(t->dtype));
}

static PyObject *get_ndim(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromLong(tensor_of(self)->ndim);
}

static PyObject *get_size(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(lnet_tensor_count(tensor_of(self)));
}

static PyObject *get_nbytes(PyObject *self, void *unused) {
    (void)unused;
    lnet_tensor *t = tensor_of(self);
    return PyLong_FromLongLong(lnet_tensor_count(t) * (int64_t)lnet_dtype_size(t->dtype));
}

static PyObject *get_dtype(PyObject *self, void *unused) {
    (void)unused;
    return PyUnicode_InternFromString(lnet_dtype_name(tensor_of(self)->dtype));
}

static PyObject *get_device(PyObject *self, void *unused) {
    (void)unused;
    lnet_device device = tensor_of(self)->device;
    if (device.type == LNET_CPU) return PyUnicode_FromString("cpu");
    return PyUnicode_FromFormat("cuda:%d", (int)device.index);
}

static PyObject *get_contiguous(PyObject *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(lnet_tensor_contiguous(tensor_of(self)));
}

static Py_ssize_t tensor_length(PyObject *self) {
    if (tensor_of(self)->ndim > 0) return (Py_ssize_t)tensor_of(self)->shape[0];
    PyErr_SetString(PyExc_TypeError, "a Tensor of no dimensions has no length");
    return -1;
}

static PyObject *tensor_numpy(PyObject *self, PyObject *unused) {
    (void)unused;
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    return state != NULL ? lnet_to_array(state, self) : NULL;
}

static PyObject *tensor_copy(PyObject *self, PyObject *unused) {
    (void)unused;
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    return state != NULL ? lnet_contiguous_copy(state, self) : NULL;
}

/* A method of the NumPy view of this tensor. */
static PyObject *call_on_array(PyObject *self, const char *method, PyObject *args,
                               PyObject *kwargs) {
    PyObject *array = tensor_numpy(self, NULL), *bound = NULL, *result = NULL;
    if (array != NULL) bound = PyObject_GetAttrString(array, method);
    if (bound != NULL) result = PyObject_Call(bound, args, kwargs);
    Py_XDECREF(bound);
    Py_XDECREF(array);
    return result;
}

static PyObject *tensor_array(PyObject *self, PyObject *args, PyObject *kwargs) {
    return call_on_array(self, "__array__", args, kwargs);
}

static PyObject *tensor_item(PyObject *self, PyObject *args) {
    if (tensor_of(self)->device.type == LNET_CPU) return call_on_array(self, "item", args, NULL);
    PyObject *copy = PyObject_CallMethod(self, "to", "s", "cpu");
    PyObject *result = copy != NULL ? call_on_array(copy, "item", args, NULL) : NULL;
    Py_XDECREF(copy);
    return result;
}

static int tensor_getbuffer(PyObject *self, Py_buffer *view, int flags) {
    static const char *const formats[LNET_DTYPE_COUNT] = {
        [LNET_FLOAT32] = "f", [LNET_FLOAT16] = "e", [LNET_INT32] = "i",
        [LNET_INT64] = "q",   [LNET_UINT8] = "B",
    };
    lnet_tensor *t = tensor_of(self);
    view->obj = NULL;
    const char *refusal = NULL;
    if (t->device.type != LNET_CPU)
        refusal = "a tensor on a GPU has no host buffer: use numpy()";
    else if (formats[t->dtype] == NULL)
        refusal = "bfloat16 has no buffer format: use numpy()";
    else if (t->readonly && (flags & PyBUF_WRITABLE))
        refusal = "the tensor is read-only";
    else if (!lnet_tensor_contiguous(t) && (flags & PyBUF_STRIDES) != PyBUF_STRIDES)
        refusal = "the tensor is not contiguous";
    if (refusal != NULL) {
        PyErr_SetString(PyExc_BufferError, refusal);
        return -1;
    }
    /* shape and byte strides live until the buffer is released */
    Py_ssize_t *layout = PyMem_Malloc(2 * LNET_MAX_DIMS * sizeof *layout);
    if (layout == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    Py_ssize_t size = (Py_ssize_t)lnet_dtype_size(t->dtype);
    for (int32_t i = 0; i < t->ndim; i++) {
        layout[i] = t->shape[i];
        layout[LNET_MAX_DIMS + i] = t->strides[i] * size;
    }
    *view = (Py_buffer){
        .buf = t->data,
        .obj = Py_NewRef(self),
        .len = lnet_tensor_count(t) * size,
        .itemsize = size,
        .readonly = t->readonly,
        .ndim = t->ndim,
        .format = flags & PyBUF_FORMAT ? (char *)formats[t->dtype] : NULL,
        .shape = flags & PyBUF_ND ? layout : NULL,
        .strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? layout + LNET_MAX_DIMS : NULL,
        .internal = layout,
    };
    return 0;
}

static void tensor_releasebuffer(PyObject *self, Py_buffer *view) {
    (void)self;
    PyMem_Free(view->internal);
}

static PyObject *tensor_repr(PyObject *self) {
    char text[200];
    lnet_tensor *t = tensor_of(self);
    lnet_tensor_describe(t, text, sizeof text);
    PyObject *device = get_device(self, NULL);
    if (device == NULL) return NULL;
    PyObject *result = PyUnicode_FromFormat("<longnet.Tensor %s on %U>", text, device);
    Py_DECREF(device);
    return result;
}

static PyMethodDef tensor_methods[] = {
    {"borrow", tensor_borrow, METH_O | METH_CLASS,
     PyDoc_STR(
         "borrow($type, object, /)\n--\n\n"
         "Tensor(object), of an owner that gives memory back in the order of the one stream on\n"
         "which the tensor is used, as PyTorch does on its current stream: the owner is told\n"
         "when the tensor goes, not when the GPU is done with it.")},
    {"empty", (PyCFunction)(void (*)(void))tensor_empty, METH_VARARGS | METH_KEYWORDS | METH_CLASS,
     PyDoc_STR(
         "empty($type, shape, dtype='float32', device='cpu', *, pinned=False)\n--\n\n"
         "A new contiguous tensor of uninitialised memory. Pinned (page-locked) memory of the\n"
         "cpu is what copies to and from a GPU are fastest with.")},
    {"to", (PyCFunction)(void (*)(void))lnet_tensor_to_method, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR(
         "to($self, device, *, stream=None)\n--\n\n"
         "The tensor itself where it lies on the device, else a copy there.\n\n"
         "Parameters\n----------\n"
         "device : str\n    'cpu', 'cuda' or 'cuda:1'.\n"
         "stream : longnet.Stream, optional\n"
         "    Queues the copy there and returns at once: a copy on the cpu (in pinned memory) is\n"
         "    complete, and pinned memory copied from may change, after stream.synchronize().\n"
         "    Without, the copy takes the current stream, and host memory is ready.")},
    {"numpy", tensor_numpy, METH_NOARGS,
     PyDoc_STR("numpy($self)\n--\n\nA NumPy array over the same memory.")},
    {"copy", tensor_copy, METH_NOARGS, PyDoc_STR("copy($self)\n--\n\nA contiguous copy.")},
    {"reshape", lnet_tensor_reshape, METH_VARARGS,
     PyDoc_STR(
         "reshape($self, *shape)\n--\n\n"
         "The same memory in another shape; one entry may be -1. Needs a contiguous tensor.")},
    {"item", tensor_item, METH_VARARGS,
     PyDoc_STR("item($self, *args)\n--\n\nOne element as a Python number, as ndarray.item; of a\n"
               "tensor on a GPU, which is copied and waited for.")},
    {"__array__", (PyCFunction)(void (*)(void))tensor_array, METH_VARARGS | METH_KEYWORDS, NULL},
    {"__dlpack__", (PyCFunction)(void (*)(void))lnet_tensor_dlpack, METH_VARARGS | METH_KEYWORDS,
     NULL},
    {"__dlpack_device__", lnet_tensor_dlpack_device, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef tensor_getset[] = {
    {"shape", get_shape, NULL, PyDoc_STR("Elements along each dimension."), NULL},
    {"strides", get_strides, NULL, PyDoc_STR("Bytes between neighbours, as in NumPy."), NULL},
    {"ndim", get_ndim, NULL, PyDoc_STR("Number of dimensions."), NULL},
    {"size", get_size, NULL, PyDoc_STR("Number of elements."), NULL},
    {"nbytes", get_nbytes, NULL, PyDoc_STR("Bytes of all elements."), NULL},
    {"dtype", get_dtype, NULL, PyDoc_STR("'float32', 'float16', 'bfloat16', ..."), NULL},
    {"device", get_device, NULL, PyDoc_STR("'cpu' or 'cuda:0'."), NULL},
    {"__cuda_array_interface__", lnet_get_cuda_array, NULL, NULL, NULL},
    {"is_contiguous", get_contiguous, NULL, PyDoc_STR("Whether rows follow each other."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot tensor_slots[] = {
    {Py_tp_doc, PyDoc_STR("Tensor(object)\n--\n\n"
                          "A tensor over the memory of a NumPy array or of any object with\n"
                          "__dlpack__ or __cuda_array_interface__, without a copy.\n\n"
                          "Elements are float32, float16, bfloat16, int32, int64 or uint8.")},
    {Py_tp_new, tensor_new},
    {Py_tp_dealloc, tensor_dealloc},
    {Py_tp_repr, tensor_repr},
    {Py_tp_methods, tensor_methods},
    {Py_tp_getset, tensor_getset},
    {Py_mp_length, tensor_length},
    {Py_mp_subscript, lnet_tensor_subscript},
    {Py_bf_getbuffer, tensor_getbuffer},
    {Py_bf_releasebuffer, tensor_releasebuffer},
    {0, NULL},
};

static PyType_Spec tensor_spec = {
    .name = "longnet.Tensor",
    .basicsize = sizeof(tensor_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tensor_slots,
};

int lnet_add_tensor_type(PyObject *module, lnet_state *state) {
    state->tensor_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &tensor_spec, NULL);
    if (state->tensor_type == NULL) return -1;
    return PyModule_AddType(module, state->tensor_type);
}
