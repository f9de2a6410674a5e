/* Numbers from Python objects: ints, floats, and whatever says by __index__ or __float__ that it is
 * one, as NumPy's scalars do. */
#include "python/python.h"

/* TypeError with the value found, in one line; the error that is set gives way to it. */
static int wrong_type(const char *name, PyObject *object, const char *expected) {
    PyErr_Clear();
    PyObject *text = PyObject_Repr(object);
    PyObject *newline = PyUnicode_FromString("\n"), *space = PyUnicode_FromString(" ");
    PyObject *line = NULL;
    if (text != NULL && newline != NULL && space != NULL)
        line = PyUnicode_Replace(text, newline, space, -1);
    if (line != NULL) PyErr_Format(PyExc_TypeError, "%s: %.60U, expected %s", name, line, expected);
    Py_XDECREF(text);
    Py_XDECREF(newline);
    Py_XDECREF(space);
    Py_XDECREF(line);
    return -1;
}

/* A new reference to an int. */
static PyObject *as_index(const char *name, PyObject *object) {
    PyObject *index = PyNumber_Index(object);
    if (index == NULL && PyErr_ExceptionMatches(PyExc_TypeError))
        wrong_type(name, object, "an integer");
    return index;
}

/* ConfigError for a number that does not fit. */
static int out_of_range(lnet_state *state, const char *name, PyObject *number, const char *range) {
    PyErr_Clear();
    PyErr_Format(state->errors[LNET_VALUE_ERROR], "%s: %.60S, expected %s", name, number, range);
    return -1;
}

int lnet_parse_int64(lnet_state *state, const char *name, PyObject *object, int64_t *value) {
    PyObject *index = as_index(name, object);
    if (index == NULL) return -1;
    *value = PyLong_AsLongLong(index);
    int result = 0;
    if (*value == -1 && PyErr_Occurred())
        result = out_of_range(state, name, index, "-2^63 to 2^63 - 1");
    Py_DECREF(index);
    return result;
}

int lnet_parse_uint64(lnet_state *state, const char *name, PyObject *object, uint64_t *value) {
    PyObject *index = as_index(name, object);
    if (index == NULL) return -1;
    *value = PyLong_AsUnsignedLongLong(index);
    int result = 0;
    if (*value == UINT64_MAX && PyErr_Occurred())
        result = out_of_range(state, name, index, "0 to 2^64 - 1");
    Py_DECREF(index);
    return result;
}

int lnet_parse_double(lnet_state *state, const char *name, PyObject *object, double *value) {
    *value = PyFloat_AsDouble(object);
    if (*value != -1.0 || !PyErr_Occurred()) return 0;
    if (PyErr_ExceptionMatches(PyExc_TypeError)) return wrong_type(name, object, "a number");
    if (PyErr_ExceptionMatches(PyExc_OverflowError))
        return out_of_range(state, name, object, "a number of 64 bits");
    return -1;
}

int lnet_parse_int64_list(lnet_state *state, const char *name, PyObject *object,
                          lnet_int64_list *list) {
    PyObject *items = PySequence_Tuple(object);
    if (items == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError)) return -1;
        return wrong_type(name, object, "a sequence of integers");
    }
    list->count = PyTuple_Size(items);
    int64_t *values = PyMem_Malloc((size_t)(list->count + 1) * sizeof *values);
    list->items = values;
    if (values == NULL) PyErr_NoMemory();
    int result = values != NULL ? 0 : -1;
    for (int64_t i = 0; result == 0 && i < list->count; i++)
        result = lnet_parse_int64(state, name, PyTuple_GetItem(items, (Py_ssize_t)i), values + i);
    Py_DECREF(items);
    return result;
}
