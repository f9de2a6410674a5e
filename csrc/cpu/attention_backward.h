/* Backward attention of a block of keys against a block of queries of one strip.
 *
 * For a tile of keys (its transpose and that of its values stay in the L2 cache) the tiles of
 * queries pass by; dK and dV leave when the last one has, dQ with each. All is taken in an order
 * that the blocks alone fix. */
#ifndef LNET_CPU_ATTENTION_BACKWARD_H
#define LNET_CPU_ATTENTION_BACKWARD_H

#include "cpu/attention_backward_tile.h"

/* Where the gradients of a strip's rows are added up. */
static struct strided_rows gradient_rows_of(const struct backward_unit *unit,
                                            struct gradient_rows rows, int64_t head) {
    int64_t width = unit->job->pattern.width;
    const struct attention_strip *strip = unit->strip;
    int64_t row = rows.queries ? strip->first_query - unit->job->first_query
                               : strip->first - unit->job->first_row;
    return (struct strided_rows){rows.data, LNET_FLOAT32, row * rows.step + head * width,
                                 strip->step * rows.step, width};
}

/* Whether an earlier strip has begun the sums of a row that the heads [head, end) add to. */
static bool row_begun(const struct backward_unit *unit, int64_t row, int64_t head, int64_t end) {
    const struct attention_pattern *pattern = &unit->job->pattern;
    struct attention_row at;
    if (unit->strip->level == 0 && head == unit->head) return false;
    at.sequence = unit->sequence;
    attention_row_set(&at, pattern, row);
    return attention_row_covers(&at, pattern, unit->strip->level, head, end) ||
           attention_row_covers(&at, pattern, unit->strip->level + 1, head, unit->head);
}

/* Gradients of rows [begin, begin + count) of the strip += factor * from (count, stride), where
 * `group` heads add to the same rows. `first`: on this level these have added nothing yet. */
static void add_rows(const struct backward_unit *unit, struct gradient_rows gradients,
                     int64_t group, int64_t begin, int64_t count, const float *from, float factor,
                     bool first) {
    const struct backward *job = unit->job;
    const struct attention_strip *strip = unit->strip;
    int64_t head = unit->head / group, heads = job->pattern.heads / job->pattern.kv_heads / group;
    struct strided_rows rows = gradient_rows_of(unit, gradients, head - job->first_kv_head * heads);
    int64_t row_bytes = rows.width * (int64_t)sizeof(float);
    for (int64_t i = begin; i < begin + count; i++, from += unit->stride) {
        float *to = (float *)rows.data + rows.first + i * rows.step;
        bool begun = !first || row_begun(unit, strip->first + i * strip->step, head * group,
                                         head * group + group);
        if (!begun && unit->last && ((uintptr_t)to | (uintptr_t)row_bytes) % LINE == 0)
            for (int64_t d = 0; d < rows.width; d += VLEN)
                vec_stream(to + d, factor * vec_load(from + d)); /* whole lines: none is read */
        else if (!begun)
            for (int64_t d = 0; d < rows.width; d++) to[d] = factor * from[d];
        else
            for (int64_t d = 0; d < rows.width; d++) to[d] += factor * from[d];
    }
}

/* Where the strip's row 0 is in (B, H, Nq), or would be; further rows are strip->step apart. */
static int64_t statistic_of(const struct backward_unit *unit) {
    const struct attention_pattern *pattern = &unit->job->pattern;
    int64_t batch_item = unit->sequence.batch_item;
    return (batch_item * (pattern->heads - 1) + unit->head) * pattern->queries +
           unit->strip->first_query;
}

/* Keys [key, key + count) of the strip, their values, and zeros for their gradients. */
static void begin_keys(struct backward_unit *unit, int64_t key, int64_t count) {
    const struct lnet_dilated_attention_backward_args *args = unit->job->args;
    int64_t width = unit->job->pattern.width, stride = unit->stride;
    int64_t padded = round_up(count, LANES);
    struct strided_rows values = strip_rows(args->v, unit->strip, unit->kv_head);
    pack_rows(unit->k, stride, strip_rows(args->k, unit->strip, unit->kv_head), key, count, 1);
    pad_rows(unit->k, stride, count, padded);
    for (int64_t i = 0; i < padded; i += LANES) {
        transpose(unit->kt + i * width, LANES, unit->k + i * stride, stride, LANES, width);
        pack_rows(unit->rows, stride, values, key + i, min_int(LANES, count - i), 1);
        pad_rows(unit->rows, stride, min_int(LANES, count - i), LANES);
        transpose(unit->vt + i * width, LANES, unit->rows, stride, LANES, width);
    }
    memset(unit->dkt, 0, (size_t)(padded * width) * sizeof(float));
    memset(unit->dvt, 0, (size_t)(padded * width) * sizeof(float));
}

static void end_keys(struct backward_unit *unit, int64_t key, int64_t count) {
    const struct backward *job = unit->job;
    int64_t width = job->pattern.width, stride = unit->stride;
    int64_t group = job->pattern.heads / job->pattern.kv_heads;
    bool first = unit->first_keys;
    for (int64_t i = 0; i < count; i += LANES) {
        int64_t lanes = min_int(LANES, count - i);
        transpose(unit->rows, stride, unit->dkt + i * width, LANES, width, LANES);
        /* Q was packed times log2 e */
        add_rows(unit, job->dk, group, key + i, lanes, unit->rows, LN2, first);
        transpose(unit->rows, stride, unit->dvt + i * width, LANES, width, LANES);
        add_rows(unit, job->dv, group, key + i, lanes, unit->rows, 1, first);
    }
}

/* What delta must be for a query: `at` is its place in (B, H, Nq). */
static float delta_at(const struct backward_unit *unit, int64_t at, float lse) {
    const struct backward *job = unit->job;
    if (!job->pattern.dilation->detached) return job->delta[at];
    float zeros = unit->strip->zero_keys > 0 ? (float)unit->strip->zero_keys * exp2f(-lse) : 0;
    float weight = job->weight[at] + zeros;
    return weight == 0 ? 0 : job->delta[at] / weight; /* all of the level's P are 0 */
}

/* delta = rowsum(dO * O) of the tile's queries, whose dO is packed. */
static void sum_deltas(const struct backward_unit *unit, int64_t query, int64_t count) {
    int64_t stride = unit->stride, at = statistic_of(unit) + query * unit->strip->step;
    struct strided_rows out = query_rows(unit->job->args->out, unit->strip, unit->head);
    for (int64_t i = 0; i < count; i++, at += unit->strip->step) {
        vec sum = {0};
        pack_rows(unit->rows, stride, out, query + i, 1, 1);
        for (int64_t d = 0; d < stride; d += VLEN)
            sum += vec_load(unit->rows + d) * vec_load(unit->tile.dout + i * stride + d);
        unit->job->delta[at] = vec_sum(sum);
    }
}

/* Packs the tile's queries [query, query + count) when they meet the first keys of the pair. */
static void begin_queries(struct backward_unit *unit, int64_t query, int64_t count) {
    const struct backward *job = unit->job;
    const struct backward_queries *tile = &unit->tile;
    const float *lse = job->args->lse->data;
    int64_t stride = unit->stride, padded = round_up(count, BLOCK), at = statistic_of(unit);
    pack_rows(tile->q, stride, query_rows(job->args->q, unit->strip, unit->head), query, count,
              (float)job->pattern.dilation->scale * LOG2E);
    pack_rows(tile->dout, stride, query_rows(job->args->dout, unit->strip, unit->head), query,
              count, 1);
    if (unit->first_queries && !job->pattern.dilation->detached) sum_deltas(unit, query, count);
    pad_rows(tile->q, stride, count, padded);
    pad_rows(tile->dout, stride, count, padded);
    at += query * unit->strip->step;
    for (int64_t i = 0; i < padded; i++, at += unit->strip->step) {
        bool sees = i < count && lse[at] != -INFINITY;
        tile->lse[i] = sees ? lse[at] * LOG2E : INFINITY;
        tile->delta[i] = sees && job->pass == GRADIENT_PASS ? delta_at(unit, at, tile->lse[i]) : 0;
    }
    if (job->pass == GRADIENT_PASS) memset(tile->dq, 0, (size_t)(padded * stride) * sizeof(float));
}

/* The row sums of the tile's queries, added to those of the level. */
static void end_sums(struct backward_unit *unit, int64_t query, int64_t count) {
    int64_t at = statistic_of(unit) + query * unit->strip->step;
    for (int64_t i = 0; i < count; i++, at += unit->strip->step) {
        unit->job->delta[at] += vec_sum(vec_load(unit->sums + i * VLEN));
        unit->job->weight[at] += vec_sum(vec_load(unit->sums + (QUERY_TILE + i) * VLEN));
    }
}

/* One panel of keys: P, and of it dV, dS and dK, or the row sums. `plain`: nothing that is not
 * finite meets a 0 of a pair that must not see each other. */
static void show_panel(struct backward_unit *unit, struct backward_tile *tile, bool plain) {
    const struct backward *job = unit->job;
    const struct lnet_dilation *dilation = job->pattern.dilation;
    int64_t vecs = ceil_div(tile->keys, VLEN), from = tile->from[tile->slot];
    int64_t offset = tile->panel * job->pattern.width * LANES;
    const float *p = unit->p + tile->slot * QUERY_TILE * LANES;
    probabilities_of(vecs, unit, tile);
    tile->kept = p;
    if (dilation->dropout > 0) {
        struct attention_dropout dropout = dropout_of(
            dilation, unit->strip, unit->sequence.batch_item * job->pattern.heads + unit->head);
        dropout_factors(unit->factors + from * LANES, LANES, 1, &dropout, tile->first_query + from,
                        tile->queries - from, tile->first_key, tile->keys);
        for (int64_t i = from * LANES; i < tile->queries * LANES; i++)
            unit->kept[i] = p[i] * unit->factors[i];
        tile->kept = unit->kept;
    }
    if (job->pass == DELTA_PASS) {
        sum_rows_of(vecs, unit, tile);
        return;
    }
    struct backward_sum dv = {unit->dvt + offset, unit->tile.dout + from * unit->stride,
                              tile->kept + from * LANES, tile->queries - from};
    struct backward_sum dk = {unit->dkt + offset, unit->tile.q + from * unit->stride,
                              p + from * LANES, tile->queries - from};
    if (plain) {
        add_transposed_of(vecs, unit, &dv);
        score_gradients_of(vecs, unit, tile);
        add_transposed_of(vecs, unit, &dk);
    } else {
        add_transposed_seen(unit, tile, &dv);
        score_gradients_of(vecs, unit, tile);
        add_transposed_seen(unit, tile, &dk);
        add_queries_seen(unit, tile);
    }
}

/* Queries [query, query + queries) against the key tile [key, key + keys). */
static void show_tile(struct backward_unit *unit, int64_t query, int64_t queries, int64_t key,
                      int64_t keys) {
    bool causal = unit->job->pattern.dilation->causal;
    int64_t vecs = unit->stride / VLEN, rows = round_up(queries, BLOCK) * unit->stride;
    bool plain = !causal || key + keys - 1 <= query ||
                 (all_finite(unit->tile.q, rows) && all_finite(unit->tile.dout, rows) &&
                  all_finite(unit->k, keys * unit->stride));
    struct backward_tile tile = {.first_query = query, .queries = queries};
    for (int64_t group = 0; group < keys; group += GROUP_PANELS * LANES) {
        tile.slots = 0;
        for (int64_t at = group; at < min_int(keys, group + GROUP_PANELS * LANES); at += LANES) {
            tile.panel = at / LANES;
            tile.first_key = key + at;
            tile.keys = min_int(LANES, keys - at);
            tile.slot = tile.slots;
            int64_t from = causal ? max_int(0, key + at - query) / BLOCK * BLOCK : 0;
            if (from >= queries) break;
            tile.from[tile.slots++] = from;
            tile.masked = tile.keys < LANES || (causal && key + at + tile.keys - 1 > query + from);
            show_panel(unit, &tile, plain);
        }
        if (unit->job->pass == DELTA_PASS || !plain || tile.slots == 0) continue;
        struct backward_columns columns = {&tile, group / LANES, keys - group, 0};
        while (columns.column < vecs) {
            int64_t left = vecs - columns.column;
            int64_t count = left == 4 ? 2 : min_int(left, MAX_VECS); /* 2 + 2, not 3 + 1 */
            add_queries_of(count, unit, &columns);
            columns.column += count;
        }
    }
}

/* Sets the tile to the queries that begin `row` rows into the pair's. */
static void turn_to_queries(struct backward_unit *unit, int64_t row) {
    const struct backward_queries *block = &unit->block;
    int64_t at = row * unit->stride;
    unit->tile = (struct backward_queries){block->q + at, block->dout + at, block->dq + at,
                                           block->lse + row, block->delta + row};
}

/* Keys [key, key_end) of the strip against queries [query, query_end). */
static void show_block(struct backward_unit *unit, int64_t key, int64_t key_end, int64_t query,
                       int64_t query_end) {
    const struct backward *job = unit->job;
    bool causal = job->pattern.dilation->causal, sums = job->pass == DELTA_PASS;
    struct ahead *ahead = unit->ahead;
    ahead->rows[0] = query_rows(job->args->q, unit->strip, unit->head);
    ahead->rows[1] = query_rows(job->args->dout, unit->strip, unit->head);
    ahead->rows[2] = query_rows(job->args->out, unit->strip, unit->head);
    for (int64_t begin = key; key < key_end; key += job->key_tile) {
        int64_t keys = min_int(job->key_tile, key_end - key);
        int64_t from = causal ? max_int(0, key - query) / QUERY_TILE * QUERY_TILE : 0;
        begin_keys(unit, key, keys);
        for (int64_t q = query + from; q < query_end; q += QUERY_TILE) {
            int64_t queries = min_int(QUERY_TILE, query_end - q);
            int64_t looks = ceil_div(keys, LANES) * ceil_div(queries, BLOCK);
            for (int i = 0; key == begin && i < (unit->first_queries ? 3 : 2); i++) {
                ahead->next[i] = q + QUERY_TILE;
                ahead->end[i] = min_int(q + 2 * QUERY_TILE, query_end);
                ahead->pace[i] = ceil_div(QUERY_TILE, looks);
            }
            turn_to_queries(unit, q - query);
            if (key == begin) begin_queries(unit, q, queries);
            if (sums) memset(unit->sums, 0, 2 * QUERY_TILE * VLEN * sizeof(float));
            show_tile(unit, q, queries, key, keys);
            if (sums) end_sums(unit, q, queries);
        }
        if (!sums) end_keys(unit, key, keys);
    }
    if (!sums)
        add_rows(unit, job->dq, 1, query, query_end - query, unit->block.dq,
                 (float)job->pattern.dilation->scale, unit->first_queries);
}

#endif
