/* Collectives of longnet._core.NcclCommunicator: each is queued on its stream. */
#include "lnet/check.h"
#include "python/python.h"

static communicator_object *communicator_of(PyObject *self) {
    return (communicator_object *)self;
}

/* ---- tensors ---- */

/* The tensor of an argument, on this device and contiguous; NULL with an exception where not. */
static lnet_tensor *parse_tensor(PyObject *self, const char *method, const char *name,
                                 PyObject *object, bool written) {
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    if (state == NULL) return NULL;
    if (!lnet_is_tensor(state, object)) {
        PyErr_Format(PyExc_TypeError, "%s: %s: expected a longnet.Tensor", method, name);
        return NULL;
    }
    lnet_tensor *tensor = &((tensor_object *)object)->tensor;
    int32_t device = communicator_of(self)->stream->device;
    lnet_status status;
    if (tensor->device.type != LNET_CUDA || tensor->device.index != device)
        LNET_TRY(lnet_fail(LNET_DEVICE_ERROR, "%s: %s: expected a tensor on cuda:%d", method, name,
                           device));
    LNET_TRY(lnet_check_contiguous(method, name, tensor));
    if (written) LNET_TRY(lnet_check_writable(method, name, tensor));
    return tensor;
fail:
    lnet_raise(state, status);
    return NULL;
}

/* `whole` has `size` times the elements of `part`, of its dtype. */
static lnet_status check_parts(const char *method, const char *name, const lnet_tensor *whole,
                               const lnet_tensor *part, int32_t size) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(method, name, whole, 1u << part->dtype));
    if (lnet_tensor_count(whole) != lnet_tensor_count(part) * size)
        return lnet_fail(LNET_SHAPE_ERROR, "%s: %s: %lld elements, expected %lld", method, name,
                         (long long)lnet_tensor_count(whole),
                         (long long)lnet_tensor_count(part) * size);
fail:
    return status;
}

/* The current stream, which counts as the tensors' user: it waits for the work, by join(), before
 * it gives their memory back. The communicator's stream goes on after it. */
static lnet_status follow_current(const communicator_object *self, lnet_stream **current) {
    lnet_status status;
    LNET_TRY(lnet_stream_current(current, self->stream->device));
    status = lnet_stream_after(self->stream, *current);
fail:
    return status;
}

/* ---- collectives ---- */

/* all_gather or, of `scatter`, reduce_scatter: one of the two has `size` times the other. */
static PyObject *run_parts(PyObject *self, PyObject *args, bool scatter) {
    const char *method = scatter ? "reduce_scatter" : "all_gather";
    communicator_object *c = communicator_of(self);
    PyObject *out_object, *x_object;
    const lnet_cuda *cuda;
    lnet_stream *current;
    lnet_status status;
    if (!PyArg_ParseTuple(args, "OO", &out_object, &x_object)) return NULL;
    lnet_tensor *out = parse_tensor(self, method, "out", out_object, true);
    lnet_tensor *x = out != NULL ? parse_tensor(self, method, "x", x_object, false) : NULL;
    if (x == NULL) return NULL;
    LNET_TRY(lnet_cuda_get(&cuda));
    LNET_TRY(scatter ? check_parts(method, "x", x, out, c->size)
                     : check_parts(method, "out", out, x, c->size));
    if (lnet_tensor_count(x) == 0) goto fail;
    LNET_TRY(follow_current(c, &current));
    lnet_tensor_use(out, current);
    lnet_tensor_use(x, current);
    Py_BEGIN_ALLOW_THREADS status =
        (scatter ? cuda->comm.reduce_scatter : cuda->comm.all_gather)(c->comm, out, x, c->stream);
    Py_END_ALLOW_THREADS fail : return lnet_communicator_result(self, status);
}

PyObject *lnet_communicator_all_gather(PyObject *self, PyObject *args) {
    return run_parts(self, args, false);
}

PyObject *lnet_communicator_reduce_scatter(PyObject *self, PyObject *args) {
    return run_parts(self, args, true);
}

PyObject *lnet_communicator_all_reduce(PyObject *self, PyObject *args) {
    communicator_object *c = communicator_of(self);
    PyObject *x_object;
    int largest;
    const lnet_cuda *cuda;
    lnet_stream *current;
    lnet_status status;
    if (!PyArg_ParseTuple(args, "Op:all_reduce", &x_object, &largest)) return NULL;
    lnet_tensor *x = parse_tensor(self, "all_reduce", "x", x_object, true);
    if (x == NULL) return NULL;
    LNET_TRY(lnet_cuda_get(&cuda));
    if (lnet_tensor_count(x) == 0) goto fail;
    LNET_TRY(follow_current(c, &current));
    lnet_tensor_use(x, current);
    Py_BEGIN_ALLOW_THREADS status =
        cuda->comm.all_reduce(c->comm, x, largest ? LNET_MAX : LNET_SUM, c->stream);
    Py_END_ALLOW_THREADS fail : return lnet_communicator_result(self, status);
}

static lnet_status check_peer(const communicator_object *c, const char *method, int peer) {
    if (peer >= 0 && peer < c->size) return LNET_OK;
    return lnet_fail(LNET_VALUE_ERROR, "%s: rank %d, expected 0 to %d", method, peer, c->size - 1);
}

PyObject *lnet_communicator_broadcast(PyObject *self, PyObject *args) {
    communicator_object *c = communicator_of(self);
    PyObject *x_object;
    int root;
    const lnet_cuda *cuda;
    lnet_stream *current;
    lnet_status status;
    if (!PyArg_ParseTuple(args, "Oi:broadcast", &x_object, &root)) return NULL;
    lnet_tensor *x = parse_tensor(self, "broadcast", "x", x_object, root != c->rank);
    if (x == NULL) return NULL;
    LNET_TRY(lnet_cuda_get(&cuda));
    LNET_TRY(check_peer(c, "broadcast", root));
    if (lnet_tensor_count(x) == 0) goto fail;
    LNET_TRY(follow_current(c, &current));
    lnet_tensor_use(x, current);
    Py_BEGIN_ALLOW_THREADS status = cuda->comm.broadcast(c->comm, x, root, c->stream);
    Py_END_ALLOW_THREADS fail : return lnet_communicator_result(self, status);
}

/* Appends the messages of a tuple of (peer, tensor) that are not empty; -1 with an exception. */
static int parse_messages(PyObject *self, PyObject *messages, bool receive,
                          lnet_transfer *transfers, int64_t *count) {
    communicator_object *c = communicator_of(self);
    for (Py_ssize_t i = 0; i < PyTuple_Size(messages); i++) {
        int peer;
        PyObject *object;
        if (!PyArg_ParseTuple(PyTuple_GetItem(messages, i), "iO:exchange", &peer, &object))
            return -1;
        lnet_tensor *x = parse_tensor(self, "exchange", "x", object, receive);
        if (x == NULL) return -1;
        lnet_status status = check_peer(c, "exchange", peer);
        if (status == LNET_OK && lnet_tensor_count(x) > 0)
            transfers[(*count)++] = (lnet_transfer){.tensor = x, .peer = peer, .receive = receive};
        if (status != LNET_OK) {
            Py_XDECREF(lnet_communicator_result(self, status));
            return -1;
        }
    }
    return 0;
}

PyObject *lnet_communicator_exchange(PyObject *self, PyObject *args) {
    communicator_object *c = communicator_of(self);
    PyObject *sends, *receives;
    const lnet_cuda *cuda;
    lnet_stream *current;
    PyObject *result = NULL;
    int64_t count = 0;
    if (!PyArg_ParseTuple(args, "O!O!:exchange", &PyTuple_Type, &sends, &PyTuple_Type, &receives))
        return NULL;
    size_t most = (size_t)PyTuple_Size(sends) + (size_t)PyTuple_Size(receives);
    lnet_transfer *transfers = PyMem_Malloc(most * sizeof *transfers);
    if (transfers == NULL) return PyErr_NoMemory();
    if (parse_messages(self, sends, false, transfers, &count) == 0 &&
        parse_messages(self, receives, true, transfers, &count) == 0) {
        lnet_status status = lnet_cuda_get(&cuda);
        if (status == LNET_OK) status = follow_current(c, &current);
        if (status == LNET_OK && count > 0) {
            for (int64_t i = 0; i < count; i++) lnet_tensor_use(transfers[i].tensor, current);
            Py_BEGIN_ALLOW_THREADS status =
                cuda->comm.exchange(c->comm, count, transfers, c->stream);
            Py_END_ALLOW_THREADS
        }
        result = lnet_communicator_result(self, status);
    }
    PyMem_Free(transfers);
    return result;
}

PyObject *lnet_communicator_largest(PyObject *self, PyObject *args) {
    communicator_object *c = communicator_of(self);
    PyObject *x_object, *parts_object;
    const lnet_cuda *cuda;
    lnet_status status;
    if (!PyArg_ParseTuple(args, "OO:largest", &x_object, &parts_object)) return NULL;
    lnet_tensor *x = parse_tensor(self, "largest", "x", x_object, true);
    lnet_tensor *parts =
        x != NULL ? parse_tensor(self, "largest", "parts", parts_object, false) : NULL;
    if (parts == NULL) return NULL;
    LNET_TRY(lnet_cuda_get(&cuda));
    LNET_TRY(lnet_check_dtype("largest", "x", x, LNET_IS_FLOAT));
    LNET_TRY(check_parts("largest", "parts", parts, x, c->size));
    if (lnet_tensor_count(x) == 0) goto fail;
    Py_BEGIN_ALLOW_THREADS status = cuda->comm.largest(x, parts, c->size, c->stream);
    Py_END_ALLOW_THREADS fail : return lnet_communicator_result(self, status);
}

/* ---- what follows a collective ---- */

PyObject *lnet_communicator_record(PyObject *self, PyObject *unused) {
    (void)unused;
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    return state != NULL ? lnet_event_record(state, communicator_of(self)->stream) : NULL;
}

PyObject *lnet_communicator_join(PyObject *self, PyObject *args) {
    communicator_object *c = communicator_of(self);
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    PyObject *event, *tensors;
    const lnet_cuda *cuda;
    lnet_stream *current;
    lnet_status status;
    if (state == NULL ||
        !PyArg_ParseTuple(args, "O!O!:join", state->event_type, &event, &PyTuple_Type, &tensors))
        return NULL;
    LNET_TRY(lnet_cuda_get(&cuda));
    LNET_TRY(lnet_stream_current(&current, c->stream->device));
    LNET_TRY(cuda->stream_wait(current, ((event_object *)event)->event));
    for (Py_ssize_t i = 0; i < PyTuple_Size(tensors); i++) {
        lnet_tensor *x = parse_tensor(self, "join", "tensors", PyTuple_GetItem(tensors, i), false);
        if (x == NULL) return NULL;
        lnet_tensor_use(x, current);
    }
fail:
    return lnet_communicator_result(self, status);
}
