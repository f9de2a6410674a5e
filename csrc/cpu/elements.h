/* Ops that see tensors as flat arrays: a kernel gets blocks of float32, whatever the storage. */
#ifndef LNET_CPU_ELEMENTS_H
#define LNET_CPU_ELEMENTS_H

#include "cpu/convert.h"
#include "cpu/cpu.h"
#include "cpu/simd.h"

enum {
    ELEMENT_TENSORS = 4,
    ELEMENT_BLOCK = 1024,    /* small enough that converted blocks stay in the L1 cache */
    ELEMENT_CHUNK = 1 << 15, /* enough to outweigh handing it out */
};

/* Computes elements first, first + 1, ..., first + n - 1 of the outputs. The arrays hold whole
 * vectors, so that n may be rounded up; an output may be the same array as an input. */
typedef void (*element_kernel)(const void *args, float *const *out, const float *const *in,
                               int64_t first, int64_t n);

struct element_job {
    element_kernel kernel;
    const void *args;
    lnet_tensor *out[ELEMENT_TENSORS];      /* of one shape, ended by NULL */
    const lnet_tensor *in[ELEMENT_TENSORS]; /* of the same shape, ended by NULL */
};

static inline lnet_status run_elements(void *context, int64_t begin, int64_t end, int worker) {
    const struct element_job *job = context;
    _Alignas(64) float in_scratch[ELEMENT_TENSORS][ELEMENT_BLOCK];
    _Alignas(64) float out_scratch[ELEMENT_TENSORS][ELEMENT_BLOCK];
    (void)worker;
    for (int64_t first = begin; first < end; first += ELEMENT_BLOCK) {
        int64_t n = end - first < ELEMENT_BLOCK ? end - first : ELEMENT_BLOCK;
        bool whole = n % VLEN == 0; /* else the end of the tensors: there is no room to round up */
        const float *in[ELEMENT_TENSORS];
        float *out[ELEMENT_TENSORS];
        for (int i = 0; i < ELEMENT_TENSORS && job->in[i] != NULL; i++) {
            const lnet_tensor *tensor = job->in[i];
            in[i] = in_scratch[i];
            if (tensor->dtype == LNET_FLOAT32 && whole) {
                in[i] = (const float *)tensor->data + first;
            } else {
                if (!whole) vec_store(in_scratch[i] + n / VLEN * VLEN, (vec){0});
                load_floats(in_scratch[i], tensor->data, first, n, tensor->dtype);
            }
        }
        for (int i = 0; i < ELEMENT_TENSORS && job->out[i] != NULL; i++)
            out[i] = job->out[i]->dtype == LNET_FLOAT32 && whole
                         ? (float *)job->out[i]->data + first
                         : out_scratch[i];
        job->kernel(job->args, out, in, first, n);
        for (int i = 0; i < ELEMENT_TENSORS && job->out[i] != NULL; i++)
            if (out[i] == out_scratch[i])
                store_floats(job->out[i]->data, first, out[i], n, job->out[i]->dtype);
    }
    return LNET_OK;
}

static inline lnet_status for_elements(const struct element_job *job) {
    return lnet_parallel_for(lnet_tensor_count(job->out[0]), ELEMENT_CHUNK, run_elements,
                             (void *)job);
}

#endif
