#include "lnet/memory.h"
#include "lnet/parallel.h"
#include "python/python.h"

/* Asked by long CPU calls on the thread that made them, which has released the GIL. */
static int check_signals(void) {
    PyGILState_STATE gil = PyGILState_Ensure();
    int result = PyErr_CheckSignals();
    PyGILState_Release(gil);
    return result;
}

/* PyType_GetModuleByDef, which the limited API has from Python 3.13 on. */
lnet_state *lnet_state_of(PyTypeObject *type) {
    for (; type != NULL; type = PyType_GetSlot(type, Py_tp_base)) {
        PyObject *module = PyType_GetModule(type);
        if (module == NULL)
            PyErr_Clear();
        else if (PyModule_GetDef(module) == &lnet_module)
            return PyModule_GetState(module);
    }
    PyErr_SetString(PyExc_SystemError, "a type of longnet without its module");
    return NULL;
}

static PyObject *cpu_backend(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return PyUnicode_FromString(lnet_cpu_backend()->name);
}

static PyObject *num_threads(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return PyLong_FromLong(lnet_num_threads());
}

static PyObject *set_num_threads(PyObject *module, PyObject *argument) {
    lnet_state *state = PyModule_GetState(module);
    int64_t n;
    if (lnet_parse_int64(state, "threads", argument, &n) < 0) return NULL;
    lnet_status status = lnet_set_num_threads(n > INT_MAX   ? INT_MAX
                                              : n < INT_MIN ? INT_MIN
                                                            : (int)n);
    if (status != LNET_OK) return lnet_raise(state, status);
    Py_RETURN_NONE;
}

static PyObject *alloc_fail_at(PyObject *module, PyObject *argument) {
    int64_t n;
    if (lnet_parse_int64(PyModule_GetState(module), "n", argument, &n) < 0) return NULL;
    lnet_alloc_fail_at(n);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"cpu_backend", cpu_backend, METH_NOARGS,
     PyDoc_STR("cpu_backend()\n--\n\nThe instruction set in use: 'scalar', 'avx2' or 'avx512'.")},
    {"num_threads", num_threads, METH_NOARGS,
     PyDoc_STR("num_threads()\n--\n\nThreads that CPU ops use.")},
    {"set_num_threads", set_num_threads, METH_O,
     PyDoc_STR("set_num_threads(n, /)\n--\n\n"
               "Sets the number of threads of CPU ops (default: LONGNET_NUM_THREADS, else one a\n"
               "usable processor). Results do not depend on it.")},
    {"alloc_fail_at", alloc_fail_at, METH_O,
     PyDoc_STR("alloc_fail_at(n, /)\n--\n\n"
               "For tests: makes the n-th allocation from now fail; 0 switches this off.")},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module) {
    lnet_state *state = PyModule_GetState(module);
    if (lnet_load_errors(state) < 0 || lnet_import_numpy() < 0) return -1;
    lnet_status status = lnet_backend_init();
    if (status == LNET_OK) status = lnet_parallel_init();
    if (status != LNET_OK) {
        lnet_raise(state, status);
        return -1;
    }
    lnet_set_interrupt_check(check_signals);
    if (lnet_add_tensor_type(module, state) < 0 || lnet_add_ops(module, state) < 0 ||
        lnet_add_attention_type(module, state) < 0 || lnet_add_stream_type(module, state) < 0 ||
        lnet_add_event_type(module, state) < 0 || lnet_add_communicator_type(module, state) < 0 ||
        lnet_add_device_functions(module, state) < 0)
        return -1;
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    lnet_state *state = PyModule_GetState(module);
    Py_VISIT(state->tensor_type);
    Py_VISIT(state->op_type);
    Py_VISIT(state->attention_type);
    Py_VISIT(state->stream_type);
    Py_VISIT(state->event_type);
    Py_VISIT(state->communicator_type);
    for (int i = 0; i < LNET_INTERRUPTED; i++) Py_VISIT(state->errors[i]);
    return 0;
}

static int module_clear(PyObject *module) {
    lnet_state *state = PyModule_GetState(module);
    Py_CLEAR(state->tensor_type);
    Py_CLEAR(state->op_type);
    Py_CLEAR(state->attention_type);
    Py_CLEAR(state->stream_type);
    Py_CLEAR(state->event_type);
    Py_CLEAR(state->communicator_type);
    for (int i = 0; i < LNET_INTERRUPTED; i++) Py_CLEAR(state->errors[i]);
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

struct PyModuleDef lnet_module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "longnet._core",
    .m_doc = PyDoc_STR("Tensors, ops and dilated attention in C."),
    .m_size = sizeof(lnet_state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&lnet_module);
}
