/* The calls of longnet._core.DilatedAttention: arrays become tensors and are checked, the op runs,
 * and what it wrote comes back as what the arrays were. */
#include "ops/dilated_attention.h"

#include "lnet/check.h"
#include "python/python.h"

#include <math.h>

enum { MAX_TENSORS = 8 };

/* What forward and backward take by keyword, as the caller gave it; NULL where it was left out. */
struct call_options {
    PyObject *lengths, *cu_seqlens, *seed, *query_start, *dropout_origin;
};

/* The tensors of one call, made from whatever arrays the caller gave. */
typedef struct call {
    lnet_state *state;
    struct lnet_dilation dilation;
    PyObject *inputs[MAX_TENSORS];
    int input_count;
    PyObject *outputs[3];
    PyObject *lengths, *cu_seqlens;
    bool all_arrays; /* NumPy in, NumPy out */
} call;

static const lnet_tensor *tensor_of(PyObject *object) {
    return object != NULL ? &((tensor_object *)object)->tensor : NULL;
}

static void call_end(call *c) {
    for (int i = 0; i < MAX_TENSORS; i++) Py_XDECREF(c->inputs[i]);
    for (int i = 0; i < 3; i++) Py_XDECREF(c->outputs[i]);
    Py_XDECREF(c->lengths);
    Py_XDECREF(c->cu_seqlens);
}

/* `lengths` or `cu_seqlens`, on the device of the query: few numbers, which come from the host. */
static int move_rows(call *c, PyObject **rows, const lnet_tensor **argument, lnet_device device) {
    if (*rows == NULL) return 0;
    PyObject *moved = lnet_tensor_to(c->state, *rows, device, false);
    if (moved == NULL) return -1;
    Py_DECREF(*rows);
    *rows = moved;
    *argument = tensor_of(moved);
    return 0;
}

/* An option that is an array of rows; `name` may be left out or be None. */
static int take_rows(call *c, const char *name, PyObject *array, PyObject **rows,
                     const lnet_tensor **argument) {
    if (array == NULL || array == Py_None) return 0;
    *rows = lnet_as_contiguous(c->state, name, array);
    *argument = tensor_of(*rows);
    return *rows != NULL ? 0 : -1;
}

static int take_dropout_origin(call *c, PyObject *origin) {
    lnet_int64_list list = {NULL, 0};
    if (origin == NULL) return 0;
    int result = lnet_parse_int64_list(c->state, "dropout_origin", origin, &list);
    if (result == 0 && list.count != 2) {
        lnet_raise(c->state, lnet_fail(LNET_VALUE_ERROR,
                                       "dropout_origin: %lld numbers, expected 2: (row, level)",
                                       (long long)list.count));
        result = -1;
    }
    if (result == 0) {
        c->dilation.first_row = list.items[0];
        c->dilation.first_level = list.items[1];
    }
    PyMem_Free((void *)list.items);
    return result;
}

static int take_options(call *c, const struct call_options *options) {
    struct lnet_dilation *dilation = &c->dilation;
    PyObject *seed = options->seed, *start = options->query_start;
    if (take_rows(c, "lengths", options->lengths, &c->lengths, &dilation->lengths) < 0 ||
        take_rows(c, "cu_seqlens", options->cu_seqlens, &c->cu_seqlens, &dilation->cu_seqlens) < 0)
        return -1;
    if (seed != NULL && lnet_parse_uint64(c->state, "seed", seed, &dilation->seed) < 0) return -1;
    if (start != NULL && start != Py_None &&
        lnet_parse_int64(c->state, "query_start", start, &dilation->query_start) < 0)
        return -1;
    return take_dropout_origin(c, options->dropout_origin);
}

/* Without a query_start, q (B, N, H, D) has all the rows of k. */
static lnet_status check_whole(const char *op, const struct call_options *options,
                               const lnet_tensor *q, const lnet_tensor *k) {
    if (options->query_start != NULL && options->query_start != Py_None) return LNET_OK;
    return lnet_check_shape(op, "k", k,
                            LNET_SHAPE(q->shape[0], q->shape[1], k->shape[2], q->shape[3]));
}

/* Takes the arrays over as tensors and checks them; from `q` on they are query, key and value. */
static int call_begin(call *c, PyObject *self, const char *op, const char *const *names,
                      PyObject **arrays, int count, int q, const struct call_options *options) {
    *c = (call){.state = lnet_state_of(Py_TYPE(self)), .all_arrays = true, .input_count = count};
    if (c->state == NULL) return -1;
    for (int i = 0; i < count; i++) {
        c->all_arrays = c->all_arrays && lnet_is_array(arrays[i]);
        c->inputs[i] = lnet_as_contiguous(c->state, names[i], arrays[i]);
        if (c->inputs[i] == NULL) return -1;
    }
    c->dilation = *lnet_dilation_of(self);
    if (take_options(c, options) < 0) return -1;
    const lnet_tensor *query = tensor_of(c->inputs[q]), *key = tensor_of(c->inputs[q + 1]);
    if (isnan(c->dilation.scale)) {
        int64_t width =
            query->ndim == 4 ? query->shape[3] : 1; /* other ranks fail the op's check */
        c->dilation.scale = 1.0 / sqrt((double)(width > 0 ? width : 1));
    }
    lnet_status status = lnet_dilated_attention_check_inputs(op, &c->dilation, query, key,
                                                             tensor_of(c->inputs[q + 2]));
    if (status == LNET_OK) status = check_whole(op, options, query, key);
    if (status != LNET_OK) {
        lnet_raise(c->state, status);
        return -1;
    }
    if (move_rows(c, &c->lengths, &c->dilation.lengths, query->device) < 0) return -1;
    return move_rows(c, &c->cu_seqlens, &c->dilation.cu_seqlens, query->device);
}

/* A new tensor on the device of `like`. */
static int call_output(call *c, int index, const lnet_tensor *like, lnet_dtype dtype, int32_t ndim,
                       const int64_t *shape) {
    lnet_tensor tensor;
    lnet_status status = lnet_tensor_new(&tensor, dtype, like->device, ndim, shape);
    if (status != LNET_OK) {
        lnet_raise(c->state, status);
        return -1;
    }
    c->outputs[index] = lnet_tensor_object(c->state, &tensor);
    return c->outputs[index] != NULL ? 0 : -1;
}

/* The output and the LSE (B, H, Nq) of a query (B, Nq, H, D). */
static int forward_outputs(call *c, const lnet_tensor *q) {
    const int64_t *n = q->shape;
    if (call_output(c, 0, q, q->dtype, q->ndim, n) < 0) return -1;
    return call_output(c, 1, q, LNET_FLOAT32, LNET_SHAPE(n[0], n[2], n[1]));
}

/* Gradients of q, k and v, which are the inputs from number 1 on; their dtype is that of q where
 * `dtype` does not say another. */
static int backward_outputs(call *c, PyObject *dtype) {
    lnet_dtype found = tensor_of(c->inputs[1])->dtype;
    if (dtype != NULL && dtype != Py_None) {
        if (!PyUnicode_Check(dtype)) {
            PyErr_Format(PyExc_TypeError, "dtype: %R, expected a string or None", dtype);
            return -1;
        }
        if (lnet_parse_dtype(c->state, dtype, &found) < 0) return -1;
    }
    for (int i = 0; i < 3; i++) {
        const lnet_tensor *x = tensor_of(c->inputs[i + 1]);
        if (call_output(c, i, x, found, x->ndim, x->shape) < 0) return -1;
    }
    return 0;
}

/* The outputs as a tuple, of NumPy arrays where all inputs were. */
static PyObject *call_results(call *c, int count) {
    PyObject *result = PyTuple_New(count);
    for (int i = 0; result != NULL && i < count; i++) {
        PyObject *item =
            c->all_arrays ? lnet_to_array(c->state, c->outputs[i]) : Py_NewRef(c->outputs[i]);
        if (item == NULL || PyTuple_SetItem(result, i, item) < 0) Py_CLEAR(result);
    }
    return result;
}

PyObject *lnet_attention_forward(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {
        "q", "k", "v", "lengths", "cu_seqlens", "seed", "query_start", "dropout_origin", NULL};
    static const char *const inputs[] = {"q", "k", "v"};
    PyObject *arrays[3], *result = NULL;
    struct call_options o = {0};
    call c;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|$OOOOO:forward", names, &arrays[0],
                                     &arrays[1], &arrays[2], &o.lengths, &o.cu_seqlens, &o.seed,
                                     &o.query_start, &o.dropout_origin))
        return NULL;
    if (call_begin(&c, self, "DilatedAttention.forward", inputs, arrays, 3, 0, &o) == 0 &&
        forward_outputs(&c, tensor_of(c.inputs[0])) == 0) {
        struct lnet_dilated_attention_args a = {
            .out = &((tensor_object *)c.outputs[0])->tensor,
            .lse = &((tensor_object *)c.outputs[1])->tensor,
            .q = tensor_of(c.inputs[0]),
            .k = tensor_of(c.inputs[1]),
            .v = tensor_of(c.inputs[2]),
            .dilation = c.dilation,
        };
        lnet_status status;
        Py_BEGIN_ALLOW_THREADS status = lnet_dilated_attention(&a, NULL);
        Py_END_ALLOW_THREADS result =
            status == LNET_OK ? call_results(&c, 2) : lnet_raise(c.state, status);
    }
    call_end(&c);
    return result;
}

PyObject *lnet_attention_backward(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"dout",
                            "q",
                            "k",
                            "v",
                            "out",
                            "lse",
                            "lengths",
                            "cu_seqlens",
                            "seed",
                            "query_start",
                            "dropout_origin",
                            "dtype",
                            NULL};
    static const char *const inputs[] = {"dout", "q", "k", "v", "out", "lse"};
    PyObject *arrays[6], *dtype = NULL, *result = NULL;
    struct call_options o = {0};
    call c;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOO|$OOOOOO:backward", names, &arrays[0],
                                     &arrays[1], &arrays[2], &arrays[3], &arrays[4], &arrays[5],
                                     &o.lengths, &o.cu_seqlens, &o.seed, &o.query_start,
                                     &o.dropout_origin, &dtype))
        return NULL;
    if (call_begin(&c, self, "DilatedAttention.backward", inputs, arrays, 6, 1, &o) == 0 &&
        backward_outputs(&c, dtype) == 0) {
        struct lnet_dilated_attention_backward_args a = {
            .dq = &((tensor_object *)c.outputs[0])->tensor,
            .dk = &((tensor_object *)c.outputs[1])->tensor,
            .dv = &((tensor_object *)c.outputs[2])->tensor,
            .dout = tensor_of(c.inputs[0]),
            .q = tensor_of(c.inputs[1]),
            .k = tensor_of(c.inputs[2]),
            .v = tensor_of(c.inputs[3]),
            .out = tensor_of(c.inputs[4]),
            .lse = tensor_of(c.inputs[5]),
            .dilation = c.dilation,
        };
        lnet_status status;
        Py_BEGIN_ALLOW_THREADS status = lnet_dilated_attention_backward(&a, NULL);
        Py_END_ALLOW_THREADS result =
            status == LNET_OK ? call_results(&c, 3) : lnet_raise(c.state, status);
    }
    call_end(&c);
    return result;
}
