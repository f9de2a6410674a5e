/* longnet._core.DilatedAttention: the pattern, and attention over it. */
#include "ops/dilated_attention.h"

#include "python/python.h"

#include <math.h>

typedef struct attention_object {
    PyObject ob_base;
    struct lnet_dilation dilation; /* owns the items of both lists; scale NaN means 1/sqrt(D) */
} attention_object;

enum { MAX_TENSORS = 8 };

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

static struct lnet_dilation *dilation_of(PyObject *self) {
    return &((attention_object *)self)->dilation;
}

static const lnet_tensor *tensor_of(PyObject *object) {
    return object != NULL ? &((tensor_object *)object)->tensor : NULL;
}

/* ---- the object ---- */

/* Which of two words `text` is; raises ConfigError for a third. */
static int parse_choice(lnet_state *state, const char *name, const char *text, const char *first,
                        const char *second) {
    if (strcmp(text, first) == 0) return 0;
    if (strcmp(text, second) == 0) return 1;
    lnet_raise(state, lnet_fail(LNET_VALUE_ERROR, "%s '%.40s', expected '%s' or '%s'", name, text,
                                first, second));
    return -1;
}

static PyObject *attention_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {
        "segment_lengths", "dilation_rates", "causal",  "offsets",       "gradient",
        "zero_keys",       "scale",          "dropout", "deterministic", NULL};
    PyObject *lengths, *rates, *scale = Py_None, *dropout = NULL;
    int causal = 1, zero_keys = 0, deterministic = 0;
    const char *offsets = "interleaved", *gradient = "exact";
    lnet_state *state = lnet_state_of(type);
    if (state == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "OO|p$sspOOp:DilatedAttention", names, &lengths,
                                     &rates, &causal, &offsets, &gradient, &zero_keys, &scale,
                                     &dropout, &deterministic))
        return NULL;
    allocfunc allocate = PyType_GetSlot(type, Py_tp_alloc);
    PyObject *self = allocate(type, 0);
    if (self == NULL) return NULL;
    struct lnet_dilation *dilation = dilation_of(self);
    int grouped = parse_choice(state, "offsets", offsets, "interleaved", "grouped");
    int detached =
        grouped < 0 ? -1 : parse_choice(state, "gradient", gradient, "exact", "detached");
    dilation->scale = 1.0; /* a stand-in that passes the check */
    if (detached < 0 ||
        (scale != Py_None && lnet_parse_double(state, "scale", scale, &dilation->scale) < 0) ||
        (dropout != NULL && lnet_parse_double(state, "dropout", dropout, &dilation->dropout) < 0) ||
        lnet_parse_int64_list(state, "segment_lengths", lengths, &dilation->segment_lengths) < 0 ||
        lnet_parse_int64_list(state, "dilation_rates", rates, &dilation->dilation_rates) < 0)
        goto fail;
    dilation->offsets = grouped ? LNET_OFFSETS_GROUPED : LNET_OFFSETS_INTERLEAVED;
    dilation->detached = detached;
    dilation->causal = causal;
    dilation->zero_keys = zero_keys;
    dilation->deterministic = deterministic;
    lnet_status status = lnet_dilation_check("DilatedAttention", dilation);
    if (status != LNET_OK) {
        lnet_raise(state, status);
        goto fail;
    }
    if (scale == Py_None) dilation->scale = NAN;
    return self;
fail:
    Py_DECREF(self);
    return NULL;
}

static void attention_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free((void *)dilation_of(self)->segment_lengths.items);
    PyMem_Free((void *)dilation_of(self)->dilation_rates.items);
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *list_tuple(lnet_int64_list list) {
    PyObject *tuple = PyTuple_New((Py_ssize_t)list.count);
    for (Py_ssize_t i = 0; tuple != NULL && i < list.count; i++) {
        PyObject *item = PyLong_FromLongLong(list.items[i]);
        if (item == NULL || PyTuple_SetItem(tuple, i, item) < 0) Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *get_segment_lengths(PyObject *self, void *unused) {
    (void)unused;
    return list_tuple(dilation_of(self)->segment_lengths);
}

static PyObject *get_dilation_rates(PyObject *self, void *unused) {
    (void)unused;
    return list_tuple(dilation_of(self)->dilation_rates);
}

static PyObject *get_causal(PyObject *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(dilation_of(self)->causal);
}

static PyObject *get_offsets(PyObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(dilation_of(self)->offsets == LNET_OFFSETS_GROUPED ? "grouped"
                                                                                   : "interleaved");
}

static PyObject *get_gradient(PyObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(dilation_of(self)->detached ? "detached" : "exact");
}

static PyObject *get_zero_keys(PyObject *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(dilation_of(self)->zero_keys);
}

static PyObject *get_scale(PyObject *self, void *unused) {
    (void)unused;
    double scale = dilation_of(self)->scale;
    if (isnan(scale)) Py_RETURN_NONE;
    return PyFloat_FromDouble(scale);
}

static PyObject *get_dropout(PyObject *self, void *unused) {
    (void)unused;
    return PyFloat_FromDouble(dilation_of(self)->dropout);
}

static PyObject *get_deterministic(PyObject *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(dilation_of(self)->deterministic);
}

static PyObject *attention_repr(PyObject *self) {
    PyObject *parts[] = {get_segment_lengths(self, NULL), get_dilation_rates(self, NULL),
                         get_scale(self, NULL), get_dropout(self, NULL)};
    struct lnet_dilation *d = dilation_of(self);
    PyObject *text = NULL;
    if (parts[0] && parts[1] && parts[2] && parts[3])
        text = PyUnicode_FromFormat(
            "DilatedAttention(%R, %R, causal=%s, offsets='%s', gradient='%s', zero_keys=%s, "
            "scale=%R, dropout=%R, deterministic=%s)",
            parts[0], parts[1], d->causal ? "True" : "False",
            d->offsets == LNET_OFFSETS_GROUPED ? "grouped" : "interleaved",
            d->detached ? "detached" : "exact", d->zero_keys ? "True" : "False", parts[2], parts[3],
            d->deterministic ? "True" : "False");
    for (int i = 0; i < 4; i++) Py_XDECREF(parts[i]);
    return text;
}

/* ---- calls ---- */

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

/* Takes the arrays over as tensors and checks them; from `q` on they are query, key and value. */
static int call_begin(call *c, PyObject *self, const char *op, const char *const *names,
                      PyObject **arrays, int count, int q, PyObject *lengths, PyObject *cu_seqlens,
                      PyObject *seed) {
    *c = (call){.state = lnet_state_of(Py_TYPE(self)), .all_arrays = true, .input_count = count};
    if (c->state == NULL) return -1;
    for (int i = 0; i < count; i++) {
        c->all_arrays = c->all_arrays && lnet_is_array(arrays[i]);
        c->inputs[i] = lnet_as_contiguous(c->state, names[i], arrays[i]);
        if (c->inputs[i] == NULL) return -1;
    }
    c->dilation = *dilation_of(self);
    if (lengths != Py_None) {
        c->lengths = lnet_as_contiguous(c->state, "lengths", lengths);
        if (c->lengths == NULL) return -1;
    }
    if (cu_seqlens != Py_None) {
        c->cu_seqlens = lnet_as_contiguous(c->state, "cu_seqlens", cu_seqlens);
        if (c->cu_seqlens == NULL) return -1;
    }
    c->dilation.lengths = tensor_of(c->lengths);
    c->dilation.cu_seqlens = tensor_of(c->cu_seqlens);
    if (seed != NULL && lnet_parse_uint64(c->state, "seed", seed, &c->dilation.seed) < 0) return -1;
    const lnet_tensor *query = tensor_of(c->inputs[q]);
    if (isnan(c->dilation.scale)) {
        int64_t width =
            query->ndim == 4 ? query->shape[3] : 1; /* other ranks fail the op's check */
        c->dilation.scale = 1.0 / sqrt((double)(width > 0 ? width : 1));
    }
    lnet_status status = lnet_dilated_attention_check_inputs(
        op, &c->dilation, query, tensor_of(c->inputs[q + 1]), tensor_of(c->inputs[q + 2]));
    if (status != LNET_OK) {
        lnet_raise(c->state, status);
        return -1;
    }
    if (move_rows(c, &c->lengths, &c->dilation.lengths, query->device) < 0) return -1;
    return move_rows(c, &c->cu_seqlens, &c->dilation.cu_seqlens, query->device);
}

/* A new tensor like `like`, or (B, H, N) float32 for the LSE of a query (B, N, H, D). */
static int call_output(call *c, int index, const lnet_tensor *like, bool lse) {
    lnet_tensor tensor;
    int64_t lse_shape[3] = {like->shape[0], like->shape[2], like->shape[1]};
    lnet_status status =
        lse ? lnet_tensor_new(&tensor, LNET_FLOAT32, like->device, 3, lse_shape)
            : lnet_tensor_new(&tensor, like->dtype, like->device, like->ndim, like->shape);
    if (status != LNET_OK) {
        lnet_raise(c->state, status);
        return -1;
    }
    c->outputs[index] = lnet_tensor_object(c->state, &tensor);
    return c->outputs[index] != NULL ? 0 : -1;
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

static PyObject *attention_forward(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"q", "k", "v", "lengths", "cu_seqlens", "seed", NULL};
    static const char *const inputs[] = {"q", "k", "v"};
    PyObject *arrays[3], *lengths = Py_None, *cu_seqlens = Py_None, *seed = NULL, *result = NULL;
    call c;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|$OOO:forward", names, &arrays[0],
                                     &arrays[1], &arrays[2], &lengths, &cu_seqlens, &seed))
        return NULL;
    if (call_begin(&c, self, "DilatedAttention.forward", inputs, arrays, 3, 0, lengths, cu_seqlens,
                   seed) == 0 &&
        call_output(&c, 0, tensor_of(c.inputs[0]), false) == 0 &&
        call_output(&c, 1, tensor_of(c.inputs[0]), true) == 0) {
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

static PyObject *attention_backward(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"dout", "q",       "k",          "v",    "out",
                            "lse",  "lengths", "cu_seqlens", "seed", NULL};
    static const char *const inputs[] = {"dout", "q", "k", "v", "out", "lse"};
    PyObject *arrays[6], *lengths = Py_None, *cu_seqlens = Py_None, *seed = NULL, *result = NULL;
    call c;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOO|$OOO:backward", names, &arrays[0],
                                     &arrays[1], &arrays[2], &arrays[3], &arrays[4], &arrays[5],
                                     &lengths, &cu_seqlens, &seed))
        return NULL;
    if (call_begin(&c, self, "DilatedAttention.backward", inputs, arrays, 6, 1, lengths, cu_seqlens,
                   seed) == 0 &&
        call_output(&c, 0, tensor_of(c.inputs[1]), false) == 0 &&
        call_output(&c, 1, tensor_of(c.inputs[2]), false) == 0 &&
        call_output(&c, 2, tensor_of(c.inputs[3]), false) == 0) {
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

static PyMethodDef attention_methods[] = {
    {"forward", (PyCFunction)(void (*)(void))attention_forward, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR(
         "forward($self, q, k, v, *, lengths=None, cu_seqlens=None, seed=0)\n--\n\n"
         "Attention output and log-sum-exp.\n\n"
         "Parameters\n----------\n"
         "q : array (B, N, H, D), float32, float16 or bfloat16\n"
         "k, v : arrays (B, N, Hk, D) of the same dtype; H a multiple of Hk\n"
         "lengths : array (B,) int64, optional\n"
         "    Rows of each batch item that exist: keys past the length do not exist, outputs\n"
         "    past it are 0 and their LSE -inf.\n"
         "cu_seqlens : array (S+1,) int64, optional\n"
         "    Where each of S documents packed end to end begins, and N. Needs B = 1.\n"
         "seed : int\n    Of dropout; give backward the same.\n\n"
         "Returns\n-------\n"
         "out : array (B, N, H, D), the dtype of q\n"
         "lse : array (B, H, N) float32\n"
         "    NumPy arrays where all inputs were, else longnet.Tensor.")},
    {"backward", (PyCFunction)(void (*)(void))attention_backward, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("backward($self, dout, q, k, v, out, lse, *, lengths=None, cu_seqlens=None, "
               "seed=0)\n--\n\n"
               "Gradients of the inputs, from the gradient of the output.\n\n"
               "Parameters\n----------\n"
               "dout : array (B, N, H, D)\n"
               "q, k, v, lengths, cu_seqlens, seed\n    As forward had them.\n"
               "out, lse\n    What forward gave.\n\n"
               "Returns\n-------\n"
               "dq : array (B, N, H, D)\n"
               "dk, dv : arrays (B, N, Hk, D)")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attention_getset[] = {
    {"segment_lengths", get_segment_lengths, NULL, PyDoc_STR("w of each level."), NULL},
    {"dilation_rates", get_dilation_rates, NULL, PyDoc_STR("r of each level."), NULL},
    {"causal", get_causal, NULL, PyDoc_STR("Whether a query sees no later key."), NULL},
    {"offsets", get_offsets, NULL, PyDoc_STR("'interleaved' or 'grouped'."), NULL},
    {"gradient", get_gradient, NULL, PyDoc_STR("'exact' or 'detached'."), NULL},
    {"zero_keys", get_zero_keys, NULL, PyDoc_STR("Whether padding adds keys of zeros."), NULL},
    {"scale", get_scale, NULL, PyDoc_STR("Factor of the scores; None means 1/sqrt(D)."), NULL},
    {"dropout", get_dropout, NULL, PyDoc_STR("Chance of dropping a probability."), NULL},
    {"deterministic", get_deterministic, NULL,
     PyDoc_STR("Whether gradients have the same bits every time on a GPU too."), NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot attention_slots[] = {
    {Py_tp_doc, PyDoc_STR("DilatedAttention(segment_lengths, dilation_rates, causal=True, *, "
                          "offsets='interleaved', gradient='exact', zero_keys=False, scale=None, "
                          "dropout=0.0, deterministic=False)\n--\n\n"
                          "Dilated attention (LongNet, arXiv 2307.02486, section 2.2).")},
    {Py_tp_new, attention_new},
    {Py_tp_dealloc, attention_dealloc},
    {Py_tp_repr, attention_repr},
    {Py_tp_methods, attention_methods},
    {Py_tp_getset, attention_getset},
    {0, NULL},
};

static PyType_Spec attention_spec = {
    .name = "longnet._core.DilatedAttention",
    .basicsize = sizeof(attention_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = attention_slots,
};

int lnet_add_attention_type(PyObject *module, lnet_state *state) {
    state->attention_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &attention_spec, NULL);
    if (state->attention_type == NULL) return -1;
    return PyModule_AddType(module, state->attention_type);
}
