/* longnet._core.DilatedAttention: the pattern; dilated_attention_call.c calls it. */
#include "ops/dilated_attention.h"

#include "python/python.h"

#include <math.h>

typedef struct attention_object {
    PyObject ob_base;
    struct lnet_dilation dilation; /* owns the items of both lists; scale NaN means 1/sqrt(D) */
} attention_object;

struct lnet_dilation *lnet_dilation_of(PyObject *self) {
    return &((attention_object *)self)->dilation;
}

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
    struct lnet_dilation *dilation = lnet_dilation_of(self);
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
    PyMem_Free((void *)lnet_dilation_of(self)->segment_lengths.items);
    PyMem_Free((void *)lnet_dilation_of(self)->dilation_rates.items);
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
    return list_tuple(lnet_dilation_of(self)->segment_lengths);
}

static PyObject *get_dilation_rates(PyObject *self, void *unused) {
    (void)unused;
    return list_tuple(lnet_dilation_of(self)->dilation_rates);
}

static PyObject *get_causal(PyObject *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(lnet_dilation_of(self)->causal);
}

static PyObject *get_offsets(PyObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(
        lnet_dilation_of(self)->offsets == LNET_OFFSETS_GROUPED ? "grouped" : "interleaved");
}

static PyObject *get_gradient(PyObject *self, void *unused) {
    (void)unused;
    return PyUnicode_FromString(lnet_dilation_of(self)->detached ? "detached" : "exact");
}

static PyObject *get_zero_keys(PyObject *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(lnet_dilation_of(self)->zero_keys);
}

static PyObject *get_scale(PyObject *self, void *unused) {
    (void)unused;
    double scale = lnet_dilation_of(self)->scale;
    if (isnan(scale)) Py_RETURN_NONE;
    return PyFloat_FromDouble(scale);
}

static PyObject *get_dropout(PyObject *self, void *unused) {
    (void)unused;
    return PyFloat_FromDouble(lnet_dilation_of(self)->dropout);
}

static PyObject *get_deterministic(PyObject *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(lnet_dilation_of(self)->deterministic);
}

static PyObject *attention_repr(PyObject *self) {
    PyObject *parts[] = {get_segment_lengths(self, NULL), get_dilation_rates(self, NULL),
                         get_scale(self, NULL), get_dropout(self, NULL)};
    struct lnet_dilation *d = lnet_dilation_of(self);
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

static PyMethodDef attention_methods[] = {
    {"forward", (PyCFunction)(void (*)(void))lnet_attention_forward, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR(
         "forward($self, q, k, v, *, lengths=None, cu_seqlens=None, seed=0, query_start=None, "
         "dropout_origin=(0, 0))\n--\n\n"
         "Attention output and log-sum-exp.\n\n"
         "Parameters\n----------\n"
         "q : array (B, Nq, H, D), float32, float16 or bfloat16\n"
         "k, v : arrays (B, N, Hk, D) of the same dtype; H a multiple of Hk\n"
         "lengths : array (B,) int64, optional\n"
         "    Rows of each batch item that exist: keys past the length do not exist, outputs\n"
         "    past it are 0 and their LSE -inf.\n"
         "cu_seqlens : array (S+1,) int64, optional\n"
         "    Where each of S documents packed end to end begins, and N. Needs B = 1.\n"
         "seed : int\n    Of dropout; give backward the same.\n"
         "query_start : int, optional\n"
         "    The row of k that row 0 of q is: q has rows [query_start, query_start + Nq) of the\n"
         "    N that k and v have. All options count the rows of k. By default Nq must be N.\n"
         "dropout_origin : (int, int)\n"
         "    What row 0 of k and level 0 count as when dropout draws: whole segments of a longer\n"
         "    sequence, and some of its levels, drop what they do there.\n\n"
         "Returns\n-------\n"
         "out : array (B, Nq, H, D), the dtype of q\n"
         "lse : array (B, H, Nq) float32\n"
         "    NumPy arrays where all inputs were, else longnet.Tensor.")},
    {"backward", (PyCFunction)(void (*)(void))lnet_attention_backward, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("backward($self, dout, q, k, v, out, lse, *, lengths=None, cu_seqlens=None, "
               "seed=0, query_start=None, dropout_origin=(0, 0), dtype=None)\n--\n\n"
               "Gradients of the inputs, from the gradient of the output.\n\n"
               "Parameters\n----------\n"
               "dout : array (B, Nq, H, D)\n"
               "q, k, v, lengths, cu_seqlens, seed, query_start, dropout_origin\n"
               "    As forward had them.\n"
               "out, lse\n    What forward gave.\n"
               "dtype : str, optional\n"
               "    Of the gradients: 'float32', or that of q, which is the default.\n\n"
               "Returns\n-------\n"
               "dq : array (B, Nq, H, D)\n"
               "dk, dv : arrays (B, N, Hk, D)\n"
               "    What these queries add: 0 where none of them looks.")},
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
