/* The one place that turns a status into a Python exception. */
#include "python/python.h"

static const char *const class_names[LNET_INTERRUPTED] = {
    [LNET_SHAPE_ERROR] = "ShapeError",        [LNET_DTYPE_ERROR] = "DTypeError",
    [LNET_DEVICE_ERROR] = "DeviceError",      [LNET_VALUE_ERROR] = "ConfigError",
    [LNET_MEMORY_ERROR] = "OutOfMemoryError",
};

int lnet_load_errors(lnet_state *state) {
    PyObject *module = PyImport_ImportModule("longnet.errors");
    if (module == NULL) return -1;
    int result = 0;
    for (int i = LNET_OK + 1; i < LNET_INTERRUPTED && result == 0; i++) {
        state->errors[i] = PyObject_GetAttrString(module, class_names[i]);
        if (state->errors[i] == NULL) result = -1;
    }
    Py_DECREF(module);
    return result;
}

PyObject *lnet_raise(lnet_state *state, lnet_status status) {
    if (status == LNET_INTERRUPTED) { /* the interrupt check has set KeyboardInterrupt */
        if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
    } else {
        PyErr_SetString(state->errors[status], lnet_message());
    }
    return NULL;
}
