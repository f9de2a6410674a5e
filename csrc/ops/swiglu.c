#include "ops/swiglu.h"

#include "lnet/check.h"

static lnet_status check_swiglu(const char *op, const struct lnet_swiglu_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "gate", args->gate, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_same(op, args->gate, "up", args->up));
    LNET_TRY(lnet_check_same(op, args->gate, "y", args->y));
fail:
    return status;
}

static lnet_status check_swiglu_backward(const char *op,
                                         const struct lnet_swiglu_backward_args *args) {
    lnet_status status;
    LNET_TRY(lnet_check_dtype(op, "gate", args->gate, LNET_IS_FLOAT));
    LNET_TRY(lnet_check_same(op, args->gate, "up", args->up));
    LNET_TRY(lnet_check_same(op, args->gate, "dy", args->dy));
    LNET_TRY(lnet_check_same(op, args->gate, "dgate", args->dgate));
    LNET_TRY(lnet_check_same(op, args->gate, "dup", args->dup));
fail:
    return status;
}

LNET_DEFINE_OP(swiglu, LNET_FIELD(y), LNET_FIELD(gate), LNET_FIELD(up));
LNET_DEFINE_OP(swiglu_backward, LNET_FIELD(dgate), LNET_FIELD(dup), LNET_FIELD(dy),
               LNET_FIELD(gate), LNET_FIELD(up));
