#include "lnet/check.h"
#include "lnet/op.h"

const lnet_op *(*const lnet_ops[])(void) = {
#define LNET_OP(name) lnet_op_##name,
#include "lnet/ops.def"
    NULL,
};

static bool is_tensor(const lnet_field *field) {
    return field->kind == LNET_FIELD_OUTPUT || field->kind == LNET_FIELD_INPUT;
}

lnet_status lnet_no_kernel(const char *op) {
    return lnet_fail(LNET_DEVICE_ERROR,
                     "%s: tensors on cpu, expected on a GPU: there is no CPU kernel of this op",
                     op);
}

/* The device of the first tensor goes to *device. */
static lnet_status check_tensors(const lnet_op *op, const void *args, lnet_device *device) {
    const lnet_tensor *first = NULL;
    const char *first_name = NULL;
    lnet_status status = LNET_OK;
    for (int i = 0; i < op->field_count; i++) {
        const lnet_field *field = &op->fields[i];
        if (!is_tensor(field)) continue;
        const lnet_tensor *tensor =
            *(const lnet_tensor *const *)((const char *)args + field->offset);
        if (tensor == NULL) continue;
        if (first == NULL) first = tensor, first_name = field->name;
        LNET_TRY(lnet_check_device(op->name, first_name, first, field->name, tensor));
        LNET_TRY(lnet_check_contiguous(op->name, field->name, tensor));
        if (field->kind == LNET_FIELD_OUTPUT)
            LNET_TRY(lnet_check_writable(op->name, field->name, tensor));
    }
    *device = first->device;
fail:
    return status;
}

lnet_status lnet_check(const lnet_op *op, const void *args) {
    lnet_device device;
    lnet_status status = check_tensors(op, args, &device);
    return status == LNET_OK ? op->check(args) : status;
}

lnet_status lnet_run(const lnet_op *op, const void *args, lnet_stream *stream) {
    const lnet_backend *backend;
    lnet_device device;
    lnet_status status;
    LNET_TRY(check_tensors(op, args, &device));
    LNET_TRY(op->check(args));
    LNET_TRY(lnet_backend_get(&backend, device));
    status = op->launch(backend, args, stream);
fail:
    return status;
}
