#include "cpu/cpu.h"

#define TEXT_(name) #name
#define TEXT(name) TEXT_(name)
#define TABLE_(isa) lnet_cpu_backend_##isa
#define TABLE(isa) TABLE_(isa)

extern const lnet_backend TABLE(LNET_ISA);

const lnet_backend TABLE(LNET_ISA) = {
    .version = LNET_BACKEND_VERSION,
    .name = TEXT(LNET_ISA),
#define LNET_GPU_OP(name)
#define LNET_OP(op) .op = LNET_CPU(op),
#include "lnet/ops.def"
};
