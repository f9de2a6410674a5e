/* A communicator of GPUs, one a rank: what the CUDA backend gives the core of NCCL.
 *
 * No call waits. What open, finalize and the collectives begin goes on by itself until poll() says
 * that it is done, which for a collective means that it is queued on its stream; nothing else may
 * be called before, but stop(), from any thread at any time. */
#ifndef LNET_COMM_H
#define LNET_COMM_H

#include "lnet/tensor.h"

enum { LNET_COMM_ID_BYTES = 128 };

typedef enum lnet_reduction { LNET_SUM, LNET_MAX } lnet_reduction;

typedef struct lnet_comm lnet_comm;

/* One message of an exchange. */
typedef struct lnet_transfer {
    const lnet_tensor *tensor;
    int32_t peer;
    bool receive;
} lnet_transfer;

typedef struct lnet_comm_table {
    /* Opens the library; 22907 is 2.29.7. */
    lnet_status (*version)(int32_t *version);
    /* A name for a communicator to be: one rank makes it and tells the others. */
    lnet_status (*unique_id)(char id[LNET_COMM_ID_BYTES]);
    lnet_status (*open)(lnet_comm **comm, const char id[LNET_COMM_ID_BYTES], int32_t rank,
                        int32_t size, int32_t device);
    /* A cudaStream_t whose kernels go before those of other streams. */
    lnet_status (*stream_create)(int32_t device, void **handle);
    lnet_status (*poll)(lnet_comm *comm, bool *done);

    /* Tensors are contiguous, on the device, of shapes and dtypes that fit, and not empty. */
    lnet_status (*all_gather)(lnet_comm *comm, const lnet_tensor *out, const lnet_tensor *x,
                              lnet_stream *stream);
    lnet_status (*reduce_scatter)(lnet_comm *comm, const lnet_tensor *out, const lnet_tensor *x,
                                  lnet_stream *stream);
    lnet_status (*all_reduce)(lnet_comm *comm, const lnet_tensor *x, lnet_reduction reduction,
                              lnet_stream *stream);
    lnet_status (*broadcast)(lnet_comm *comm, const lnet_tensor *x, int32_t root,
                             lnet_stream *stream);
    /* All messages at once; several to one peer arrive in their order. */
    lnet_status (*exchange)(lnet_comm *comm, int64_t count, const lnet_transfer *transfers,
                            lnet_stream *stream);

    /* x = the largest of each element of all_gather's `parts`; floats only, NaN being largest of
     * all, which NCCL's own drops. An ordinary kernel. */
    lnet_status (*largest)(const lnet_tensor *x, const lnet_tensor *parts, int32_t size,
                           lnet_stream *stream);

    /* Ends it in order: every rank finalizes, polls until done, and closes. */
    lnet_status (*finalize)(lnet_comm *comm);
    lnet_status (*close)(lnet_comm *comm);
    /* Ends all its work, done or not; every later call fails. Waits for this rank's kernels. */
    void (*stop)(lnet_comm *comm);
    void (*free)(lnet_comm *comm); /* stops what is not closed */
} lnet_comm_table;

#endif
