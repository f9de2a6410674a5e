/* Any array-like object as a longnet.Tensor over the same memory. */
#include "python/python.h"

PyObject *lnet_as_tensor(lnet_state *state, const char *name, PyObject *object) {
    lnet_tensor tensor;
    PyObject *interface;
    int result = -1;
    if (lnet_is_tensor(state, object)) return Py_NewRef(object);
    if (lnet_is_array(object)) {
        result = lnet_from_array(state, name, object, &tensor);
    } else if (PyObject_HasAttrString(object, "__dlpack__")) {
        result = lnet_from_dlpack(state, name, object, &tensor);
    } else if ((interface = PyObject_GetAttrString(object, "__cuda_array_interface__")) != NULL) {
        result = lnet_from_cuda_array(state, name, object, interface, &tensor);
        Py_DECREF(interface);
    } else if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        PyObject *type = PyType_GetName(Py_TYPE(object));
        if (type != NULL)
            PyErr_Format(state->errors[LNET_DTYPE_ERROR],
                         "%s: %U, expected a longnet.Tensor, a NumPy array or an object with "
                         "__dlpack__ or __cuda_array_interface__",
                         name, type);
        Py_XDECREF(type);
    }
    return result == 0 ? lnet_tensor_object(state, &tensor) : NULL;
}

/* Kernels of a GPU read 16 bytes at once. */
static bool is_whole(const lnet_tensor *tensor) {
    return lnet_tensor_contiguous(tensor) &&
           (tensor->device.type == LNET_CPU || (uintptr_t)tensor->data % 16 == 0);
}

PyObject *lnet_as_contiguous(lnet_state *state, const char *name, PyObject *object) {
    PyObject *tensor = lnet_as_tensor(state, name, object);
    if (tensor == NULL || is_whole(&((tensor_object *)tensor)->tensor)) return tensor;
    PyObject *copy = lnet_contiguous_copy(state, tensor);
    Py_DECREF(tensor);
    return copy;
}
