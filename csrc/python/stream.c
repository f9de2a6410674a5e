/* longnet.Stream: a queue of work on one GPU, and the thread's current one. */
#include "python/python.h"

static lnet_stream *stream_of(PyObject *self) {
    return ((stream_object *)self)->stream;
}

/* Takes over the reference, also on failure. */
static PyObject *stream_object_new(PyTypeObject *type, lnet_stream *stream) {
    allocfunc allocate = PyType_GetSlot(type, Py_tp_alloc);
    PyObject *self = allocate(type, 0);
    if (self != NULL)
        ((stream_object *)self)->stream = stream;
    else
        lnet_stream_release(stream);
    return self;
}

static PyObject *stream_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"device", "handle", NULL};
    PyObject *device_name = NULL, *handle = Py_None;
    lnet_device device = {LNET_CUDA, 0};
    lnet_stream *stream;
    uint64_t foreign = 0;
    lnet_state *state = lnet_state_of(type);
    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "|U$O:Stream", names, &device_name, &handle))
        return NULL;
    if (device_name != NULL && lnet_parse_gpu(state, device_name, &device) < 0) return NULL;
    if (handle != Py_None && lnet_parse_uint64(state, "handle", handle, &foreign) < 0) return NULL;
    lnet_status status = handle == Py_None
                             ? lnet_stream_new(&stream, device.index)
                             : lnet_stream_wrap(&stream, device.index, (void *)(uintptr_t)foreign);
    return status == LNET_OK ? stream_object_new(type, stream) : lnet_raise(state, status);
}

static void stream_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    lnet_stream *stream = stream_of(self);
    Py_BEGIN_ALLOW_THREADS /* the last reference waits for the stream's work */
        lnet_stream_release(stream);
    Py_END_ALLOW_THREADS freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *stream_current(PyObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"device", NULL};
    PyObject *device_name = NULL;
    lnet_device device = {LNET_CUDA, 0};
    lnet_stream *stream;
    lnet_state *state = lnet_state_of((PyTypeObject *)type);
    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "|U:current", names, &device_name))
        return NULL;
    if (device_name != NULL && lnet_parse_gpu(state, device_name, &device) < 0) return NULL;
    lnet_status status = lnet_stream_current(&stream, device.index);
    if (status != LNET_OK) return lnet_raise(state, status);
    return stream_object_new((PyTypeObject *)type, lnet_stream_retain(stream));
}

static PyObject *finish(PyObject *self, lnet_status status) {
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    if (state == NULL) return NULL;
    if (status != LNET_OK) return lnet_raise(state, status);
    Py_RETURN_NONE;
}

static PyObject *stream_synchronize(PyObject *self, PyObject *unused) {
    (void)unused;
    const lnet_cuda *cuda;
    lnet_status status = lnet_cuda_get(&cuda);
    if (status == LNET_OK) {
        Py_BEGIN_ALLOW_THREADS status = cuda->stream_synchronize(stream_of(self));
        lnet_release_due();
        Py_END_ALLOW_THREADS
    }
    return finish(self, status);
}

static PyObject *stream_wait(PyObject *self, PyObject *other) {
    const lnet_cuda *cuda;
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    if (state == NULL) return NULL;
    if (PyObject_TypeCheck(other, state->stream_type))
        return finish(self, lnet_stream_after(stream_of(self), stream_of(other)));
    if (!PyObject_TypeCheck(other, state->event_type)) {
        PyErr_SetString(PyExc_TypeError, "wait: expected a longnet.Stream or a longnet.Event");
        return NULL;
    }
    lnet_status status = lnet_cuda_get(&cuda);
    if (status == LNET_OK)
        status = cuda->stream_wait(stream_of(self), ((event_object *)other)->event);
    return finish(self, status);
}

static PyObject *stream_record(PyObject *self, PyObject *unused) {
    (void)unused;
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    return state != NULL ? lnet_event_record(state, stream_of(self)) : NULL;
}

static PyObject *stream_enter(PyObject *self, PyObject *unused) {
    (void)unused;
    lnet_status status = lnet_stream_push(stream_of(self));
    if (status == LNET_OK) return Py_NewRef(self);
    return finish(self, status);
}

static PyObject *stream_exit(PyObject *self, PyObject *unused) {
    (void)unused;
    return finish(self, lnet_stream_pop(stream_of(self)));
}

static PyObject *get_handle(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromVoidPtr(stream_of(self)->handle);
}

static PyObject *get_device(PyObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromFormat("cuda:%d", (int)stream_of(self)->device);
}

static PyObject *cuda_stream_protocol(PyObject *self, PyObject *unused) {
    (void)unused;
    return Py_BuildValue("(iN)", 0, get_handle(self, NULL));
}

static PyObject *stream_repr(PyObject *self) {
    return PyUnicode_FromFormat("<longnet.Stream %p on cuda:%d>", stream_of(self)->handle,
                                (int)stream_of(self)->device);
}

static PyMethodDef stream_methods[] = {
    {"current", (PyCFunction)(void (*)(void))stream_current,
     METH_VARARGS | METH_KEYWORDS | METH_CLASS,
     PyDoc_STR("current($type, device='cuda')\n--\n\n"
               "This thread's current stream: the innermost of its `with` blocks, else the\n"
               "device's default stream, which is the package's own.")},
    {"synchronize", stream_synchronize, METH_NOARGS,
     PyDoc_STR("synchronize($self)\n--\n\nWaits until the work queued so far is done.")},
    {"wait", stream_wait, METH_O,
     PyDoc_STR("wait($self, other, /)\n--\n\n"
               "Lets this stream's later work begin after the work queued so far on another\n"
               "stream, or after an event. Does not block.")},
    {"record", stream_record, METH_NOARGS,
     PyDoc_STR("record($self)\n--\n\nAn Event that happens when the work queued so far is done.")},
    {"__enter__", stream_enter, METH_NOARGS, NULL},
    {"__exit__", stream_exit, METH_VARARGS, NULL},
    {"__cuda_stream__", cuda_stream_protocol, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef stream_getset[] = {
    {"handle", get_handle, NULL, PyDoc_STR("The cudaStream_t as an int."), NULL},
    {"device", get_device, NULL, PyDoc_STR("'cuda:0'."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot stream_slots[] = {
    {Py_tp_doc,
     PyDoc_STR(
         "Stream(device='cuda', *, handle=None)\n--\n\n"
         "A queue of work on one GPU: what is queued runs in order, and beside other streams.\n\n"
         "In a `with` block it is the thread's current stream, where ops, copies and\n"
         "allocations of that device go. A tensor's memory is given back when all streams\n"
         "that used it are done; order between streams is the caller's, by wait().\n\n"
         "Parameters\n----------\n"
         "device : str\n"
         "handle : int, optional\n"
         "    A cudaStream_t of another library (torch.cuda.current_stream().cuda_stream), which\n"
         "    must live longer than this and the tensors made on it. Without, a stream is made.")},
    {Py_tp_new, stream_new},
    {Py_tp_dealloc, stream_dealloc},
    {Py_tp_repr, stream_repr},
    {Py_tp_methods, stream_methods},
    {Py_tp_getset, stream_getset},
    {0, NULL},
};

static PyType_Spec stream_spec = {
    .name = "longnet.Stream",
    .basicsize = sizeof(stream_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = stream_slots,
};

int lnet_add_stream_type(PyObject *module, lnet_state *state) {
    state->stream_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &stream_spec, NULL);
    if (state->stream_type == NULL) return -1;
    return PyModule_AddType(module, state->stream_type);
}
