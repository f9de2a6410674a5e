/* Rows that no level covers on a head, or that no query sees there: zeros, which go past the cache
 * to memory a line at a time within the arithmetic, and when there is nothing else to do. */
#ifndef LNET_CPU_ATTENTION_UNCOVERED_H
#define LNET_CPU_ATTENTION_UNCOVERED_H

#include "cpu/attention_tile.h"
#include "lnet/parallel.h"

#include <stdatomic.h>

enum {
    MAX_UNCOVERED = 3,       /* tensors */
    UNCOVERED_ROWS = 64,     /* of a chunk, which a thread takes at once */
    UNCOVERED_HEADS = 64,    /* likewise, at most */
    UNCOVERED_PER_GRAIN = 2, /* chunks that a thread is called for when it has no arithmetic */
};

/* What the threads share. */
struct uncovered {
    const struct attention_pattern *pattern;
    const lnet_tensor *tensors[MAX_UNCOVERED]; /* (B, Nq, H, D), then (B, N, Hk, D) or NULL */
    int64_t chunks;                            /* of one tensor after another */
    _Atomic int64_t next;                      /* chunk that no thread has taken */
    _Atomic int64_t units;                     /* of the arithmetic, that are not done */
};

/* Where a thread is; zeros at first. */
struct uncovered_place {
    char *next, *last; /* what is left of a run: heads of a row, and of those after it */
    const lnet_tensor *tensor;
    int64_t first, row, end;       /* of the chunk: its first row, the run's last, its end */
    int64_t head, heads;           /* of the chunk: its first head, and how many */
    uint64_t bare[UNCOVERED_ROWS]; /* a bit a head: nothing covers it, and it is not in a run yet */
};

/* Rows of one of the tensors. */
static int64_t uncovered_rows(const struct uncovered *all, int64_t tensor) {
    const struct attention_pattern *pattern = all->pattern;
    return pattern->batch * (tensor == 0 ? pattern->queries : pattern->rows);
}

/* Chunks of one of the tensors: of all its rows for some heads, then for the next. */
static int64_t uncovered_chunks(const struct uncovered *all, int64_t tensor) {
    return ceil_div(uncovered_rows(all, tensor), UNCOVERED_ROWS) *
           ceil_div(all->tensors[tensor]->shape[2], UNCOVERED_HEADS);
}

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
        all->chunks += uncovered_chunks(all, tensor);
}

/* Strikes out what a level covers of rows [begin, end) of a sequence, which lie in one segment;
 * `bare` is the first one's. */
static void uncovered_strike(const struct uncovered *all, const struct uncovered_place *place,
                             struct attention_sequence sequence, int64_t level, int64_t begin,
                             int64_t end, uint64_t *bare) {
    const struct attention_pattern *pattern = all->pattern;
    struct attention_range queries = attention_queries(pattern, sequence.batch_item);
    int64_t w = min_int(pattern->dilation->segment_lengths.items[level], sequence.length);
    int64_t r = pattern->dilation->dilation_rates.items[level], residue = begin % w % r;
    int64_t group = pattern->heads / place->tensor->shape[2];
    const int32_t *offset = pattern->offsets + level * pattern->heads + place->head * group;
    for (int64_t i = 0; i < place->heads; i++)
        for (int64_t j = 0; j < group; j++, offset++) {
            int64_t row = begin + *offset - residue + (*offset < residue ? r : 0);
            for (; row < end; row += r) {
                int64_t at = sequence.begin + row;
                if ((at >= queries.begin && at < queries.end) ||
                    attention_row_seen(pattern, sequence, level, row))
                    bare[row - begin] &= ~(UINT64_C(1) << i);
            }
        }
}

/* Finds out which heads of a chunk's rows are uncovered. */
static void uncovered_look(const struct uncovered *all, struct uncovered_place *place) {
    const struct attention_pattern *pattern = all->pattern;
    const lnet_int64_list lengths = pattern->dilation->segment_lengths;
    bool queries = place->tensor == all->tensors[0];
    for (int i = 0; i < UNCOVERED_ROWS; i++)
        place->bare[i] = ~UINT64_C(0) >> (UNCOVERED_HEADS - place->heads);
    for (int64_t row = place->row, next; row < place->end; row = next) {
        int64_t at = queries ? attention_row_of_query(pattern, row) : row;
        int64_t i = attention_sequence_after(pattern, at);
        if (i == pattern->sequences) return;
        struct attention_sequence sequence = attention_sequence_at(pattern, i);
        int64_t border = at < sequence.begin ? sequence.begin : sequence.begin + sequence.length;
        next = min_int(place->end, row + border - at);
        if (queries) next = min_int(next, row - row % pattern->queries + pattern->queries);
        if (at < sequence.begin) continue;
        int64_t begin = at - sequence.begin, end = begin + next - row;
        for (int64_t level = 0; level < lengths.count; level++) {
            int64_t w = min_int(lengths.items[level], sequence.length);
            for (int64_t from = begin, to; from < end; from = to) {
                to = min_int(end, from - from % w + w);
                uncovered_strike(all, place, sequence, level, from, to,
                                 place->bare + (row - place->first) + (from - begin));
            }
        }
    }
}

static bool uncovered_take(struct uncovered *all, struct uncovered_place *place) {
    if (atomic_load_explicit(&all->next, memory_order_relaxed) >= all->chunks) return false;
    int64_t chunk = atomic_fetch_add(&all->next, 1), tensor = 0, chunks;
    if (chunk >= all->chunks) return false;
    while (chunk >= (chunks = uncovered_chunks(all, tensor))) {
        chunk -= chunks;
        tensor++;
    }
    int64_t rows = uncovered_rows(all, tensor), row_chunks = ceil_div(rows, UNCOVERED_ROWS);
    place->tensor = all->tensors[tensor];
    place->head = chunk / row_chunks * UNCOVERED_HEADS;
    place->heads = min_int(UNCOVERED_HEADS, place->tensor->shape[2] - place->head);
    place->first = place->row = chunk % row_chunks * UNCOVERED_ROWS;
    place->end = min_int(rows, place->first + UNCOVERED_ROWS);
    uncovered_look(all, place);
    return true;
}

/* Goes to the next run of the chunk; false when there is none. */
static bool uncovered_find(const struct uncovered *all, struct uncovered_place *place) {
    while (place->row < place->end && place->bare[place->row - place->first] == 0) place->row++;
    if (place->row == place->end) return false;
    const lnet_tensor *tensor = place->tensor;
    int64_t size = all->pattern->width * (int64_t)lnet_dtype_size(tensor->dtype);
    uint64_t *bare = &place->bare[place->row - place->first];
    int begin = __builtin_ctzll(*bare);
    uint64_t beyond = *bare + (UINT64_C(1) << begin); /* the run's bits carry to its end */
    int end = beyond == 0 ? UNCOVERED_HEADS : __builtin_ctzll(beyond);
    int64_t head = place->row * tensor->shape[2] + place->head;
    place->next = (char *)tensor->data + (head + begin) * size;
    place->last = (char *)tensor->data + (head + end) * size;
    *bare &= beyond;
    while (place->head + end == tensor->shape[2] && place->head == 0 &&
           place->row + 1 < place->end && (bare[1] & 1) != 0) { /* goes on in the next row */
        bare++;
        place->row++;
        beyond = *bare + 1;
        end = beyond == 0 ? UNCOVERED_HEADS : __builtin_ctzll(beyond);
        place->last += end * size;
        *bare &= beyond;
    }
    return true;
}

static __attribute__((noinline)) struct lines
uncovered_next(struct uncovered *all, struct uncovered_place *place, int64_t most) {
    while (place->next == place->last)
        if (!uncovered_find(all, place) && !uncovered_take(all, place)) return (struct lines){0};
    char *begin = place->next;
    int64_t bytes = min_int(most * LINE, place->last - begin);
    place->next += bytes;
    if (((uintptr_t)begin | (uintptr_t)bytes) % LINE == 0)
        return (struct lines){begin, bytes / LINE};
    memset(begin, 0, (size_t)bytes); /* they share lines with other rows */
    return (struct lines){0};
}

/* Cache lines to be cleared, beside the arithmetic on a block. */
static inline struct lines uncovered_lines(struct uncovered *all, struct uncovered_place *place,
                                           int64_t most) {
    return all->chunks > 0 ? uncovered_next(all, place, most) : (struct lines){0};
}

/* At the end of a task: no other thread has the chunk. */
static void uncovered_leave(const struct uncovered *all, struct uncovered_place *place) {
    do {
        stream_zeros(place->next, place->last - place->next);
        place->next = place->last;
    } while (uncovered_find(all, place));
    stream_end();
}

static lnet_status uncovered_rest(void *context, int64_t begin, int64_t end, int worker) {
    struct uncovered *all = context;
    struct uncovered_place place = {0};
    (void)worker;
    for (; begin < end && uncovered_take(all, &place); begin++) uncovered_leave(all, &place);
    return LNET_OK;
}

/* Turns that a parallel loop has after its units, for threads that find none left. */
static int64_t uncovered_turns(const struct uncovered *all, int64_t workers) {
    return min_int(workers, all->chunks / UNCOVERED_PER_GRAIN);
}

/* What they do until the others are done: the sparser a level, the fewer and the longer its units,
 * and the more of the threads' time is this. */
static void uncovered_meanwhile(struct uncovered *all, struct uncovered_place *place) {
    while (atomic_load(&all->units) > 0 && !lnet_parallel_ends() && uncovered_take(all, place))
        uncovered_leave(all, place);
}

/* When the arithmetic is done. */
static lnet_status uncovered_end(struct uncovered *all) {
    return lnet_parallel_for(all->chunks - atomic_load(&all->next), UNCOVERED_PER_GRAIN,
                             uncovered_rest, all);
}

#endif
