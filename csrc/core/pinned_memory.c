#include "lnet/device.h"

#include <pthread.h>
#include <stdlib.h>

/* Several steps of a training loop that runs ahead of its GPU: locking pages and giving them back
 * may wait for all of the GPU's work. */
enum { MOST_KEPT = 32 };

/* Locking pages takes longer than copying them, so what is freed waits for the next request of
 * about its size. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static lnet_pinned *kept; /* the latest first */

/* Takes a block that fits without wasting more than half of it; NULL where there is none. */
static lnet_pinned *take(int64_t bytes) {
    lnet_pinned *found = NULL;
    pthread_mutex_lock(&lock);
    for (lnet_pinned **link = &kept; *link != NULL; link = &(*link)->next)
        if ((*link)->bytes >= bytes && (*link)->bytes / 2 <= bytes) {
            found = *link;
            *link = found->next;
            break;
        }
    pthread_mutex_unlock(&lock);
    return found;
}

static void destroy(lnet_pinned *block) {
    const lnet_cuda *cuda;
    while (block != NULL) {
        lnet_pinned *next = block->next;
        if (lnet_cuda_get(&cuda) == LNET_OK) cuda->pinned_free(block->memory);
        free(block);
        block = next;
    }
}

lnet_status lnet_pinned_alloc(lnet_pinned **block, int64_t bytes) {
    const lnet_cuda *cuda;
    lnet_status status;
    *block = NULL;
    LNET_TRY(lnet_cuda_get(&cuda));
    lnet_release_due();
    *block = take(bytes);
    if (*block != NULL) return LNET_OK;
    *block = malloc(sizeof **block);
    if (*block == NULL) return lnet_fail(LNET_MEMORY_ERROR, "out of host memory: a block");
    **block = (lnet_pinned){.bytes = bytes};
    status = cuda->pinned_alloc(&(*block)->memory, bytes);
    if (status == LNET_MEMORY_ERROR) {
        lnet_pinned_trim();
        status = cuda->pinned_alloc(&(*block)->memory, bytes);
    }
fail:
    if (status != LNET_OK) {
        free(*block);
        *block = NULL;
    }
    return status;
}

void lnet_pinned_free(void *block) {
    lnet_pinned *oldest, **link = &kept;
    pthread_mutex_lock(&lock);
    ((lnet_pinned *)block)->next = kept;
    kept = block;
    for (int i = 0; i < MOST_KEPT && *link != NULL; i++) link = &(*link)->next;
    oldest = *link;
    *link = NULL;
    pthread_mutex_unlock(&lock);
    destroy(oldest);
}

void lnet_pinned_trim(void) {
    pthread_mutex_lock(&lock);
    lnet_pinned *all = kept;
    kept = NULL;
    pthread_mutex_unlock(&lock);
    destroy(all);
}
