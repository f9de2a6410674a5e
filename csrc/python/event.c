/* longnet.Event: a point in the work of a stream. */
#include "python/python.h"

static void *event_of(PyObject *self) {
    return ((event_object *)self)->event;
}

PyObject *lnet_event_record(lnet_state *state, lnet_stream *stream) {
    const lnet_cuda *cuda;
    lnet_status status = lnet_cuda_get(&cuda);
    if (status != LNET_OK) return lnet_raise(state, status);
    allocfunc allocate = PyType_GetSlot(state->event_type, Py_tp_alloc);
    PyObject *self = allocate(state->event_type, 0);
    if (self == NULL) return NULL;
    status = cuda->event_create(stream->device, true, &((event_object *)self)->event);
    if (status == LNET_OK) status = cuda->event_record(event_of(self), stream);
    if (status == LNET_OK) return self;
    lnet_raise(state, status);
    Py_DECREF(self);
    return NULL;
}

static void event_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    const lnet_cuda *cuda;
    if (event_of(self) != NULL && lnet_cuda_get(&cuda) == LNET_OK)
        cuda->event_destroy(event_of(self));
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *event_synchronize(PyObject *self, PyObject *unused) {
    (void)unused;
    const lnet_cuda *cuda;
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    if (state == NULL) return NULL;
    lnet_status status = lnet_cuda_get(&cuda);
    if (status == LNET_OK) {
        Py_BEGIN_ALLOW_THREADS status = cuda->event_synchronize(event_of(self));
        Py_END_ALLOW_THREADS
    }
    if (status != LNET_OK) return lnet_raise(state, status);
    Py_RETURN_NONE;
}

static PyObject *get_done(PyObject *self, void *unused) {
    (void)unused;
    const lnet_cuda *cuda;
    bool done = false;
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    if (state == NULL) return NULL;
    lnet_status status = lnet_cuda_get(&cuda);
    if (status == LNET_OK) status = cuda->event_query(event_of(self), &done);
    return status == LNET_OK ? PyBool_FromLong(done) : lnet_raise(state, status);
}

static PyObject *event_seconds_since(PyObject *self, PyObject *start) {
    const lnet_cuda *cuda;
    double seconds = 0.0;
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    if (state == NULL) return NULL;
    if (!PyObject_TypeCheck(start, state->event_type)) {
        PyErr_SetString(PyExc_TypeError, "seconds_since: expected a longnet.Event");
        return NULL;
    }
    lnet_status status = lnet_cuda_get(&cuda);
    if (status == LNET_OK) {
        Py_BEGIN_ALLOW_THREADS status = cuda->event_synchronize(event_of(self));
        if (status == LNET_OK)
            status = cuda->event_elapsed(&seconds, event_of(start), event_of(self));
        Py_END_ALLOW_THREADS
    }
    return status == LNET_OK ? PyFloat_FromDouble(seconds) : lnet_raise(state, status);
}

static PyMethodDef event_methods[] = {
    {"synchronize", event_synchronize, METH_NOARGS,
     PyDoc_STR("synchronize($self)\n--\n\nWaits until it has happened.")},
    {"seconds_since", event_seconds_since, METH_O,
     PyDoc_STR("seconds_since($self, start, /)\n--\n\n"
               "Waits until it has happened; the time on the GPU since an earlier event, in\n"
               "seconds.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef event_getset[] = {
    {"done", get_done, NULL, PyDoc_STR("Whether it has happened."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot event_slots[] = {
    {Py_tp_doc, PyDoc_STR("A point in the work of a stream; Stream.record() makes one.")},
    {Py_tp_dealloc, event_dealloc},
    {Py_tp_methods, event_methods},
    {Py_tp_getset, event_getset},
    {0, NULL},
};

static PyType_Spec event_spec = {
    .name = "longnet.Event",
    .basicsize = sizeof(event_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = event_slots,
};

int lnet_add_event_type(PyObject *module, lnet_state *state) {
    state->event_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &event_spec, NULL);
    if (state->event_type == NULL) return -1;
    return PyModule_AddType(module, state->event_type);
}
