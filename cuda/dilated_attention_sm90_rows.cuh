/* Which rows take part: sequences, segments and the runs that an item's range holds. */
#ifndef LNET_DILATED_ATTENTION_SM90_ROWS_CUH
#define LNET_DILATED_ATTENTION_SM90_ROWS_CUH

#include "cuda/dilated_attention_sm90_forward.cuh"

namespace dilated_sm90 {

__device__ __forceinline__ uint32_t quotient(uint32_t n, const divisor &d) {
    return static_cast<uint32_t>(static_cast<uint64_t>(n) * d.multiplier >> d.shift);
}
__device__ __forceinline__ uint32_t remainder(uint32_t n, const divisor &d) {
    return n - quotient(n, d) * d.value;
}

struct item {
    int group, level, batch, head, head_of_group;
    int group_begin, begin, end; /* rows begin .. end of the batch item */
    int chunk;                   /* backward: the group's chunk-th range on the level */
};

/* Which rows and heads a group is. */
struct group_place {
    int batch, head, begin, rows;
};

__device__ __forceinline__ group_place group_at(const problem &p, int group) {
    const int rest = group / p.head_groups;
    group_place g;
    g.head = group % p.head_groups * p.group_heads;
    g.batch = rest / p.row_groups;
    g.begin = rest % p.row_groups * p.group_rows;
    g.rows = min(p.group_rows, p.rows - g.begin);
    return g;
}

/* A document, or what exists of a batch item: rows `begin` .. `end` of it. */
struct sequence {
    int begin, end;
};

__device__ __forceinline__ int head_offset(const problem &p, int head, const level &l) {
    if (p.offsets_grouped) return head / ((p.heads + (uint32_t)l.rate - 1) / (uint32_t)l.rate);
    return l.step.value == l.rate ? remainder(head, l.step) : head % l.rate;
}

/* Inside the batch item whatever the numbers are. */
__device__ __forceinline__ sequence sequence_at(const problem &p, int batch, int document) {
    int64_t begin = 0, end = p.rows;
    if (p.documents) {
        begin = document < p.documents ? p.cu_seqlens[document] : p.rows;
        end = document < p.documents ? p.cu_seqlens[document + 1] : p.rows;
    } else if (p.lengths) {
        end = p.lengths[batch];
    }
    sequence q;
    q.begin = static_cast<int>(max(int64_t{0}, min(begin, static_cast<int64_t>(p.rows))));
    q.end = static_cast<int>(max(static_cast<int64_t>(q.begin), min(end, static_cast<int64_t>(p.rows))));
    return q;
}

/* The offset of the heads of which a row takes part on a level. */
__device__ __forceinline__ int row_offset(const level &l, const sequence &q, int row) {
    uint32_t at = row - q.begin;
    if (!l.nested && q.end - q.begin > l.segment.value) at = remainder(at, l.segment);
    return remainder(at, l.step);
}

__device__ __forceinline__ bool takes_part(const level &l, int s, const sequence &q, int row) {
    return row_offset(l, q, row) == s;
}

/* The number of the first document that ends after `row`. */
__device__ __forceinline__ int document_at(const problem &p, int row) {
    int low = 0, high = p.documents;
    while (low < high) {
        int middle = (low + high) / 2;
        if (p.cu_seqlens[middle + 1] > row)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The rows of an item that take part within one segment. */
struct run {
    int row;       /* the first, in the batch item */
    int count;     /* rows */
    int first;     /* the first row as key number of its segment */
    int keys;      /* keys of the segment */
    int zero_keys; /* keys of zeros */
    int key_row;   /* row of the batch item that is key 0 */
};

/* Calls f(run, sequence) for the runs of an item, in order. */
template <typename F>
__device__ __forceinline__ void for_each_run(const problem &p, const item &x, F f) {
    const level &l = p.levels[x.level];
    const int s = head_offset(p, x.head, l), step = l.step.value;
    int document = p.documents ? document_at(p, x.begin) : 0;
    for (int begin = x.begin; begin < x.end;) {
        const sequence q = sequence_at(p, x.batch, document++);
        const int end = min(x.end, q.end);
        begin = max(begin, q.begin);
        const int width = min(static_cast<int>(l.segment.value), q.end - q.begin);
        for (int row = begin; row < end;) {
            int segment = q.begin;
            if (width == l.segment.value) segment += quotient(row - q.begin, l.segment) * width;
            const int segment_end = min(segment + width, q.end), stop = min(end, segment_end);
            const int zero = segment + s; /* key 0 */
            const int first = row > zero ? quotient(row - zero + step - 1, l.step) : 0;
            const int64_t start = zero + static_cast<int64_t>(first) * step;
            if (start < stop) {
                run r;
                r.row = static_cast<int>(start);
                r.count = quotient(stop - r.row - 1, l.step) + 1;
                r.first = first;
                r.keys = quotient(segment_end - zero - 1, l.step) + 1;
                r.zero_keys = p.zero_keys && !p.causal
                                  ? static_cast<int>(quotient(width - 1, l.step)) + 1 - r.keys
                                  : 0;
                r.key_row = zero;
                f(r, q);
            }
            row = stop;
        }
        if (!p.documents) break;
        begin = max(begin, end);
    }
}

} // namespace dilated_sm90

#endif
