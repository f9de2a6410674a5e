/* Which rows see which: dilated attention cut into strips.
 *
 * A strip is the rows of one segment that take part on one level and head: J rows, `step` apart.
 * Inside it attention is ordinary, query j against all keys, or keys 0..j when causal. Rows are
 * counted through the whole batch, b * N + n; a sequence is a batch item, the part of it that
 * `lengths` leaves, or a document of `cu_seqlens`. Queries are rows like others; the tensors that
 * have a row for each query alone count them through the batch too, b * Nq + n - query_start. */
#ifndef LNET_CPU_ATTENTION_PATTERN_H
#define LNET_CPU_ATTENTION_PATTERN_H

#include "lnet/memory.h"
#include "ops/dilated_attention.h"

struct attention_pattern {
    const struct lnet_dilation *dilation;
    int64_t batch, rows, queries, heads, kv_heads, width; /* B, N, Nq, H, Hk, D */
    int64_t sequences;
    int32_t *offsets; /* (levels, H) s(h), where attention_pattern_offsets() was asked for it */
};

struct attention_sequence {
    int64_t batch_item;
    int64_t begin;  /* row of the batch */
    int64_t length; /* rows */
};

struct attention_strip {
    int64_t first;     /* row of the batch that its row 0 is */
    int64_t step;      /* r */
    int64_t count;     /* J */
    int64_t zero_keys; /* keys of zeros beside the J */
    int64_t start;     /* first row of the segment, counted from row 0 of the batch item */
    int64_t level;
    int64_t first_query; /* of the queries' rows the one that its row 0 is, or would be */
};

/* Some of a strip's rows, or of the batch's. */
struct attention_range {
    int64_t begin, end;
};

static inline int64_t ceil_div(int64_t a, int64_t b) {
    return a > 0 ? (a - 1) / b + 1 : 0;
}

static inline int64_t round_up(int64_t a, int64_t multiple) {
    return ceil_div(a, multiple) * multiple;
}

static inline int64_t min_int(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline int64_t max_int(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* q (B, Nq, H, D), k (B, N, Hk, D) */
static inline struct attention_pattern attention_pattern_of(const struct lnet_dilation *dilation,
                                                            const lnet_tensor *q,
                                                            const lnet_tensor *k) {
    return (struct attention_pattern){
        .dilation = dilation,
        .batch = q->shape[0],
        .rows = k->shape[1],
        .queries = q->shape[1],
        .heads = q->shape[2],
        .kv_heads = k->shape[2],
        .width = q->shape[3],
        .sequences =
            dilation->cu_seqlens != NULL ? dilation->cu_seqlens->shape[0] - 1 : q->shape[0],
    };
}

static inline struct attention_sequence
attention_sequence_at(const struct attention_pattern *pattern, int64_t index) {
    const struct lnet_dilation *dilation = pattern->dilation;
    if (dilation->cu_seqlens != NULL) {
        const int64_t *begin = dilation->cu_seqlens->data;
        return (struct attention_sequence){0, begin[index], begin[index + 1] - begin[index]};
    }
    const int64_t *lengths = dilation->lengths != NULL ? dilation->lengths->data : NULL;
    return (struct attention_sequence){index, index * pattern->rows,
                                       lengths != NULL ? lengths[index] : pattern->rows};
}

/* The first sequence that ends after `row`, or the number of sequences. */
static inline int64_t attention_sequence_after(const struct attention_pattern *pattern,
                                               int64_t row) {
    int64_t low = 0, high = pattern->sequences;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        struct attention_sequence sequence = attention_sequence_at(pattern, middle);
        if (sequence.begin + sequence.length > row)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static inline int64_t longest_sequence(const struct attention_pattern *pattern) {
    int64_t longest = 0;
    for (int64_t i = 0; i < pattern->sequences; i++)
        longest = max_int(longest, attention_sequence_at(pattern, i).length);
    return longest;
}

/* The rows of segment `segment` that take part on a level; a segment may have none. */
static inline struct attention_strip attention_strip_of(const struct attention_pattern *pattern,
                                                        struct attention_sequence sequence,
                                                        int64_t level, int64_t segment,
                                                        int64_t head) {
    const struct lnet_dilation *dilation = pattern->dilation;
    int64_t w = min_int(dilation->segment_lengths.items[level], sequence.length);
    int64_t r = dilation->dilation_rates.items[level];
    int64_t s = lnet_head_offset(dilation->offsets, head, pattern->heads, r);
    int64_t begin = sequence.begin + segment * w;
    int64_t real = min_int(w, sequence.length - segment * w);
    int64_t count = ceil_div(real - s, r);
    int64_t start = begin - sequence.batch_item * pattern->rows;
    return (struct attention_strip){
        .first = begin + s,
        .step = min_int(r, w), /* a longer step has one row at most: keep products small */
        .count = count,
        .zero_keys = dilation->zero_keys && !dilation->causal ? ceil_div(w, r) - count : 0,
        .start = start,
        .level = level,
        .first_query = sequence.batch_item * pattern->queries + start + s - dilation->query_start,
    };
}

/* The rows of a batch item that are queries. */
static inline struct attention_range attention_queries(const struct attention_pattern *pattern,
                                                       int64_t batch_item) {
    int64_t begin = batch_item * pattern->rows + pattern->dilation->query_start;
    return (struct attention_range){begin, begin + pattern->queries};
}

/* How many rows before `row` are queries. */
static inline int64_t attention_queries_before(const struct attention_pattern *pattern,
                                               int64_t row) {
    int64_t batch_item = pattern->rows > 0 ? row / pattern->rows : 0;
    int64_t begin = attention_queries(pattern, batch_item).begin;
    return batch_item * pattern->queries + min_int(max_int(0, row - begin), pattern->queries);
}

/* The row that one of the queries' rows is. */
static inline int64_t attention_row_of_query(const struct attention_pattern *pattern,
                                             int64_t query) {
    int64_t batch_item = query / pattern->queries;
    return attention_queries(pattern, batch_item).begin + query % pattern->queries;
}

/* The rows of a strip that are queries; none: begin == end. */
static inline struct attention_range
attention_strip_queries(const struct attention_pattern *pattern,
                        const struct attention_strip *strip, int64_t batch_item) {
    struct attention_range rows = attention_queries(pattern, batch_item);
    int64_t end = min_int(strip->count, ceil_div(rows.end - strip->first, strip->step));
    return (struct attention_range){min_int(end, ceil_div(rows.begin - strip->first, strip->step)),
                                    end};
}

/* For attention_row_covers(); to be freed. */
static inline lnet_status attention_pattern_offsets(struct attention_pattern *pattern) {
    const struct lnet_dilation *dilation = pattern->dilation;
    const lnet_int64_list r = dilation->dilation_rates;
    lnet_status status;
    LNET_TRY(lnet_alloc((void **)&pattern->offsets,
                        r.count * pattern->heads * (int64_t)sizeof *pattern->offsets));
    for (int64_t level = 0; level < r.count; level++)
        for (int64_t head = 0; head < pattern->heads; head++)
            pattern->offsets[level * pattern->heads + head] =
                (int32_t)lnet_head_offset(dilation->offsets, head, pattern->heads, r.items[level]);
fail:
    return status;
}

/* One row of the batch, and the offset s that heads must have to take part there on a level; -1
 * where no query sees the row. */
struct attention_row {
    struct attention_sequence sequence; /* that it lies in, or an earlier row lay in */
    int64_t residues[LNET_MAX_LEVELS];
};

/* Whether any query sees the row, which is no query itself, on a level where heads with its offset
 * take part; `place` is its place in the sequence. */
static inline bool attention_row_seen(const struct attention_pattern *pattern,
                                      struct attention_sequence sequence, int64_t level,
                                      int64_t place) {
    const struct lnet_dilation *dilation = pattern->dilation;
    struct attention_range queries = attention_queries(pattern, sequence.batch_item);
    int64_t w = min_int(dilation->segment_lengths.items[level], sequence.length);
    int64_t step = min_int(dilation->dilation_rates.items[level], w);
    int64_t row = sequence.begin + place, segment = sequence.begin + place / w * w;
    int64_t begin = max_int(queries.begin, dilation->causal ? row : segment);
    int64_t end = min_int(queries.end, min_int(segment + w, sequence.begin + sequence.length));
    int64_t first = begin > row ? row + round_up(begin - row, step)
                                : row - (row - begin) / step * step; /* at or after `begin` */
    return first < end;
}

static inline void attention_row_set(struct attention_row *at,
                                     const struct attention_pattern *pattern, int64_t row) {
    const struct lnet_dilation *dilation = pattern->dilation;
    if (row < at->sequence.begin || row >= at->sequence.begin + at->sequence.length) {
        int64_t i = attention_sequence_after(pattern, row);
        at->sequence = (struct attention_sequence){0};
        if (i < pattern->sequences) at->sequence = attention_sequence_at(pattern, i);
    }
    int64_t place = row - at->sequence.begin;
    struct attention_range queries = attention_queries(pattern, at->sequence.batch_item);
    bool query = row >= queries.begin && row < queries.end;
    for (int64_t level = 0; level < dilation->segment_lengths.count; level++) {
        int64_t w = min_int(dilation->segment_lengths.items[level], at->sequence.length);
        bool seen = place >= 0 && place < at->sequence.length &&
                    (query || attention_row_seen(pattern, at->sequence, level, place));
        at->residues[level] = seen ? place % w % dilation->dilation_rates.items[level] : -1;
    }
}

/* Whether any of the heads [head, end) takes part at the row on any of the first `levels`, and is
 * seen there. */
static inline bool attention_row_covers(const struct attention_row *at,
                                        const struct attention_pattern *pattern, int64_t levels,
                                        int64_t head, int64_t end) {
    for (int64_t level = 0; level < levels; level++)
        for (int64_t h = head; h < end; h++)
            if (pattern->offsets[level * pattern->heads + h] == at->residues[level]) return true;
    return false;
}

#endif
