/* Dilated attention cut into items of work: which rows and keys each one takes, in what order.
 *
 * An item is a tile of consecutive rows of one strip: the rows of one segment that take part on one
 * level and head, `rate` apart. Items of several levels add to the same rows, so they have an
 * order: a group is some heads over rows that no segment leaves, and either (skew 0) groups come
 * one after another, each level after level, or (skew 1) step by step,
 *
 *     step t = ..., level 2 of group t - 2, level 1 of group t - 1, level 0 of group t
 *
 * so that a level's items come a whole step after those that they wait for, and nobody waits. Sums
 * that wait for another level rest in a slot of scratch, which a later group takes over. Items are
 * taken in order and wait only for earlier ones: no deadlock on any number of multiprocessors; and
 * sums are added in the order of the levels: the same bits every time.
 *
 * Queries may be a range of the rows that keys have. Items of queries are made of that range alone;
 * items of keys, of all rows, look at the range's queries.
 *
 * Plain arithmetic for host and device; rows are less than 2^31. */
#ifndef LNET_DILATED_ATTENTION_SM80_ITEMS_CUH
#define LNET_DILATED_ATTENTION_SM80_ITEMS_CUH

#include <stdint.h>

#ifdef __CUDACC__
#    define LNET_HOST_DEVICE __host__ __device__
#else
#    define LNET_HOST_DEVICE
#endif

namespace dilated_sm80 {

enum { MAX_LEVELS = 64 };

struct level {
    uint32_t segment; /* w */
    uint32_t rate;    /* r */
    uint32_t share;   /* heads to an offset, ceil(H / r), with grouped offsets */
    uint32_t tiles;   /* of a segment's strip, at most */
    int64_t segments; /* of a group, at most */
    int64_t first;    /* items of a group on earlier levels */
};

struct plan {
    int32_t level_count;
    int32_t documents; /* S, 0 without cu_seqlens */
    uint32_t batch, rows, heads, kv_heads, width;
    uint32_t first_query, queries; /* of the rows, those that q has */
    uint32_t first_own, own_rows;  /* of the rows, those that items are made of: q's or all */
    bool grouped_offsets, causal, zero_keys;
    bool share_keys;               /* an item is for all heads of a kv head with one offset */
    uint32_t tile_rows;            /* of an item */
    uint32_t group_rows;           /* of a group; a batch item's groups begin at multiples of it */
    uint32_t first_piece, pieces;  /* groups over the items' rows: the first, and how many */
    uint32_t group_heads, head_groups;
    int64_t groups;
    int32_t skew, slots;
    uint32_t row_spacing; /* rows whose sums rest lie so far apart, on any head */
    uint32_t slot_rows;   /* of scratch, for the sums of a group on a head */
    int64_t group_items;           /* of a group, all levels */
    const int64_t *lengths;        /* (B,) or NULL */
    const int64_t *cu_seqlens;     /* (S+1,) or NULL */
    const int64_t *document_tiles; /* (levels, S+1) tiles of a head before each document */
    level levels[MAX_LEVELS];
};

struct item {
    int32_t level;
    int64_t group;
    uint32_t slot; /* of scratch, that the group has */
    uint32_t batch, head;
    uint32_t group_row;  /* first row of the group with items, as `first_row` */
    uint32_t group_head; /* first head of the group */
    uint32_t sequence_row, sequence_rows; /* of the batch item; how many rows */
    uint32_t first_row; /* of the batch item: the strip's row 0; further ones are `rate` apart */
    uint32_t start;     /* of the batch item: the segment's first row */
    uint32_t begin, end; /* of the strip: the item's rows; an end of 0: nothing to do */
    uint32_t first_column, end_column; /* of the strip: the rows that they have to do with */
    uint32_t zero_keys;                /* beside the strip's keys */
};

LNET_HOST_DEVICE inline int64_t ceil_div(int64_t a, int64_t b) {
    return a > 0 ? (a - 1) / b + 1 : 0;
}

LNET_HOST_DEVICE inline uint32_t ceil_div32(uint32_t a, uint32_t b) {
    return a > 0 ? (a - 1) / b + 1 : 0;
}

LNET_HOST_DEVICE inline uint32_t min32(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

/* 64-bit division costs a GPU a hundred instructions. */
LNET_HOST_DEVICE inline int64_t divide(int64_t a, int64_t b) {
    if (((a | b) >> 32) == 0)
        return static_cast<int64_t>(static_cast<uint32_t>(a) / static_cast<uint32_t>(b));
    return a / b;
}

/* s(h) */
LNET_HOST_DEVICE inline uint32_t offset_of(const plan &p, const level &l, uint32_t head) {
    return p.grouped_offsets ? head / l.share : head % l.rate;
}

/* Whether a level takes the row at `position` of its sequence for any of `count` heads from
 * `head` on. */
LNET_HOST_DEVICE inline bool covers(const plan &p, const level &l, uint32_t position, uint32_t head,
                                    uint32_t count) {
    uint32_t phase = position % l.segment % l.rate;
    if (p.grouped_offsets)
        return phase >= head / l.share && phase <= (head + count - 1) / l.share;
    uint32_t first = head % l.rate, ahead = phase >= first ? phase - first : phase + l.rate - first;
    return ahead < count;
}

/* Whether any level in [begin, end) does. */
LNET_HOST_DEVICE inline bool covered(const plan &p, int begin, int end, uint32_t position,
                                     uint32_t head, uint32_t count) {
    for (int i = begin; i < end; i++)
        if (covers(p, p.levels[i], position, head, count)) return true;
    return false;
}

/* Values that the CPU would refuse are brought within bounds; fill_rows() makes the results NaN. */
LNET_HOST_DEVICE inline uint32_t bounded(int64_t row, uint32_t low, uint32_t high) {
    return row < low ? low : row > high ? high : static_cast<uint32_t>(row);
}

LNET_HOST_DEVICE inline uint32_t length_of(const plan &p, uint32_t batch) {
    return p.lengths != nullptr ? bounded(p.lengths[batch], 0, p.rows) : p.rows;
}

LNET_HOST_DEVICE inline uint32_t document_begin(const plan &p, int64_t document) {
    return bounded(p.cu_seqlens[document], 0, p.rows);
}

LNET_HOST_DEVICE inline uint32_t document_rows(const plan &p, int64_t document) {
    uint32_t begin = document_begin(p, document);
    return bounded(p.cu_seqlens[document + 1], begin, p.rows) - begin;
}

/* The first row of a sequence that items are made of. */
LNET_HOST_DEVICE inline uint32_t own_begin(const plan &p, uint32_t sequence_row) {
    return p.first_own > sequence_row ? p.first_own - sequence_row : 0;
}

/* Tiles of a document on a level, counted for the head with the most rows. All segments but the
 * last have room for `l.tiles`. */
LNET_HOST_DEVICE inline int64_t tiles_of_document(const plan &p, const level &l, uint32_t row,
                                                  uint32_t rows) {
    const uint32_t stop = p.first_own + p.own_rows, begin = own_begin(p, row);
    const uint32_t end = stop > row ? min32(rows, stop - row) : 0;
    if (begin >= end) return 0;
    const uint32_t first = begin / l.segment, last = (end - 1) / l.segment;
    const uint32_t left = end - (last > first ? last * l.segment : begin);
    return static_cast<int64_t>(last - first) * l.tiles +
           ceil_div32(ceil_div32(left, l.rate), p.tile_rows);
}

/* Tiles of a level that a group has room for, for one head. */
LNET_HOST_DEVICE inline int64_t head_items(const plan &p, const level &l) {
    if (p.documents == 0) return l.segments * l.tiles;
    /* the device alone knows the documents: each may leave a segment and a tile unfilled, and of
     * one the first segment may begin before the rows */
    int64_t rows = int64_t{2} * p.own_rows;
    if (rows > p.rows) rows = p.rows;
    return ceil_div(rows, static_cast<int64_t>(l.rate) * p.tile_rows) +
           2 * (ceil_div(rows, l.segment) + p.documents);
}

LNET_HOST_DEVICE inline int64_t level_items(const plan &p, int i) {
    return (i + 1 < p.level_count ? p.levels[i + 1].first : p.group_items) - p.levels[i].first;
}

/* The last of the places [0, count) whose `before` is at most `tile`. */
LNET_HOST_DEVICE inline int32_t document_of(const int64_t *before, int32_t count, int64_t tile) {
    int32_t low = 0, high = count - 1;
    while (low < high) {
        int32_t middle = low + (high - low + 1) / 2;
        if (before[middle] <= tile)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* The step and the place in it of an item. False past the last one. */
LNET_HOST_DEVICE inline bool place_of(const plan &p, int64_t index, int64_t *group, int32_t *level,
                                      int64_t *place) {
    int64_t late = static_cast<int64_t>(p.skew) * (p.level_count - 1);
    int64_t steps = p.groups + late, step = 0;
    for (; step < steps; step++) {
        if (step >= late && step < p.groups) { /* steps with all levels: past them at once */
            int64_t whole = divide(index, p.group_items);
            whole = whole < p.groups - step ? whole : p.groups - step;
            step += whole;
            index -= whole * p.group_items;
            if (step == steps) return false;
        }
        for (int32_t n = 0; n < p.level_count; n++) {
            int32_t i = p.skew ? p.level_count - 1 - n : n;
            int64_t g = step - static_cast<int64_t>(p.skew) * i, items = level_items(p, i);
            if (g < 0 || g >= p.groups) continue;
            if (index < items) {
                *group = g;
                *level = i;
                *place = index;
                return true;
            }
            index -= items;
        }
    }
    return false;
}

/* Whether an earlier head of the kv head has the same rows: its item serves both. */
LNET_HOST_DEVICE inline bool is_repeated(const plan &p, const level &l, uint32_t head) {
    uint32_t members = p.heads / p.kv_heads, first = head / members * members;
    for (uint32_t other = first; other < head; other++)
        if (offset_of(p, l, other) == offset_of(p, l, head)) return true;
    return false;
}

/* How many of a strip's `count` rows lie before `row`. */
LNET_HOST_DEVICE inline uint32_t strip_rows_before(const level &l, uint32_t first_row,
                                                   uint32_t count, uint32_t row) {
    if (row <= first_row) return 0;
    if (row - first_row > (count - 1) * l.rate) return count;
    return ceil_div32(row - first_row, l.rate);
}

/* Item number `index` of all; false past the last one. */
LNET_HOST_DEVICE inline bool item_at(const plan &p, int64_t index, item *out) {
    int64_t place;
    if (!place_of(p, index, &out->group, &out->level, &place)) return false;
    const level &l = p.levels[out->level];
    int64_t per_head = head_items(p, l), rest = out->group;
    int64_t head = divide(place, per_head), tile = place - head * per_head;
    out->begin = out->end = 0;
    out->slot = static_cast<uint32_t>(rest - divide(rest, p.slots) * p.slots);
    rest = divide(rest, p.head_groups);
    out->group_head = static_cast<uint32_t>(out->group - rest * p.head_groups) * p.group_heads;
    uint32_t piece = static_cast<uint32_t>(rest - divide(rest, p.pieces) * p.pieces);
    out->batch = static_cast<uint32_t>(divide(rest, p.pieces));
    out->group_row = (p.first_piece + piece) * p.group_rows;
    if (out->group_row < p.first_own) out->group_row = p.first_own;
    out->head = out->group_head + static_cast<uint32_t>(head);
    if (out->head >= p.heads) return true;
    if (p.share_keys && is_repeated(p, l, out->head)) return true;
    int64_t segment;
    if (p.documents > 0) {
        const int64_t *before = p.document_tiles + out->level * (p.documents + int64_t{1});
        if (tile >= before[p.documents]) return true;
        int32_t document = document_of(before, p.documents, tile);
        tile -= before[document];
        out->sequence_row = document_begin(p, document);
        out->sequence_rows = document_rows(p, document);
        segment = divide(tile, l.tiles);
        tile -= segment * l.tiles;
        segment += own_begin(p, out->sequence_row) / l.segment;
    } else {
        out->sequence_row = 0;
        out->sequence_rows = length_of(p, out->batch);
        segment = divide(tile, l.tiles);
        tile -= segment * l.tiles;
        segment += out->group_row / l.segment;
    }
    const int64_t start = segment * l.segment;
    const int64_t group_end = int64_t{p.first_piece + piece + 1} * p.group_rows;
    if (start >= out->sequence_rows || start >= group_end) return true;
    uint32_t left = out->sequence_rows - static_cast<uint32_t>(start);
    uint32_t real = min32(l.segment, left), offset = offset_of(p, l, out->head);
    uint32_t count = offset < real ? ceil_div32(real - offset, l.rate) : 0;
    if (count == 0) return true;
    out->start = out->sequence_row + static_cast<uint32_t>(start);
    out->first_row = out->start + offset;
    const uint32_t queries_end = p.first_query + p.queries;
    const uint32_t first = strip_rows_before(l, out->first_row, count, p.first_query);
    const uint32_t stop = strip_rows_before(l, out->first_row, count, queries_end);
    const uint32_t own = p.share_keys ? 0 : first, own_end = p.share_keys ? count : stop;
    const uint32_t tiles = ceil_div32(own_end - own, p.tile_rows);
    if (tile >= tiles) return true;
    /* causal: those that see the most come first, the last queries or the first keys */
    uint32_t t = static_cast<uint32_t>(tile);
    if (p.causal && !p.share_keys) t = tiles - 1 - t;
    out->begin = own + t * p.tile_rows;
    out->end = min32(out->begin + p.tile_rows, own_end);
    if (p.share_keys) {
        out->first_column = p.causal && out->begin > first ? out->begin : first;
        out->end_column = stop;
    } else {
        out->first_column = 0;
        out->end_column = p.causal ? out->end : count;
    }
    uint32_t padded = ceil_div32(min32(l.segment, out->sequence_rows), l.rate);
    out->zero_keys = p.zero_keys && !p.causal ? padded - count : 0;
    return true;
}

/* What an item waits for before it touches sums: `count` finished items of (group, level). */
struct dependence {
    int64_t group;
    int32_t level;
    int64_t count; /* 0: of nothing */
};

LNET_HOST_DEVICE inline dependence dependence_of(const plan &p, const item &it) {
    if (it.level > 0) return {it.group, it.level - 1, level_items(p, it.level - 1)};
    if (it.group < p.slots) return {0, 0, 0};
    return {it.group - p.slots, p.level_count - 1, level_items(p, p.level_count - 1)};
}

/* Rows that lie so far apart that one row of scratch serves `row_spacing` rows of a group: those
 * that two levels take are taken by a level other than the densest, and those levels' rows are
 * among the rows of the densest one of them where its rate divides their rates and segments. */
LNET_HOST_DEVICE inline uint32_t row_spacing_of(const plan &p) {
    uint32_t least = UINT32_MAX, second = UINT32_MAX; /* rates; `second` may be the same */
    if (p.level_count < 2 || p.grouped_offsets || p.documents > 0) return 1;
    if (p.share_keys && p.heads != p.kv_heads) return 1;
    int densest = 0;
    for (int i = 0; i < p.level_count; i++)
        if (p.levels[i].rate < least) {
            least = p.levels[i].rate;
            densest = i;
        }
    for (int i = 0; i < p.level_count; i++)
        if (i != densest) second = min32(second, p.levels[i].rate);
    for (int i = 0; i < p.level_count; i++) {
        const level &l = p.levels[i];
        if (i == densest) continue;
        if (l.rate % second != 0 || (l.segment < p.rows && l.segment % second != 0)) return 1;
    }
    return second;
}

} // namespace dilated_sm80

#endif
