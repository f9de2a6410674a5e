/* The thread pool of the CPU backend.
 *
 * Work is cut into chunks whose borders depend on the problem alone, never on the number of
 * threads; so a task that writes only what belongs to its chunk gives the same bits on any
 * machine. Threads take chunks in order as they become free. */
#ifndef LNET_PARALLEL_H
#define LNET_PARALLEL_H

#include "lnet/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Handles items [begin, end). `worker` belongs to one thread for the duration of the call. */
typedef lnet_status (*lnet_task)(void *context, int64_t begin, int64_t end, int worker);

/* Runs the task over [0, count) in chunks of `grain` items. Returns the failure of the earliest
 * chunk that failed, or LNET_INTERRUPTED. A call from inside a task, or while another thread uses
 * the pool, runs on the calling thread alone. */
lnet_status lnet_parallel_for(int64_t count, int64_t grain, lnet_task task, void *context);

/* The same with every `worker` below `workers`, so that it may index scratch memory. Another thread
 * may change lnet_num_threads() at any time: read it once, for the scratch and this. */
lnet_status lnet_parallel_for_workers(int64_t count, int64_t grain, int workers, lnet_task task,
                                      void *context);

/* Asked by a task that waits for an earlier chunk: whether the call is to end with a failure or an
 * interrupt, so that the chunk may never be done. */
bool lnet_parallel_ends(void);

/* Sets the number of threads to LONGNET_NUM_THREADS or the number of usable processors, before
 * anything is computed. */
lnet_status lnet_parallel_init(void);

int lnet_num_threads(void);
/* n >= 1 */
lnet_status lnet_set_num_threads(int n);

/* Asked now and then by a long call on the thread that made it; non-zero ends the call with
 * LNET_INTERRUPTED. */
void lnet_set_interrupt_check(int (*check)(void));

#endif
