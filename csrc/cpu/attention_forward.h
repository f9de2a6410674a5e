/* Forward attention of a block of rows on one head: an online softmax kept from strip to strip.
 *
 * The queries of a strip are taken `group` tiles at a time, and each tile of keys and values,
 * packed once, is shown to all of them. Tiles are transposed, queries in the lanes,
 *
 *     S^T (keys, lanes) = K Q^T,   O^T (D, lanes) += V^T P^T,
 *
 * so that the softmax runs down each lane. Key tiles begin at fixed places of a strip: what a row
 * gets does not depend on how the work was cut. */
#ifndef LNET_CPU_ATTENTION_FORWARD_H
#define LNET_CPU_ATTENTION_FORWARD_H

#include "cpu/attention_dropout.h"
#include "cpu/attention_tile.h"
#include "cpu/attention_uncovered.h"

enum {
    KEY_TILE = 96,
    MAX_GROUP = 960 / LANES, /* query tiles that share a packed key tile */
    GROUP_FLOATS = 80 << 10, /* about so many in their Q^T, so that it stays in the L2 cache */
};

struct forward {
    const struct lnet_dilated_attention_args *args;
    struct attention_pattern pattern;
    int64_t block_rows, block_slots, blocks, group; /* slots: rows of a block that are covered */
    int64_t units;                                  /* blocks of all heads */
    float scale;                                    /* of scores, as powers of 2 */
    struct uncovered uncovered;
    float *scratch; /* (workers, scratch_floats) */
    int64_t scratch_floats;
};

/* One thread's memory, and the rows [begin, end) of one head that it works on. */
struct forward_unit {
    struct forward *job;
    int64_t batch_item, head, begin, end;
    int32_t *slot;    /* (rows,) where a row's sums are, -1 for none */
    int32_t *covered; /* (slots,) whose they are: a row from `begin` */
    int32_t slots;
    float *sum, *top, *total, *zeros; /* by slot: O (rows, D) and softmax so far; keys of zeros */
    float *q, *o;                     /* (group, D, LANES) */
    float *tile_top, *tile_total;     /* (group, LANES) */
    float *shrink;                    /* (LANES,) what a higher top leaves of earlier sums */
    float *k, *v, *next_k, *next_v;   /* (KEY_TILE, D) */
    float *p, *factors;               /* (KEY_TILE, LANES) */
    float *rows;                      /* (LANES, D) */
    struct ahead *ahead;              /* for k, v and q */
    struct uncovered_place *place;    /* in out */
};

/* A query tile before a key tile. */
struct forward_tile {
    float *q, *o;       /* (D, LANES) */
    float *top, *total; /* (LANES,) */
    int64_t first_query, queries, first_key, keys;
    bool masked; /* causal, and the last query sees more keys than the first */
    int64_t plain_keys;
};

static int64_t forward_lay_out(struct forward_unit *unit, struct forward *job, float *base) {
    int64_t used = 0, width = job->pattern.width, slots = job->block_slots;
    unit->job = job;
    unit->slot = (int32_t *)carve(base, &used, job->block_rows);
    unit->covered = (int32_t *)carve(base, &used, slots);
    unit->sum = carve(base, &used, slots * width);
    unit->top = carve(base, &used, slots);
    unit->total = carve(base, &used, slots);
    unit->zeros = carve(base, &used, slots);
    unit->q = carve(base, &used, job->group * width * LANES);
    unit->o = carve(base, &used, job->group * width * LANES);
    unit->tile_top = carve(base, &used, job->group * LANES);
    unit->tile_total = carve(base, &used, job->group * LANES);
    unit->shrink = carve(base, &used, LANES);
    unit->k = carve(base, &used, KEY_TILE * width);
    unit->v = carve(base, &used, KEY_TILE * width);
    unit->next_k = carve(base, &used, KEY_TILE * width);
    unit->next_v = carve(base, &used, KEY_TILE * width);
    unit->p = carve(base, &used, KEY_TILE * LANES);
    unit->factors = carve(base, &used, KEY_TILE * LANES);
    unit->rows = carve(base, &used, LANES * width);
    return used;
}

/* What scores are taken relative to: `top`, and where that is -inf, 0, as all of them are -inf. */
ALWAYS_INLINE vec finite_top(vec top) {
    return vec_select(top == -INFINITY, (vec){0}, top);
}

/* S^T = K Q^T, and the top of the scores brought up to date. */
ALWAYS_INLINE void scores(int vecs, const struct forward_unit *unit,
                          const struct forward_tile *tile) {
    int64_t width = unit->job->pattern.width;
    veci lanes = lane_numbers();
    vec top[MAX_VECS];
    for (int j = 0; j < vecs; j++) top[j] = vec_load(tile->top + j * VLEN);
    for (int64_t key = 0; key < tile->keys; key += BLOCK) {
        vec acc[BLOCK][MAX_VECS];
        look_ahead(unit->ahead);
        struct lines bare = uncovered_lines(&unit->job->uncovered, unit->place, lines_in(width));
        clear_block(acc, vecs);
        multiply_add_clearing(acc, vecs, unit->k + key * width, width, 1, tile->q, LANES, width,
                              bare);
        if (tile->masked) {
            int32_t seen_from = (int32_t)(tile->first_key + key - tile->first_query);
            FOR_BLOCK(i, j, vecs) {
                acc[i][j] =
                    vec_select(lanes >= seen_from + i - j * VLEN, acc[i][j], vec_set(-INFINITY));
            }
        }
        store_block(unit->p + key * LANES, LANES, acc, vecs);
        FOR_BLOCK(i, j, vecs) {
            top[j] = vec_max(acc[i][j], top[j]);
        }
    }
    for (int j = 0; j < vecs; j++) {
        vec before = vec_load(tile->top + j * VLEN);
        vec_store(tile->top + j * VLEN, top[j]);
        vec_store(unit->shrink + j * VLEN, vec_exp2_upto127(before - finite_top(top[j])));
    }
}

/* P^T = exp2(S^T - top), and the sum of its columns. */
ALWAYS_INLINE void probabilities(int vecs, const struct forward_unit *unit,
                                 const struct forward_tile *tile) {
    vec top[MAX_VECS], sum[MAX_VECS];
    for (int j = 0; j < vecs; j++) {
        top[j] = finite_top(vec_load(tile->top + j * VLEN));
        sum[j] = (vec){0};
    }
    for (int64_t key = 0; key < tile->keys; key++) {
        float *p = unit->p + key * LANES;
        UNROLLED for (int j = 0; j < vecs; j++) {
            vec x = vec_exp2_upto127(vec_load(p + j * VLEN) - top[j]);
            sum[j] += x;
            vec_store(p + j * VLEN, x);
        }
    }
    for (int j = 0; j < vecs; j++) {
        float *total = tile->total + j * VLEN;
        vec_store(total, vec_load(total) * vec_load(unit->shrink + j * VLEN) + sum[j]);
    }
}

/* O^T = shrink O^T + V^T P^T, of the first `tile->plain_keys` keys. */
ALWAYS_INLINE void add_values(int vecs, const struct forward_unit *unit,
                              const struct forward_tile *tile) {
    int64_t width = unit->job->pattern.width;
    for (int64_t d = 0; d < width; d += BLOCK) {
        vec acc[BLOCK][MAX_VECS];
        struct lines bare =
            uncovered_lines(&unit->job->uncovered, unit->place, lines_in(tile->plain_keys));
        clear_block(acc, vecs);
        multiply_add_clearing(acc, vecs, unit->v + d, 1, width, unit->p, LANES, tile->plain_keys,
                              bare);
        FOR_BLOCK(i, j, vecs) {
            float *o = tile->o + (d + i) * LANES + j * VLEN;
            vec_store(o, vec_load(o) * vec_load(unit->shrink + j * VLEN) + acc[i][j]);
        }
    }
}

INSTANTIATE(scores, struct forward_unit, struct forward_tile)
INSTANTIATE(probabilities, struct forward_unit, struct forward_tile)
INSTANTIATE(add_values, struct forward_unit, struct forward_tile)

/* The same for a masked tile with values that are not finite: a product of such a value and the
 * 0 of a pair that must not see each other would be NaN. */
static void add_seen_values(const struct forward_unit *unit, const struct forward_tile *tile) {
    int64_t width = unit->job->pattern.width;
    for (int64_t key = 0; key < tile->keys; key++) {
        int64_t seen_from = max_int(0, tile->first_key + key - tile->first_query);
        for (int64_t d = 0; d < width; d++)
            for (int64_t lane = seen_from; lane < tile->queries; lane++)
                tile->o[d * LANES + lane] += unit->v[key * width + d] * unit->p[key * LANES + lane];
    }
}

static void attend_tile(const struct forward_unit *unit, const struct attention_strip *strip,
                        struct forward_tile *tile) {
    const struct attention_pattern *pattern = &unit->job->pattern;
    int64_t vecs = ceil_div(tile->queries, VLEN);
    scores_of(vecs, unit, tile);
    probabilities_of(vecs, unit, tile);
    if (pattern->dilation->dropout > 0) {
        struct attention_dropout dropout =
            dropout_of(pattern->dilation, strip, unit->batch_item * pattern->heads + unit->head);
        dropout_factors(unit->factors, 1, LANES, &dropout, tile->first_query, vecs * VLEN,
                        tile->first_key, tile->keys);
        for (int64_t key = 0; key < tile->keys; key++)
            for (int64_t lane = 0; lane < vecs * VLEN; lane++)
                unit->p[key * LANES + lane] *= unit->factors[key * LANES + lane];
    }
    bool plain = !tile->masked || all_finite(unit->v, tile->keys * pattern->width);
    tile->plain_keys = plain ? tile->keys : 0;
    add_values_of(vecs, unit, tile);
    if (!plain) add_seen_values(unit, tile);
}

/* The slots of a tile's queries, strip->step apart. */
static const int32_t *tile_slots(const struct forward_unit *unit,
                                 const struct attention_strip *strip,
                                 const struct forward_tile *tile) {
    return unit->slot + strip->first + tile->first_query * strip->step - unit->begin;
}

/* The queries of a tile, and what the earlier levels left of their rows. */
static void begin_tile(struct forward_unit *unit, const struct attention_strip *strip,
                       const struct forward_tile *tile) {
    const struct lnet_dilated_attention_args *args = unit->job->args;
    int64_t width = unit->job->pattern.width, padded = round_up(tile->queries, VLEN);
    pack_rows(unit->rows, width, query_rows(args->q, strip, unit->head), tile->first_query,
              tile->queries, unit->job->scale);
    pad_rows(unit->rows, width, tile->queries, padded);
    transpose(tile->q, LANES, unit->rows, width, padded, width);
    const int32_t *slot = tile_slots(unit, strip, tile);
    float most = 0;
    for (int64_t i = 0; i < padded; i++) {
        int32_t from = slot[min_int(i, tile->queries - 1) * strip->step];
        tile->top[i] = unit->top[from];
        tile->total[i] = unit->total[from];
        most += tile->total[i];
    }
    if (most == 0) {
        memset(tile->o, 0, (size_t)(width * LANES) * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < tile->queries; i++) {
        const float *sum = unit->sum + slot[i * strip->step] * width;
        for (int64_t d = 0; d < width; d++)
            unit->rows[i * width + d] = tile->total[i] == 0 ? 0 : sum[d];
    }
    pad_rows(unit->rows, width, tile->queries, padded);
    transpose(tile->o, LANES, unit->rows, width, padded, width);
}

static void end_tile(struct forward_unit *unit, const struct attention_strip *strip,
                     const struct forward_tile *tile) {
    int64_t width = unit->job->pattern.width, padded = round_up(tile->queries, VLEN);
    const int32_t *slot = tile_slots(unit, strip, tile);
    transpose(unit->rows, width, tile->o, LANES, width, padded);
    for (int64_t i = 0; i < tile->queries; i++, slot += strip->step) {
        memcpy(unit->sum + *slot * width, unit->rows + i * width, (size_t)width * sizeof(float));
        unit->top[*slot] = tile->top[i];
        unit->total[*slot] = tile->total[i];
        unit->zeros[*slot] += (float)strip->zero_keys;
    }
}

static void swap_floats(float **a, float **b) {
    float *c = *a;
    *a = *b;
    *b = c;
}

/* Shows key tile [key, key + count) to query tile `t` of the group, and packs the tile's share of
 * the next key tile. */
static void attend_key_tile(struct forward_unit *unit, const struct attention_strip *strip,
                            struct forward_tile *tile, int64_t t, int64_t tiles, int64_t key,
                            int64_t seen) {
    const struct forward *job = unit->job;
    const struct lnet_dilation *dilation = job->pattern.dilation;
    struct ahead *ahead = unit->ahead;
    int64_t width = job->pattern.width, first = tile[t].first_query;
    int64_t last = first + tile[t].queries - 1;
    int64_t share = ceil_div(KEY_TILE, tiles), next = key + KEY_TILE + t * share;
    int64_t next_count = max_int(0, min_int(share, min_int(key + 2 * KEY_TILE, seen) - next));
    tile[t].first_key = key;
    tile[t].keys = min_int(min_int(KEY_TILE, seen - key), dilation->causal ? last + 1 - key : seen);
    tile[t].masked = dilation->causal && key + tile[t].keys - 1 > first;
    if (tile[t].keys > 0) {
        int64_t blocks = ceil_div(tile[t].keys, BLOCK);
        for (int i = 0; i < 2; i++) {
            ahead->next[i] = next;
            ahead->end[i] = next + next_count;
            ahead->pace[i] = ceil_div(next_count, blocks);
        }
        ahead->next[2] = key == 0 && t + 1 < tiles ? tile[t + 1].first_query : 0;
        ahead->end[2] = key == 0 && t + 1 < tiles ? ahead->next[2] + tile[t + 1].queries : 0;
        ahead->pace[2] = ceil_div(LANES, blocks);
        attend_tile(unit, strip, &tile[t]);
    }
    pack_rows(unit->next_k + t * share * width, width, ahead->rows[0], next, next_count, 1);
    pack_rows(unit->next_v + t * share * width, width, ahead->rows[1], next, next_count, 1);
}

/* Queries [begin, end) of a strip, at most `group` tiles, against all keys they see. */
static void attend_group(struct forward_unit *unit, const struct attention_strip *strip,
                         int64_t begin, int64_t end) {
    const struct forward *job = unit->job;
    int64_t width = job->pattern.width, tiles = ceil_div(end - begin, LANES);
    int64_t kv_head = unit->head / (job->pattern.heads / job->pattern.kv_heads);
    int64_t seen = job->pattern.dilation->causal ? end : strip->count;
    struct ahead *ahead = unit->ahead;
    struct forward_tile tile[MAX_GROUP];
    for (int64_t t = 0; t < tiles; t++)
        tile[t] = (struct forward_tile){
            .q = unit->q + t * width * LANES,
            .o = unit->o + t * width * LANES,
            .top = unit->tile_top + t * LANES,
            .total = unit->tile_total + t * LANES,
            .first_query = begin + t * LANES,
            .queries = min_int(LANES, end - begin - t * LANES),
        };
    ahead->rows[0] = strip_rows(job->args->k, strip, kv_head);
    ahead->rows[1] = strip_rows(job->args->v, strip, kv_head);
    ahead->rows[2] = query_rows(job->args->q, strip, unit->head);
    pack_rows(unit->next_k, width, ahead->rows[0], 0, min_int(KEY_TILE, seen), 1);
    pack_rows(unit->next_v, width, ahead->rows[1], 0, min_int(KEY_TILE, seen), 1);
    for (int64_t key = 0; key < seen; key += KEY_TILE) {
        int64_t count = min_int(KEY_TILE, seen - key);
        swap_floats(&unit->k, &unit->next_k);
        swap_floats(&unit->v, &unit->next_v);
        pad_rows(unit->k, width, count, round_up(count, BLOCK));
        for (int64_t t = 0; t < tiles; t++) {
            if (key == 0) begin_tile(unit, strip, &tile[t]);
            attend_key_tile(unit, strip, tile, t, tiles, key, seen);
        }
    }
    for (int64_t t = 0; t < tiles; t++) end_tile(unit, strip, &tile[t]);
}

/* LSE of the unit's rows, and O of those that a level covers, out of the sums. */
static void finish_rows(struct forward_unit *unit) {
    const struct attention_pattern *pattern = &unit->job->pattern;
    const lnet_tensor *out = unit->job->args->out;
    int64_t width = pattern->width, before = attention_queries_before(pattern, unit->begin);
    int64_t size = (int64_t)lnet_dtype_size(out->dtype);
    float *lse = (float *)unit->job->args->lse->data +
                 (unit->batch_item * (pattern->heads - 1) + unit->head) * pattern->queries + before;
    for (int64_t i = 0; i < unit->end - unit->begin; i++) lse[i] = -INFINITY;
    for (int32_t slot = 0; slot < unit->slots; slot++) {
        int64_t i = unit->covered[slot];
        char *to = (char *)out->data + ((before + i) * pattern->heads + unit->head) * width * size;
        float top = unit->top[slot], total = unit->total[slot], shrink = 1;
        if (unit->zeros[slot] > 0) {
            float highest = top > 0 ? top : 0;
            shrink = exp2f(top - highest);
            total = total * shrink + unit->zeros[slot] * exp2f(-highest);
            top = highest;
        }
        lse[i] = total == 0 ? -INFINITY : (top + log2f(total)) * LN2;
        float *sum = unit->sum + slot * width;
        for (int64_t d = 0; d < width; d++) sum[d] = total == 0 ? 0 : sum[d] * (shrink / total);
        store_floats(unit->rows, 0, sum, width, out->dtype);
        stream_bytes(to, unit->rows, width * size);
    }
    stream_end();
}

#endif
