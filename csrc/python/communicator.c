/* longnet._core.NcclCommunicator: NCCL's communicator of one rank, and its stream. What is called
 * here only begins; longnet/communicator/nccl.py waits, with deadlines. */
#include "python/python.h"

#include <sched.h>
#include <time.h>

static communicator_object *communicator_of(PyObject *self) {
    return (communicator_object *)self;
}

PyObject *lnet_communicator_result(PyObject *self, lnet_status status) {
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    if (state == NULL) return NULL;
    if (status != LNET_OK) return lnet_raise(state, status);
    Py_RETURN_NONE;
}

static PyObject *get_version(PyObject *type, PyObject *unused) {
    (void)unused;
    const lnet_cuda *cuda;
    int32_t version = 0;
    lnet_state *state = lnet_state_of((PyTypeObject *)type);
    if (state == NULL) return NULL;
    lnet_status status = lnet_cuda_get(&cuda);
    if (status == LNET_OK) status = cuda->comm.version(&version);
    if (status != LNET_OK) return lnet_raise(state, status);
    return PyUnicode_FromFormat("%d.%d.%d", (int)version / 10000, (int)version / 100 % 100,
                                (int)version % 100);
}

static PyObject *unique_id(PyObject *type, PyObject *unused) {
    (void)unused;
    const lnet_cuda *cuda;
    char id[LNET_COMM_ID_BYTES];
    lnet_state *state = lnet_state_of((PyTypeObject *)type);
    if (state == NULL) return NULL;
    lnet_status status = lnet_cuda_get(&cuda);
    if (status == LNET_OK) {
        Py_BEGIN_ALLOW_THREADS status = cuda->comm.unique_id(id);
        Py_END_ALLOW_THREADS
    }
    if (status != LNET_OK) return lnet_raise(state, status);
    return PyBytes_FromStringAndSize(id, sizeof id);
}

static lnet_status check_place(Py_ssize_t id_bytes, int rank, int size) {
    if (id_bytes != LNET_COMM_ID_BYTES)
        return lnet_fail(LNET_VALUE_ERROR, "unique_id: %lld bytes, expected %d",
                         (long long)id_bytes, LNET_COMM_ID_BYTES);
    if (rank < 0 || rank >= size)
        return lnet_fail(LNET_VALUE_ERROR, "rank %d of %d, expected 0 to %d", rank, size, size - 1);
    return LNET_OK;
}

static lnet_status start(communicator_object *self, const char *id, int32_t device) {
    const lnet_cuda *cuda;
    void *handle = NULL;
    lnet_status status;
    LNET_TRY(lnet_cuda_device(&cuda, device));
    LNET_TRY(cuda->comm.stream_create(device, &handle));
    LNET_TRY(lnet_stream_wrap(&self->stream, device, handle));
    self->stream->owned = true;
    status = cuda->comm.open(&self->comm, id, self->rank, self->size, device);
fail:
    return status;
}

static PyObject *communicator_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"unique_id", "rank", "size", "device", NULL};
    const char *id;
    Py_ssize_t id_bytes;
    int rank, size;
    PyObject *device_name;
    lnet_device device;
    lnet_state *state = lnet_state_of(type);
    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "y#iiU:NcclCommunicator", names, &id, &id_bytes,
                                     &rank, &size, &device_name) ||
        lnet_parse_gpu(state, device_name, &device) < 0)
        return NULL;
    lnet_status status = check_place(id_bytes, rank, size);
    if (status != LNET_OK) return lnet_raise(state, status);
    allocfunc allocate = PyType_GetSlot(type, Py_tp_alloc);
    PyObject *self = allocate(type, 0);
    if (self == NULL) return NULL;
    communicator_of(self)->rank = rank;
    communicator_of(self)->size = size;
    Py_BEGIN_ALLOW_THREADS status = start(communicator_of(self), id, device.index);
    Py_END_ALLOW_THREADS if (status == LNET_OK) return self;
    lnet_raise(state, status);
    Py_DECREF(self);
    return NULL;
}

static void communicator_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    communicator_object *c = communicator_of(self);
    const lnet_cuda *cuda;
    Py_BEGIN_ALLOW_THREADS if (c->comm != NULL && lnet_cuda_get(&cuda) == LNET_OK)
        cuda->comm.free(c->comm);
    lnet_stream_release(c->stream);
    Py_END_ALLOW_THREADS freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* What was begun comes to its end within microseconds as a rule: yields first, then sleeps. */
static lnet_status poll_until(lnet_comm *comm, double seconds, bool *done) {
    const lnet_cuda *cuda;
    struct timespec start, now, pause = {0, 50000};
    double elapsed = 0.0;
    lnet_status status;
    LNET_TRY(lnet_cuda_get(&cuda));
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        LNET_TRY(cuda->comm.poll(comm, done));
        if (*done || elapsed >= seconds) break;
        if (elapsed < 1e-3)
            sched_yield();
        else
            nanosleep(&pause, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
        elapsed =
            (double)(now.tv_sec - start.tv_sec) + 1e-9 * (double)(now.tv_nsec - start.tv_nsec);
    }
fail:
    return status;
}

static PyObject *communicator_poll(PyObject *self, PyObject *argument) {
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    double seconds;
    bool done = false;
    lnet_status status;
    if (state == NULL || lnet_parse_double(state, "seconds", argument, &seconds) < 0) return NULL;
    Py_BEGIN_ALLOW_THREADS status = poll_until(communicator_of(self)->comm, seconds, &done);
    Py_END_ALLOW_THREADS return status == LNET_OK ? PyBool_FromLong(done)
                                                  : lnet_raise(state, status);
}

enum ending { FINALIZE, CLOSE, STOP };

static PyObject *end(PyObject *self, enum ending how) {
    lnet_comm *comm = communicator_of(self)->comm;
    const lnet_cuda *cuda;
    lnet_status status = lnet_cuda_get(&cuda);
    if (status == LNET_OK) {
        Py_BEGIN_ALLOW_THREADS if (how == FINALIZE) status = cuda->comm.finalize(comm);
        if (how == CLOSE) status = cuda->comm.close(comm);
        if (how == STOP) cuda->comm.stop(comm);
        Py_END_ALLOW_THREADS
    }
    return lnet_communicator_result(self, status);
}

static PyObject *communicator_finalize(PyObject *self, PyObject *unused) {
    (void)unused;
    return end(self, FINALIZE);
}

static PyObject *communicator_close(PyObject *self, PyObject *unused) {
    (void)unused;
    return end(self, CLOSE);
}

static PyObject *communicator_stop(PyObject *self, PyObject *unused) {
    (void)unused;
    return end(self, STOP);
}

static PyMethodDef methods[] = {
    {"version", get_version, METH_NOARGS | METH_CLASS,
     PyDoc_STR("version($type)\n--\n\nNCCL's version, as '2.29.7'.")},
    {"unique_id", unique_id, METH_NOARGS | METH_CLASS,
     PyDoc_STR("unique_id($type)\n--\n\n"
               "128 bytes that name a communicator to be: one rank makes them for all.")},
    {"poll", communicator_poll, METH_O,
     PyDoc_STR("poll($self, seconds, /)\n--\n\n"
               "Whether what was begun is done, as for a collective means queued on the stream;\n"
               "waits so long for it. Raises what NCCL has met with.")},
    {"all_gather", lnet_communicator_all_gather, METH_VARARGS,
     PyDoc_STR("all_gather($self, out, x, /)\n--\n\n")},
    {"reduce_scatter", lnet_communicator_reduce_scatter, METH_VARARGS,
     PyDoc_STR("reduce_scatter($self, out, x, /)\n--\n\nSums.")},
    {"all_reduce", lnet_communicator_all_reduce, METH_VARARGS,
     PyDoc_STR("all_reduce($self, x, largest, /)\n--\n\nSums, or takes the largest; in place.")},
    {"broadcast", lnet_communicator_broadcast, METH_VARARGS,
     PyDoc_STR("broadcast($self, x, root, /)\n--\n\nIn place.")},
    {"exchange", lnet_communicator_exchange, METH_VARARGS,
     PyDoc_STR("exchange($self, sends, receives, /)\n--\n\n"
               "All messages of two tuples of (peer, tensor) as one group.")},
    {"largest", lnet_communicator_largest, METH_VARARGS,
     PyDoc_STR("largest($self, x, parts, /)\n--\n\n"
               "The largest of all ranks' elements, of what all_gather gave; NaN is largest.")},
    {"record", lnet_communicator_record, METH_NOARGS,
     PyDoc_STR("record($self)\n--\n\nAn Event that happens when the collectives so far are done.")},
    {"join", lnet_communicator_join, METH_VARARGS,
     PyDoc_STR("join($self, event, tensors, /)\n--\n\n"
               "Lets the current stream go on after the event, as a user of the tensors.")},
    {"finalize", communicator_finalize, METH_NOARGS,
     PyDoc_STR("finalize($self)\n--\n\nBegins the end in order, which all ranks must.")},
    {"close", communicator_close, METH_NOARGS,
     PyDoc_STR("close($self)\n--\n\nGives back what it holds, after finalize().")},
    {"stop", communicator_stop, METH_NOARGS,
     PyDoc_STR("stop($self)\n--\n\n"
               "Ends all work under way at once, from any thread; every later call fails.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc,
     PyDoc_STR("NcclCommunicator(unique_id, rank, size, device)\n--\n\n"
               "NCCL's communicator of one rank, with a stream of its own whose work begins after\n"
               "what the current stream has. Calls only begin; poll() says when another may "
               "come.")},
    {Py_tp_new, communicator_new},
    {Py_tp_dealloc, communicator_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "longnet._core.NcclCommunicator",
    .basicsize = sizeof(communicator_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int lnet_add_communicator_type(PyObject *module, lnet_state *state) {
    state->communicator_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    if (state->communicator_type == NULL) return -1;
    return PyModule_AddType(module, state->communicator_type);
}
