/* NumPy arrays in and out. The only file that includes NumPy's headers. */
#include "python/python.h"

#include <numpy/arrayobject.h>

int lnet_import_numpy(void) {
    return PyArray_ImportNumPyAPI();
}

bool lnet_is_array(PyObject *object) {
    return PyArray_Check(object);
}

/* ml_dtypes.bfloat16 as a NumPy dtype; a new reference. */
static PyArray_Descr *bfloat16_descr(void) {
    PyArray_Descr *descr = NULL;
    PyObject *module = PyImport_ImportModule("ml_dtypes");
    PyObject *type = module != NULL ? PyObject_GetAttrString(module, "bfloat16") : NULL;
    if (type != NULL && !PyArray_DescrConverter(type, &descr)) descr = NULL;
    Py_XDECREF(type);
    Py_XDECREF(module);
    return descr;
}

/* A new reference to the NumPy dtype of ours. */
static PyArray_Descr *descr_of(lnet_dtype dtype) {
    static const int type_nums[LNET_DTYPE_COUNT] = {
        [LNET_FLOAT32] = NPY_FLOAT32, [LNET_FLOAT16] = NPY_FLOAT16, [LNET_INT32] = NPY_INT32,
        [LNET_INT64] = NPY_INT64,     [LNET_UINT8] = NPY_UINT8,
    };
    return dtype == LNET_BFLOAT16 ? bfloat16_descr() : PyArray_DescrFromType(type_nums[dtype]);
}

/* 1 and `*dtype` where ours has the array's type, 0 where not, -1 on failure. */
static int dtype_of_array(PyArrayObject *array, lnet_dtype *dtype) {
    int type_num = PyArray_TYPE(array);
    char kind = PyArray_DESCR(array)->kind;
    npy_intp size = PyArray_ITEMSIZE(array);
    if (type_num >= NPY_USERDEF) {
        PyArray_Descr *bfloat16 = bfloat16_descr();
        if (bfloat16 == NULL) return -1;
        bool same = bfloat16->type_num == type_num;
        Py_DECREF(bfloat16);
        *dtype = LNET_BFLOAT16;
        return same;
    }
    if (kind == 'f' && size == 4)
        *dtype = LNET_FLOAT32;
    else if (kind == 'f' && size == 2)
        *dtype = LNET_FLOAT16;
    else if (kind == 'i' && size == 4)
        *dtype = LNET_INT32;
    else if (kind == 'i' && size == 8)
        *dtype = LNET_INT64;
    else if (kind == 'u' && size == 1)
        *dtype = LNET_UINT8;
    else
        return 0;
    return 1;
}

static int refuse_dtype(lnet_state *state, const char *name, PyArrayObject *array) {
    PyObject *text = PyObject_Str((PyObject *)PyArray_DESCR(array));
    const char *utf8 = text != NULL ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    if (utf8 != NULL)
        lnet_raise(state, lnet_fail(LNET_DTYPE_ERROR,
                                    "%s: dtype %s, expected float32, float16, bfloat16, int32, "
                                    "int64 or uint8",
                                    name, utf8));
    Py_XDECREF(text);
    return -1;
}

static void release_object(void *owner) {
    PyGILState_STATE gil = PyGILState_Ensure();
    Py_DECREF((PyObject *)owner);
    PyGILState_Release(gil);
}

int lnet_from_array(lnet_state *state, const char *name, PyObject *object, lnet_tensor *tensor) {
    lnet_dtype dtype;
    int64_t shape[LNET_MAX_DIMS], strides[LNET_MAX_DIMS];
    int known = dtype_of_array((PyArrayObject *)object, &dtype);
    if (known < 0) return -1;
    if (!known) return refuse_dtype(state, name, (PyArrayObject *)object);
    if (PyArray_NDIM((PyArrayObject *)object) > LNET_MAX_DIMS) {
        lnet_raise(state, lnet_fail(LNET_SHAPE_ERROR, "%s: %d dimensions, expected at most %d",
                                    name, PyArray_NDIM((PyArrayObject *)object), LNET_MAX_DIMS));
        return -1;
    }
    npy_intp size = PyArray_ITEMSIZE((PyArrayObject *)object);
    bool whole =
        PyArray_ISALIGNED((PyArrayObject *)object) && PyArray_ISNOTSWAPPED((PyArrayObject *)object);
    for (int i = 0; i < PyArray_NDIM((PyArrayObject *)object); i++)
        whole = whole && PyArray_STRIDE((PyArrayObject *)object, i) % size == 0;
    PyArrayObject *array;
    if (whole) {
        array = (PyArrayObject *)Py_NewRef(object);
    } else {
        PyArray_Descr *native = descr_of(dtype); /* FromArray takes the reference */
        if (native == NULL) return -1;
        array = (PyArrayObject *)PyArray_FromArray((PyArrayObject *)object, native,
                                                   NPY_ARRAY_DEFAULT | NPY_ARRAY_ENSURECOPY);
    }
    if (array == NULL) return -1;
    for (int i = 0; i < PyArray_NDIM(array); i++) {
        shape[i] = PyArray_DIM(array, i);
        strides[i] = PyArray_STRIDE(array, i) / size;
    }
    lnet_status status = lnet_tensor_wrap(
        tensor, PyArray_DATA(array), dtype, (lnet_device){LNET_CPU, 0}, PyArray_NDIM(array), shape,
        strides, !PyArray_ISWRITEABLE(array) || !whole, release_object, array);
    if (status == LNET_OK) return 0;
    Py_DECREF(array);
    lnet_raise(state, status);
    return -1;
}

PyObject *lnet_to_array(lnet_state *state, PyObject *object) {
    const lnet_tensor *tensor = &((tensor_object *)object)->tensor;
    npy_intp shape[LNET_MAX_DIMS], strides[LNET_MAX_DIMS];
    if (tensor->device.type != LNET_CPU)
        return lnet_raise(state, lnet_fail(LNET_DEVICE_ERROR,
                                           "numpy: a tensor on cuda:%d, expected one on the cpu: "
                                           "use to('cpu')",
                                           tensor->device.index));
    PyArray_Descr *descr = descr_of(tensor->dtype);
    if (descr == NULL) return NULL;
    for (int32_t i = 0; i < tensor->ndim; i++) {
        shape[i] = (npy_intp)tensor->shape[i];
        strides[i] = (npy_intp)(tensor->strides[i] * (int64_t)lnet_dtype_size(tensor->dtype));
    }
    PyObject *array =
        PyArray_NewFromDescr(&PyArray_Type, descr, tensor->ndim, shape, strides, tensor->data,
                             tensor->readonly ? 0 : NPY_ARRAY_WRITEABLE, NULL);
    if (array == NULL) return NULL;
    PyArray_UpdateFlags((PyArrayObject *)array, NPY_ARRAY_UPDATE_ALL);
    if (PyArray_SetBaseObject((PyArrayObject *)array, Py_NewRef(object)) < 0) Py_CLEAR(array);
    return array;
}

PyObject *lnet_contiguous_copy(lnet_state *state, PyObject *object) {
    const lnet_tensor *source = &((tensor_object *)object)->tensor;
    lnet_tensor copy;
    if (source->device.type != LNET_CPU) return lnet_copy_on_gpu(state, object);
    lnet_status status =
        lnet_tensor_new(&copy, source->dtype, source->device, source->ndim, source->shape);
    if (status != LNET_OK) return lnet_raise(state, status);
    PyObject *result = lnet_tensor_object(state, &copy);
    PyObject *from = lnet_to_array(state, object);
    PyObject *to = result != NULL ? lnet_to_array(state, result) : NULL;
    if (from == NULL || to == NULL ||
        PyArray_CopyInto((PyArrayObject *)to, (PyArrayObject *)from) < 0)
        Py_CLEAR(result);
    Py_XDECREF(from);
    Py_XDECREF(to);
    return result;
}
