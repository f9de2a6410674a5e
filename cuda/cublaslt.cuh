/* cuBLASLt, opened at the first product: nothing links to it. */
#ifndef LNET_CUDA_CUBLASLT_CUH
#define LNET_CUDA_CUBLASLT_CUH

#include "cuda/common.cuh"

#include <cublasLt.h>

/* What is called of it; the functions that end in _internal are behind its header's inline ones. */
#define LNET_CUBLASLT_FUNCTIONS(F)                                                                 \
    F(cublasLtCreate)                                                                              \
    F(cublasLtGetStatusName)                                                                       \
    F(cublasLtMatmul)                                                                              \
    F(cublasLtMatmulAlgoGetHeuristic)                                                              \
    F(cublasLtMatmulDescInit_internal)                                                             \
    F(cublasLtMatmulDescSetAttribute)                                                              \
    F(cublasLtMatmulPreferenceInit_internal)                                                       \
    F(cublasLtMatmulPreferenceSetAttribute)                                                        \
    F(cublasLtMatrixLayoutInit_internal)

struct lnet_cublaslt {
#define LNET_CUBLASLT_POINTER(name) decltype(&::name) name;
    LNET_CUBLASLT_FUNCTIONS(LNET_CUBLASLT_POINTER)
#undef LNET_CUBLASLT_POINTER
};

/* The library, and its handle for the current device, which must be `device`. Fails where there is
 * no such library, with what to install; the next call then looks for it again. */
lnet_status lnet_cublaslt_open(const lnet_cublaslt **library, cublasLtHandle_t *handle,
                               int32_t device);

/* LNET_OK, or a failure that names the call and what cuBLASLt says. */
lnet_status lnet_cublaslt_check(const lnet_cublaslt *library, cublasStatus_t found,
                                const char *call);

#endif
