/* longnet._core.ops: every op of ops.def as a callable, from its description. */
#include "python/python.h"

enum { MAX_FIELDS = 32, MAX_ARGS_SIZE = 512 };

typedef struct op_object {
    PyObject ob_base;
    const lnet_op *op;
} op_object;

static const lnet_op *op_of(PyObject *self) {
    return ((op_object *)self)->op;
}

/* What one call holds while it runs. */
typedef struct call {
    _Alignas(16) char args[MAX_ARGS_SIZE];
    PyObject *held[MAX_FIELDS];
    const int64_t *lists[MAX_FIELDS];
} call;

static int set_field(lnet_state *state, call *c, int index, const lnet_field *field,
                     PyObject *value) {
    void *target = c->args + field->offset;
    int result;
    switch (field->kind) {
    case LNET_FIELD_OUTPUT:
    case LNET_FIELD_INPUT:
        if (value == Py_None && field->optional) return 0;
        c->held[index] = lnet_as_tensor(state, field->name, value);
        if (c->held[index] == NULL) return -1;
        *(lnet_tensor **)target = &((tensor_object *)c->held[index])->tensor;
        return 0;
    case LNET_FIELD_INT64:
        return lnet_parse_int64(state, field->name, value, target);
    case LNET_FIELD_UINT64:
        return lnet_parse_uint64(state, field->name, value, target);
    case LNET_FIELD_DOUBLE:
        return lnet_parse_double(state, field->name, value, target);
    case LNET_FIELD_BOOL:
        result = PyObject_IsTrue(value);
        *(bool *)target = result == 1;
        return result < 0 ? -1 : 0;
    case LNET_FIELD_LIST:
        result = lnet_parse_int64_list(state, field->name, value, target);
        c->lists[index] = ((lnet_int64_list *)target)->items;
        return result;
    }
    return 0;
}

static int find_field(const lnet_op *op, PyObject *name) {
    for (int i = 0; i < op->field_count; i++)
        if (PyUnicode_CompareWithASCIIString(name, op->fields[i].name) == 0) return i;
    PyErr_Format(PyExc_TypeError, "%s: no argument %R", op->name, name);
    return -1;
}

static int gather_arguments(const lnet_op *op, PyObject *args, PyObject *kwargs,
                            PyObject **values) {
    Py_ssize_t count = PyTuple_Size(args), position = 0;
    PyObject *name, *value;
    if (count > op->field_count) {
        PyErr_Format(PyExc_TypeError, "%s: %zd arguments, expected at most %d", op->name, count,
                     op->field_count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) values[i] = PyTuple_GetItem(args, i);
    while (kwargs != NULL && PyDict_Next(kwargs, &position, &name, &value)) {
        int index = find_field(op, name);
        if (index < 0) return -1;
        if (values[index] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s: argument %R given twice", op->name, name);
            return -1;
        }
        values[index] = value;
    }
    for (int i = 0; i < op->field_count; i++) {
        if (values[i] != NULL || op->fields[i].optional) continue;
        PyErr_Format(PyExc_TypeError, "%s: argument '%s' is missing", op->name, op->fields[i].name);
        return -1;
    }
    return 0;
}

/* Checks the arguments, and runs the op on them unless `check_only`. */
static PyObject *call_op(PyObject *self, PyObject *args, PyObject *kwargs, bool check_only) {
    const lnet_op *op = op_of(self);
    lnet_state *state = lnet_state_of(Py_TYPE(self));
    PyObject *values[MAX_FIELDS] = {NULL};
    call c = {0};
    PyObject *result = NULL;
    if (state == NULL || gather_arguments(op, args, kwargs, values) < 0) return NULL;
    for (int i = 0; i < op->field_count; i++)
        if (values[i] != NULL && set_field(state, &c, i, &op->fields[i], values[i]) < 0) goto done;
    lnet_status status;
    Py_BEGIN_ALLOW_THREADS status =
        check_only ? lnet_check(op, c.args) : lnet_run(op, c.args, NULL);
    Py_END_ALLOW_THREADS result =
        status == LNET_OK ? Py_NewRef(Py_None) : lnet_raise(state, status);
done:
    for (int i = 0; i < op->field_count; i++) {
        Py_XDECREF(c.held[i]);
        PyMem_Free((void *)c.lists[i]);
    }
    return result;
}

static PyObject *op_call(PyObject *self, PyObject *args, PyObject *kwargs) {
    return call_op(self, args, kwargs, false);
}

static PyObject *op_check(PyObject *self, PyObject *args, PyObject *kwargs) {
    return call_op(self, args, kwargs, true);
}

static PyObject *op_repr(PyObject *self) {
    const lnet_op *op = op_of(self);
    PyObject *text = PyUnicode_FromFormat("<op %s(", op->name);
    for (int i = 0; i < op->field_count && text != NULL; i++) {
        const lnet_field *field = &op->fields[i];
        const char *absent = field->kind == LNET_FIELD_BOOL    ? "=False"
                             : field->kind == LNET_FIELD_INT64 ? "=0"
                                                               : "=None";
        PyObject *more = PyUnicode_FromFormat("%U%s%s%s", text, i ? ", " : "", field->name,
                                              field->optional ? absent : "");
        Py_DECREF(text);
        text = more;
    }
    if (text == NULL) return NULL;
    PyObject *whole = PyUnicode_FromFormat("%U)>", text);
    Py_DECREF(text);
    return whole;
}

static void op_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef op_methods[] = {
    {"check", (PyCFunction)(void (*)(void))op_check, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("check(...)\n--\n\nRaises what a call with these arguments would raise of them.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot op_slots[] = {
    {Py_tp_doc, PyDoc_STR("An op of the C core: outputs first, then inputs and sizes.")},
    {Py_tp_call, op_call},
    {Py_tp_methods, op_methods},
    {Py_tp_repr, op_repr},
    {Py_tp_dealloc, op_dealloc},
    {0, NULL},
};

static PyType_Spec op_spec = {
    .name = "longnet._core.Op",
    .basicsize = sizeof(op_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = op_slots,
};

int lnet_add_ops(PyObject *module, lnet_state *state) {
    state->op_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &op_spec, NULL);
    if (state->op_type == NULL || PyModule_AddType(module, state->op_type) < 0) return -1;
    allocfunc allocate = PyType_GetSlot(state->op_type, Py_tp_alloc);
    PyObject *ops = PyModule_New("longnet._core.ops");
    for (int i = 0; ops != NULL && lnet_ops[i] != NULL; i++) {
        const lnet_op *op = lnet_ops[i]();
        PyObject *object = NULL;
        if (op->field_count > MAX_FIELDS || op->args_size > MAX_ARGS_SIZE)
            PyErr_Format(PyExc_SystemError, "op %s: too many arguments", op->name);
        else
            object = allocate(state->op_type, 0);
        if (object != NULL) ((op_object *)object)->op = op;
        if (object == NULL || PyModule_AddObjectRef(ops, op->name, object) < 0) Py_CLEAR(ops);
        Py_XDECREF(object);
    }
    if (ops == NULL) return -1;
    int result = PyModule_AddObjectRef(module, "ops", ops);
    Py_DECREF(ops);
    return result;
}
