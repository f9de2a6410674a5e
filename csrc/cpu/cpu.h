/* What every file of the CPU backend begins with.
 *
 * The whole folder is compiled once for each instruction set with LNET_ISA naming it, so that
 * LNET_CPU(rms_norm) is lnet_cpu_avx2_rms_norm in one build and lnet_cpu_scalar_rms_norm in
 * another; backend.c makes a table of each build and csrc/core/backend.c chooses one. */
#ifndef LNET_CPU_CPU_H
#define LNET_CPU_CPU_H

#include "lnet/backend.h"
#include "lnet/memory.h"
#include "lnet/parallel.h"

#ifndef LNET_ISA
#    define LNET_ISA scalar
#endif
#define LNET_JOIN_(a, b, c) a##b##_##c
#define LNET_JOIN(a, b, c) LNET_JOIN_(a, b, c)
#define LNET_CPU(name) LNET_JOIN(lnet_cpu_, LNET_ISA, name)

/* lnet_cpu_<isa>_<op> of every op that has a CPU kernel. */
#define LNET_GPU_OP(name)
#define LNET_OP(name)                                                                              \
    lnet_status LNET_CPU(name)(const struct lnet_##name##_args *args, lnet_stream *stream);
#include "lnet/ops.def"

#endif
