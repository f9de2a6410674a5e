/* madvise is not POSIX. */
#define _GNU_SOURCE
#include "lnet/memory.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
    ALIGNMENT = 64,
    HUGE_PAGE = 2 << 20, /* strided rows of a large tensor touch a page each: large pages help */
};

/* Sits before each block, so that freeing knows the size. */
typedef struct header {
    void *base;
    int64_t bytes;
} header;

static _Atomic int64_t bytes_now, bytes_peak, fail_countdown;

static void count_bytes(int64_t bytes) {
    int64_t now = atomic_fetch_add(&bytes_now, bytes) + bytes;
    int64_t peak = atomic_load(&bytes_peak);
    while (now > peak && !atomic_compare_exchange_weak(&bytes_peak, &peak, now)) {
    }
}

bool lnet_alloc_must_fail(void) {
    if (atomic_load(&fail_countdown) == 0) return false;
    return atomic_fetch_sub(&fail_countdown, 1) == 1;
}

lnet_status lnet_alloc(void **memory, int64_t bytes) {
    *memory = NULL;
    if (bytes < 0 || bytes > PTRDIFF_MAX - 2 * HUGE_PAGE)
        return lnet_fail(LNET_MEMORY_ERROR, "%" PRId64 " bytes asked for: not a possible size",
                         bytes);
    int64_t alignment = bytes >= 2 * HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    size_t total = (size_t)(bytes + alignment + (int64_t)sizeof(header));
    char *base = lnet_alloc_must_fail() ? NULL : malloc(total);
    if (base == NULL)
        return lnet_fail(LNET_MEMORY_ERROR,
                         "out of host memory: %" PRId64 " bytes asked for, %" PRId64 " held", bytes,
                         lnet_alloc_bytes());
    uintptr_t block = (uintptr_t)base + sizeof(header);
    block = (block + (uintptr_t)alignment - 1) & ~((uintptr_t)alignment - 1);
#ifdef MADV_HUGEPAGE
    if (alignment == HUGE_PAGE) /* advice: a kernel without it is as correct */
        (void)madvise((void *)block, (size_t)bytes & ~(size_t)(HUGE_PAGE - 1), MADV_HUGEPAGE);
#endif
    ((header *)block)[-1] = (header){base, bytes};
    count_bytes(bytes);
    *memory = (void *)block;
    return LNET_OK;
}

void lnet_free(void *memory) {
    if (memory == NULL) return;
    header block = ((header *)memory)[-1];
    count_bytes(-block.bytes);
    free(block.base);
}

void lnet_alloc_fail_at(int64_t n) {
    atomic_store(&fail_countdown, n > 0 ? n : 0);
}

int64_t lnet_alloc_bytes(void) {
    return atomic_load(&bytes_now);
}

int64_t lnet_alloc_peak_bytes(void) {
    return atomic_load(&bytes_peak);
}

void lnet_alloc_reset_peak(void) {
    atomic_store(&bytes_peak, atomic_load(&bytes_now));
}
