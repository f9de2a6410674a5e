/* Views of a longnet.Tensor: the same memory in another shape, or a part of it. */
#include "python/python.h"

static lnet_tensor *tensor_of(PyObject *self) {
    return &((tensor_object *)self)->tensor;
}

int lnet_parse_shape(lnet_state *state, PyObject *object, int64_t *shape) {
    lnet_int64_list list = {.count = 0};
    if (PyIndex_Check(object) && !PySequence_Check(object)) /* a NumPy array is both */
        return lnet_parse_int64(state, "shape", object, shape) < 0 ? -1 : 1;
    int count = lnet_parse_int64_list(state, "shape", object, &list);
    if (count == 0 && list.count > LNET_MAX_DIMS) {
        lnet_raise(state, lnet_fail(LNET_SHAPE_ERROR, "%lld dimensions, expected at most %d",
                                    (long long)list.count, LNET_MAX_DIMS));
        count = -1;
    }
    if (count == 0) {
        count = (int)list.count;
        memcpy(shape, list.items, (size_t)count * sizeof *shape);
    }
    PyMem_Free((void *)list.items);
    return count;
}

PyObject *lnet_tensor_reshape(PyObject *self, PyObject *args) {
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    lnet_tensor *t = tensor_of(self), result;
    int64_t shape[LNET_MAX_DIMS], known = 1;
    char found[160], wanted[160];
    if (state == NULL) return NULL;
    bool single = PyTuple_Size(args) == 1;
    int ndim = lnet_parse_shape(state, single ? PyTuple_GetItem(args, 0) : args, shape),
        free_dim = -1;
    if (ndim < 0) return NULL;
    if (!lnet_tensor_contiguous(t))
        return lnet_raise(state, lnet_fail(LNET_SHAPE_ERROR,
                                           "reshape: a view that is not contiguous, expected a "
                                           "contiguous tensor: copy() it first"));
    for (int i = 0; i < ndim; i++) {
        if (shape[i] == -1 && free_dim < 0)
            free_dim = i;
        else if (shape[i] < 0 || __builtin_mul_overflow(known, shape[i], &known))
            known = -1, i = ndim;
    }
    int64_t count = lnet_tensor_count(t);
    if (free_dim >= 0 && known > 0 && count % known == 0) {
        shape[free_dim] = count / known;
        known = count;
    }
    if (known != count)
        return lnet_raise(state,
                          lnet_fail(LNET_SHAPE_ERROR, "reshape: %s into %s: not as many elements",
                                    lnet_shape_describe(t->ndim, t->shape, found, sizeof found),
                                    lnet_shape_describe(ndim, shape, wanted, sizeof wanted)));
    lnet_tensor_share(&result, t);
    int64_t step = 1;
    result.ndim = ndim;
    for (int i = ndim - 1; i >= 0; i--) {
        result.shape[i] = shape[i];
        result.strides[i] = step;
        step *= shape[i];
    }
    return lnet_tensor_object(state, &result);
}

/* Applies an int or a slice to dimension `dim` of `view`; returns whether the dimension stays,
 * or -1. */
static int apply_index(lnet_tensor *view, int dim, PyObject *index) {
    int64_t size = view->shape[dim], stride = view->strides[dim];
    char *data = view->data;
    int64_t element = (int64_t)lnet_dtype_size(view->dtype);
    if (PySlice_Check(index)) {
        Py_ssize_t start, stop, step;
        if (PySlice_Unpack(index, &start, &stop, &step) < 0) return -1;
        view->shape[dim] = PySlice_AdjustIndices(size, &start, &stop, step);
        view->strides[dim] = stride * step;
        if (view->shape[dim] > 0) view->data = data + start * stride * element;
        return 1;
    }
    if (!PyIndex_Check(index)) {
        PyErr_SetString(PyExc_TypeError, "a Tensor is indexed by integers and slices");
        return -1;
    }
    Py_ssize_t i = PyNumber_AsSsize_t(index, PyExc_IndexError);
    if (i == -1 && PyErr_Occurred()) return -1;
    int64_t at = i < 0 ? i + size : i;
    if (at < 0 || at >= size) {
        PyErr_Format(PyExc_IndexError, "index %zd, dimension %d has %lld elements", i, dim,
                     (long long)size);
        return -1;
    }
    view->data = data + at * stride * element;
    return 0;
}

PyObject *lnet_tensor_subscript(PyObject *self, PyObject *key) {
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    lnet_tensor view = *tensor_of(self), result;
    if (state == NULL) return NULL;
    PyObject *keys = PyTuple_Check(key) ? Py_NewRef(key) : PyTuple_Pack(1, key);
    if (keys == NULL) return NULL;
    Py_ssize_t count = PyTuple_Size(keys);
    int kept = 0, ndim = view.ndim;
    if (count > ndim) {
        PyErr_Format(PyExc_IndexError, "%zd indices for a tensor of %d dimensions", count, ndim);
        Py_DECREF(keys);
        return NULL;
    }
    for (int dim = 0; dim < ndim; dim++) {
        int stays = dim < count ? apply_index(&view, dim, PyTuple_GetItem(keys, dim)) : 1;
        if (stays < 0) {
            Py_DECREF(keys);
            return NULL;
        }
        if (stays) {
            view.shape[kept] = view.shape[dim];
            view.strides[kept++] = view.strides[dim];
        }
    }
    Py_DECREF(keys);
    view.ndim = kept;
    lnet_tensor_share(&result, &view);
    return lnet_tensor_object(state, &result);
}
