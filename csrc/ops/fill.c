#include "ops/fill.h"

#include "lnet/check.h"

static lnet_status check_fill(const char *op, const struct lnet_fill_args *args) {
    return lnet_check_dtype(op, "out", args->out, LNET_IS_FLOAT);
}

LNET_DEFINE_OP(fill, LNET_FIELD(out), LNET_FIELD(value));
