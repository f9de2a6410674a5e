/* Tensors from one device to another. */
#include "python/python.h"

/* A contiguous copy of a contiguous tensor, or of any tensor on the same GPU; on the host in
 * page-locked memory where `pinned`. */
static PyObject *copy_to(lnet_state *state, const lnet_tensor *source, lnet_device device,
                         bool pinned) {
    lnet_tensor target;
    lnet_status status;
    Py_BEGIN_ALLOW_THREADS status =
        pinned ? lnet_tensor_new_pinned(&target, source->dtype, source->ndim, source->shape)
               : lnet_tensor_new(&target, source->dtype, device, source->ndim, source->shape);
    if (status == LNET_OK) {
        status = lnet_tensor_copy(&target, source);
        if (status != LNET_OK) lnet_tensor_release(&target);
    }
    Py_END_ALLOW_THREADS return status == LNET_OK ? lnet_tensor_object(state, &target)
                                                  : lnet_raise(state, status);
}

PyObject *lnet_copy_on_gpu(lnet_state *state, PyObject *tensor) {
    const lnet_tensor *source = &((tensor_object *)tensor)->tensor;
    return copy_to(state, source, source->device, false);
}

/* Waits until the copy from page-locked memory is done: its owner may write to it again. */
static int wait_for(lnet_state *state, const lnet_tensor *gpu) {
    const lnet_cuda *cuda;
    lnet_stream *stream;
    lnet_status status;
    LNET_TRY(lnet_cuda_device(&cuda, gpu->device.index));
    LNET_TRY(lnet_stream_current(&stream, gpu->device.index));
    Py_BEGIN_ALLOW_THREADS status = cuda->stream_synchronize(stream);
    Py_END_ALLOW_THREADS fail : if (status != LNET_OK) lnet_raise(state, status);
    return status == LNET_OK ? 0 : -1;
}

PyObject *lnet_tensor_to(lnet_state *state, PyObject *self, lnet_device device, bool async) {
    const lnet_tensor *tensor = &((tensor_object *)self)->tensor;
    if (tensor->device.type == device.type && tensor->device.index == device.index)
        return Py_NewRef(self);
    PyObject *source = lnet_as_contiguous(state, "to", self);
    if (source == NULL) return NULL;
    const lnet_tensor *from = &((tensor_object *)source)->tensor;
    PyObject *result = copy_to(state, from, device, async && device.type == LNET_CPU);
    if (result != NULL && !async && from->device.type == LNET_CPU && lnet_tensor_pinned(from) &&
        wait_for(state, &((tensor_object *)result)->tensor) < 0)
        Py_CLEAR(result);
    Py_DECREF(source);
    return result;
}

PyObject *lnet_tensor_to_method(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"device", "stream", NULL};
    PyObject *name, *stream = Py_None;
    lnet_device device;
    lnet_status status;
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "U|$O:to", names, &name, &stream) ||
        lnet_parse_device(state, name, &device) < 0)
        return NULL;
    if (stream == Py_None) return lnet_tensor_to(state, self, device, false);
    if (!PyObject_TypeCheck(stream, state->stream_type)) {
        PyErr_SetString(PyExc_TypeError, "to: stream: expected a longnet.Stream");
        return NULL;
    }
    lnet_stream *queue = ((stream_object *)stream)->stream;
    const lnet_tensor *tensor = &((tensor_object *)self)->tensor;
    int32_t expected = device.type == LNET_CUDA ? device.index : tensor->device.index;
    if ((device.type == LNET_CUDA || tensor->device.type == LNET_CUDA) && queue->device != expected)
        return lnet_raise(state, lnet_fail(LNET_DEVICE_ERROR,
                                           "to: stream: on cuda:%d, expected one on cuda:%d",
                                           queue->device, expected));
    status = lnet_stream_push(queue);
    if (status != LNET_OK) return lnet_raise(state, status);
    PyObject *result = lnet_tensor_to(state, self, device, true);
    (void)lnet_stream_pop(queue);
    return result;
}
