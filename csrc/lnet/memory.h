/* Host memory: 64-byte aligned, counted, and made to fail on request by tests. */
#ifndef LNET_MEMORY_H
#define LNET_MEMORY_H

#include "lnet/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* `*memory` gets `bytes` bytes aligned to 64, or LNET_MEMORY_ERROR with the bytes asked for. */
lnet_status lnet_alloc(void **memory, int64_t bytes);
/* Keeps a large block for a later request of its size. */
void lnet_free(void *memory);
/* Gives the system what is kept; an allocation that would fail does so itself. */
void lnet_alloc_trim(void);

/* Makes the n-th allocation from now fail (1: the next one); 0 switches this off. */
void lnet_alloc_fail_at(int64_t n);
/* Whether the allocation being made now is to fail; for allocators of other memory. */
bool lnet_alloc_must_fail(void);

/* Bytes held now, and the most held since the last reset. */
int64_t lnet_alloc_bytes(void);
int64_t lnet_alloc_peak_bytes(void);
void lnet_alloc_reset_peak(void);

#endif
