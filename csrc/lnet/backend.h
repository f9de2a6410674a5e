/* The table of functions that a backend is: one slot an op, NULL where it has no kernel. */
#ifndef LNET_BACKEND_H
#define LNET_BACKEND_H

#include "lnet/status.h"
#include "lnet/tensor.h"

#define LNET_OP(name) struct lnet_##name##_args;
#include "lnet/ops.def"

/* Raised whenever the meaning of a slot changes. */
enum { LNET_BACKEND_VERSION = 1 };

typedef struct lnet_backend {
    uint32_t version;
    const char *name; /* "scalar", "avx2", "avx512", ... */
#define LNET_OP(name) lnet_status (*name)(const struct lnet_##name##_args *, lnet_stream *);
#include "lnet/ops.def"
} lnet_backend;

/* Chooses the CPU backend for this processor, or the one named by LONGNET_CPU, once. */
lnet_status lnet_backend_init(void);

/* The backend that serves a device; fails where there is none. */
lnet_status lnet_backend_get(const lnet_backend **backend, lnet_device device);

/* The CPU backend in use. */
const lnet_backend *lnet_cpu_backend(void);

#endif
