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

lnet_status lnet_run(const lnet_op *op, const void *args, lnet_stream *stream) {
    const lnet_tensor *first = NULL;
    const char *first_name = NULL;
    const lnet_backend *backend;
    lnet_status status;
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
    LNET_TRY(op->check(args));
    LNET_TRY(lnet_backend_get(&backend, first->device));
    status = op->launch(backend, args, stream);
fail:
    return status;
}
