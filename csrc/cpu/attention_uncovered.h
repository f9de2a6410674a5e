/* Rows that no level covers on a head, or that no query sees there: zeros, which go past the cache
 * to memory a few lines at a time between two blocks of arithmetic, and when there is nothing else
 * to do. */
#ifndef LNET_CPU_ATTENTION_UNCOVERED_H
#define LNET_CPU_ATTENTION_UNCOVERED_H

#include "cpu/attention_tile.h"
#include "lnet/parallel.h"

#include <stdatomic.h>

enum {
    MAX_UNCOVERED = 3,       /* tensors */
    UNCOVERED_ROWS = 16,     /* of a chunk, which a thread takes at once */
    UNCOVERED_PER_GRAIN = 8, /* chunks, of those left when the arithmetic is done */
};

/* What the threads share. */
struct uncovered {
    const struct attention_pattern *pattern;
    const lnet_tensor *tensors[MAX_UNCOVERED]; /* (B, Nq, H, D), then (B, N, Hk, D) or NULL */
    int64_t chunks;                            /* of one tensor after another */
    _Atomic int64_t next;                      /* chunk that no thread has taken */
};

/* Rows of one of the tensors. */
static int64_t uncovered_rows(const struct uncovered *all, int64_t tensor) {
    const struct attention_pattern *pattern = all->pattern;
    return pattern->batch * (tensor == 0 ? pattern->queries : pattern->rows);
}

/* Where a thread is; zeros at first. */
struct uncovered_place {
    char *next, *last; /* what is left of a run of heads of one row */
    const lnet_tensor *tensor;
    int64_t row, end, head; /* of the chunk: row and head after the run, and the last row */
    struct attention_row at;
};

static void uncovered_begin(struct uncovered *all, const struct attention_pattern *pattern) {
    const struct lnet_dilation *dilation = pattern->dilation;
    int64_t tensors = 0;
    all->pattern = pattern;
    while (tensors < MAX_UNCOVERED && all->tensors[tensors] != NULL) tensors++;
    bool all_queries = tensors == 1 || pattern->queries == pattern->rows;
    for (int64_t level = 0; level < dilation->dilation_rates.count; level++)
        if (dilation->dilation_rates.items[level] == 1 && dilation->lengths == NULL && all_queries)
            return; /* every row of a sequence is covered, and there are no others */
    for (int64_t tensor = 0; tensor < tensors; tensor++)
        all->chunks += ceil_div(uncovered_rows(all, tensor), UNCOVERED_ROWS);
}

static bool uncovered_take(struct uncovered *all, struct uncovered_place *place) {
    if (atomic_load_explicit(&all->next, memory_order_relaxed) >= all->chunks) return false;
    int64_t chunk = atomic_fetch_add(&all->next, 1), tensor = 0, chunks;
    if (chunk >= all->chunks) return false;
    while (chunk >= (chunks = ceil_div(uncovered_rows(all, tensor), UNCOVERED_ROWS))) {
        chunk -= chunks;
        tensor++;
    }
    place->tensor = all->tensors[tensor];
    place->row = chunk * UNCOVERED_ROWS;
    place->end = min_int(uncovered_rows(all, tensor), place->row + UNCOVERED_ROWS);
    place->head = 0;
    return true;
}

/* Whether the head of the row is one that no level covers. */
static bool uncovered_head(const struct uncovered *all, const struct uncovered_place *place) {
    const struct attention_pattern *pattern = all->pattern;
    int64_t group = pattern->heads / place->tensor->shape[2], head = place->head * group;
    return !attention_row_covers(&place->at, pattern, pattern->dilation->segment_lengths.count,
                                 head, head + group);
}

/* Goes to the next run of the chunk; false when there is none. */
static bool uncovered_find(const struct uncovered *all, struct uncovered_place *place) {
    for (; place->row < place->end; place->row++, place->head = 0) {
        const lnet_tensor *tensor = place->tensor;
        int64_t heads = tensor->shape[2];
        int64_t size = all->pattern->width * (int64_t)lnet_dtype_size(tensor->dtype);
        if (place->head == 0)
            attention_row_set(&place->at, all->pattern,
                              tensor == all->tensors[0]
                                  ? attention_row_of_query(all->pattern, place->row)
                                  : place->row);
        while (place->head < heads && !uncovered_head(all, place)) place->head++;
        if (place->head == heads) continue;
        place->next = (char *)tensor->data + (place->row * heads + place->head) * size;
        while (place->head < heads && uncovered_head(all, place)) place->head++;
        place->last = (char *)tensor->data + (place->row * heads + place->head) * size;
        return true;
    }
    return false;
}

/* Writes about `bytes` of zeros, to the end of the run at most; returns how many. */
static int64_t uncovered_clear(struct uncovered_place *place, int64_t bytes) {
    static const float zeros[16];
    char *begin = place->next;
    while (place->next < place->last && place->next - begin < bytes) {
        int64_t line = min_int(sizeof zeros, place->last - place->next);
        stream_bytes(place->next, zeros, line);
        place->next += line;
    }
    return place->next - begin;
}

/* Between two blocks of arithmetic: about `bytes` more. */
static __attribute__((noinline)) void
uncovered_go_on(struct uncovered *all, struct uncovered_place *place, int64_t bytes) {
    for (;;) {
        bytes -= uncovered_clear(place, bytes);
        if (bytes <= 0) return;
        while (!uncovered_find(all, place))
            if (!uncovered_take(all, place)) return;
    }
}

/* At the end of a task: no other thread has the chunk. */
static void uncovered_leave(const struct uncovered *all, struct uncovered_place *place) {
    do uncovered_clear(place, INT64_MAX);
    while (uncovered_find(all, place));
    stream_end();
}

static lnet_status uncovered_rest(void *context, int64_t begin, int64_t end, int worker) {
    struct uncovered *all = context;
    struct uncovered_place place = {0};
    (void)worker;
    for (; begin < end && uncovered_take(all, &place); begin++) uncovered_leave(all, &place);
    return LNET_OK;
}

/* When the arithmetic is done. */
static lnet_status uncovered_end(struct uncovered *all) {
    return lnet_parallel_for(all->chunks - atomic_load(&all->next), UNCOVERED_PER_GRAIN,
                             uncovered_rest, all);
}

#endif
