/* madvise is not POSIX. */
#define _GNU_SOURCE
#include "lnet/memory.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
    ALIGNMENT = 64,
    HUGE_PAGE = 2 << 20, /* strided rows of a large tensor touch a page each: large pages help */
    LARGE = 2 * HUGE_PAGE,
    MOST_WASTE = 8, /* a kept block serves a request that leaves no more than this part unused */
};

/* Sits before each block, so that freeing knows the size. */
typedef struct header {
    void *base;
    int64_t bytes;       /* asked for */
    int64_t capacity;    /* of the block */
    struct header *next; /* among those kept */
} header;

static _Atomic int64_t bytes_now, bytes_peak, fail_countdown;

/* The system takes several times as long to make pages as we take to fill them, and a training
 * step asks for the same sizes again and again. So large blocks that are freed are kept for the
 * next request of about their size: no more of them than makes, with those in use, the most that
 * ever was in use, so that the process grows no larger than it would without. The system may take
 * their pages back when it runs short. */
static struct {
    pthread_mutex_t lock;
    header *kept; /* the latest first */
    int64_t kept_bytes, used_bytes, most_used_bytes;
} large = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void lock_large(void) {
    pthread_mutex_lock(&large.lock);
}

static void unlock_large(void) {
    pthread_mutex_unlock(&large.lock);
}

/* A child forked while another thread holds the lock would wait for it for ever. */
static void install_fork_handlers(void) {
    pthread_atfork(lock_large, unlock_large, unlock_large);
}

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

/* Gives back the oldest kept blocks until `most` bytes of them are left; to be called locked. */
static void trim_large(int64_t most) {
    while (large.kept_bytes > most) {
        header **oldest = &large.kept;
        while ((*oldest)->next != NULL) oldest = &(*oldest)->next;
        large.kept_bytes -= (*oldest)->capacity;
        free((*oldest)->base);
        *oldest = NULL;
    }
}

/* Takes a kept block for `bytes`, or NULL after making room for a new one. */
static header *take_large(int64_t bytes) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install_fork_handlers);
    lock_large();
    header **link = &large.kept, *found;
    while ((found = *link) != NULL &&
           (found->capacity < bytes || found->capacity - bytes > found->capacity / MOST_WASTE))
        link = &found->next;
    if (found != NULL) {
        *link = found->next;
        large.kept_bytes -= found->capacity;
        large.used_bytes += found->capacity;
    } else {
        int64_t room = large.most_used_bytes - large.used_bytes - bytes;
        trim_large(room > 0 ? room : 0);
    }
    unlock_large();
    return found;
}

static void count_new_large(int64_t bytes) {
    lock_large();
    large.used_bytes += bytes;
    if (large.used_bytes > large.most_used_bytes) large.most_used_bytes = large.used_bytes;
    unlock_large();
}

/* A new block's header, or NULL. */
static header *new_block(int64_t bytes) {
    int64_t alignment = bytes >= LARGE ? HUGE_PAGE : ALIGNMENT;
    char *base = malloc((size_t)(bytes + alignment + (int64_t)sizeof(header)));
    if (base == NULL) return NULL;
    uintptr_t block = (uintptr_t)base + sizeof(header);
    block = (block + (uintptr_t)alignment - 1) & ~((uintptr_t)alignment - 1);
#ifdef MADV_HUGEPAGE
    if (alignment == HUGE_PAGE) /* advice: a kernel without it is as correct */
        (void)madvise((void *)block, (size_t)bytes & ~(size_t)(HUGE_PAGE - 1), MADV_HUGEPAGE);
#endif
    header *made = (header *)block - 1;
    *made = (header){.base = base, .capacity = bytes};
    if (bytes >= LARGE) count_new_large(bytes);
    return made;
}

lnet_status lnet_alloc(void **memory, int64_t bytes) {
    header *block = NULL;
    *memory = NULL;
    if (bytes < 0 || bytes > PTRDIFF_MAX - 2 * HUGE_PAGE)
        return lnet_fail(LNET_MEMORY_ERROR, "%" PRId64 " bytes asked for: not a possible size",
                         bytes);
    if (!lnet_alloc_must_fail()) {
        if (bytes >= LARGE) block = take_large(bytes);
        if (block == NULL) block = new_block(bytes);
        if (block == NULL) {
            lnet_alloc_trim();
            block = new_block(bytes);
        }
    }
    if (block == NULL)
        return lnet_fail(LNET_MEMORY_ERROR,
                         "out of host memory: %" PRId64 " bytes asked for, %" PRId64 " held", bytes,
                         lnet_alloc_bytes());
    block->bytes = bytes;
    count_bytes(bytes);
    *memory = block + 1;
    return LNET_OK;
}

void lnet_free(void *memory) {
    if (memory == NULL) return;
    header *block = (header *)memory - 1;
    count_bytes(-block->bytes);
    if (block->capacity < LARGE) {
        free(block->base);
        return;
    }
#ifdef MADV_FREE
    (void)madvise(memory, (size_t)block->capacity & ~(size_t)(HUGE_PAGE - 1), MADV_FREE);
#endif
    lock_large();
    block->next = large.kept;
    large.kept = block;
    large.kept_bytes += block->capacity;
    large.used_bytes -= block->capacity;
    unlock_large();
}

void lnet_alloc_trim(void) {
    lock_large();
    trim_large(0);
    unlock_large();
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
