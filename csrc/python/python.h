/* What the files of csrc/python share: the module's state and the conversions between Python
 * objects and tensors. Nothing outside this folder includes Python.h. */
#ifndef LNET_PYTHON_PYTHON_H
#define LNET_PYTHON_PYTHON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "lnet/device.h"
#include "lnet/op.h"

#include <stdio.h>
#include <string.h>

/* One a module object; NULL fields are not made yet. */
typedef struct lnet_state {
    PyTypeObject *tensor_type;
    PyTypeObject *op_type;
    PyTypeObject *attention_type;
    PyTypeObject *stream_type;
    PyTypeObject *event_type;
    PyTypeObject *communicator_type;
    PyObject *errors[LNET_INTERRUPTED]; /* exception class of each lnet_status, none for LNET_OK */
} lnet_state;

extern struct PyModuleDef lnet_module;

/* A longnet.Tensor. */
typedef struct tensor_object {
    PyObject ob_base;
    lnet_tensor tensor;
} tensor_object;

/* A longnet.Stream and a longnet.Event. */
typedef struct stream_object {
    PyObject ob_base;
    lnet_stream *stream;
} stream_object;

typedef struct event_object {
    PyObject ob_base;
    void *event; /* cudaEvent_t */
} event_object;

/* A longnet._core.NcclCommunicator. */
typedef struct communicator_object {
    PyObject ob_base;
    lnet_comm *comm;
    lnet_stream *stream; /* where all its kernels go */
    int32_t rank, size;
} communicator_object;

/* errors.c: the only place that makes exceptions of statuses. Both return NULL / -1 for `return`.
 */
PyObject *lnet_raise(lnet_state *state, lnet_status status);
int lnet_load_errors(lnet_state *state);

/* The state of the module that `type`, or a base of it, belongs to. */
lnet_state *lnet_state_of(PyTypeObject *type);

/* tensor.c */
int lnet_add_tensor_type(PyObject *module, lnet_state *state);
/* Takes over `tensor`'s reference, also on failure. */
PyObject *lnet_tensor_object(lnet_state *state, lnet_tensor *tensor);
bool lnet_is_tensor(lnet_state *state, PyObject *object);
/* "float32" and so on; raises DTypeError. */
int lnet_parse_dtype(lnet_state *state, PyObject *name, lnet_dtype *dtype);
/* "cpu", "cuda" or "cuda:1"; raises DeviceError. */
int lnet_parse_device(lnet_state *state, PyObject *name, lnet_device *device);

/* number.c: what a C function takes, from any object that is such a number; -1 and TypeError where
 * it is none, ConfigError where it does not fit. The caller frees list->items, also on failure. */
int lnet_parse_int64(lnet_state *state, const char *name, PyObject *object, int64_t *value);
int lnet_parse_uint64(lnet_state *state, const char *name, PyObject *object, uint64_t *value);
int lnet_parse_double(lnet_state *state, const char *name, PyObject *object, double *value);
int lnet_parse_int64_list(lnet_state *state, const char *name, PyObject *object,
                          lnet_int64_list *list);

/* The items times `factor`. */
PyObject *lnet_int64_tuple(int32_t count, const int64_t *items, int64_t factor);

/* A shape from an int or a sequence of ints; -1 on failure, else its length. */
int lnet_parse_shape(lnet_state *state, PyObject *object, int64_t *shape);

/* tensor_view.c: methods of longnet.Tensor. */
PyObject *lnet_tensor_reshape(PyObject *self, PyObject *shape);
PyObject *lnet_tensor_subscript(PyObject *self, PyObject *key);

/* transfer.c: the tensor itself where it lies on the device, else a contiguous copy; `async` may
 * return before the copy is complete. */
PyObject *lnet_tensor_to(lnet_state *state, PyObject *tensor, lnet_device device, bool async);
PyObject *lnet_tensor_to_method(PyObject *self, PyObject *args, PyObject *kwargs);
/* A contiguous copy of a tensor on a GPU, there. */
PyObject *lnet_copy_on_gpu(lnet_state *state, PyObject *tensor);

/* convert.c: a new reference to a Tensor over the memory of a Tensor, a NumPy array or any DLPack
 * object, without a copy. */
PyObject *lnet_as_tensor(lnet_state *state, const char *name, PyObject *object);
/* The same, copied where it is not contiguous, or on a GPU does not begin at a multiple of 16
 * bytes. */
PyObject *lnet_as_contiguous(lnet_state *state, const char *name, PyObject *object);

/* numpy.c */
int lnet_import_numpy(void);
bool lnet_is_array(PyObject *object);
/* The array's memory as a tensor (copied only if swapped or misaligned). */
int lnet_from_array(lnet_state *state, const char *name, PyObject *array, lnet_tensor *tensor);
/* A NumPy array over the memory of a longnet.Tensor. */
PyObject *lnet_to_array(lnet_state *state, PyObject *tensor);
/* A contiguous copy of a longnet.Tensor, as a longnet.Tensor. */
PyObject *lnet_contiguous_copy(lnet_state *state, PyObject *tensor);

/* dlpack.c */
int lnet_from_dlpack(lnet_state *state, const char *name, PyObject *object, lnet_tensor *tensor);
/* `consumer` is who will use it: a stream's number, 0 for none that must wait. */
PyObject *lnet_to_dlpack(lnet_state *state, PyObject *tensor, bool versioned, intptr_t consumer);
/* The methods of longnet.Tensor. */
PyObject *lnet_tensor_dlpack(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *lnet_tensor_dlpack_device(PyObject *self, PyObject *unused);

/* cuda_array.c */
int lnet_from_cuda_array(lnet_state *state, const char *name, PyObject *object, PyObject *interface,
                         lnet_tensor *tensor);
PyObject *lnet_get_cuda_array(PyObject *self, void *unused);

/* stream.c, event.c, device.c */
int lnet_add_stream_type(PyObject *module, lnet_state *state);
int lnet_add_event_type(PyObject *module, lnet_state *state);
PyObject *lnet_event_record(lnet_state *state, lnet_stream *stream);
int lnet_add_device_functions(PyObject *module, lnet_state *state);
/* "cuda" or "cuda:1"; raises DeviceError. */
int lnet_parse_gpu(lnet_state *state, PyObject *name, lnet_device *device);

/* op.c, dilated_attention.c */
int lnet_add_ops(PyObject *module, lnet_state *state);
int lnet_add_attention_type(PyObject *module, lnet_state *state);
/* The options of a longnet._core.DilatedAttention. */
struct lnet_dilation *lnet_dilation_of(PyObject *self);
/* dilated_attention_call.c: its methods. */
PyObject *lnet_attention_forward(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *lnet_attention_backward(PyObject *self, PyObject *args, PyObject *kwargs);

/* communicator.c */
int lnet_add_communicator_type(PyObject *module, lnet_state *state);
/* None, or the exception of a status. */
PyObject *lnet_communicator_result(PyObject *self, lnet_status status);

/* collective.c: methods of NcclCommunicator. */
PyObject *lnet_communicator_all_gather(PyObject *self, PyObject *args);
PyObject *lnet_communicator_reduce_scatter(PyObject *self, PyObject *args);
PyObject *lnet_communicator_all_reduce(PyObject *self, PyObject *args);
PyObject *lnet_communicator_broadcast(PyObject *self, PyObject *args);
PyObject *lnet_communicator_exchange(PyObject *self, PyObject *args);
PyObject *lnet_communicator_largest(PyObject *self, PyObject *args);
PyObject *lnet_communicator_record(PyObject *self, PyObject *unused);
PyObject *lnet_communicator_join(PyObject *self, PyObject *args);

#endif
