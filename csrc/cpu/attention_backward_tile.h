/* Backward attention of a tile of queries before a tile of keys: queries down, keys in the lanes,
 *
 *     P = exp(Q K^T - LSE),  dV^T += dO^T P,  dS = P * (dO V^T - delta),
 *     dK^T += Q^T dS,        dQ += dS K
 *
 * K^T, V^T, dK^T, dV^T, P and dS are held in panels of LANES keys. */
#ifndef LNET_CPU_ATTENTION_BACKWARD_TILE_H
#define LNET_CPU_ATTENTION_BACKWARD_TILE_H

#include "cpu/attention_dropout.h"
#include "cpu/attention_tile.h"
#include "cpu/attention_uncovered.h"

enum {
    QUERY_TILE = 96,
    MAX_KEY_TILE = 384,
    KEY_TILE_FLOATS = 24 << 10, /* of K in a tile: five times as much in the L2 cache */
    GROUP_PANELS = 96 / LANES,  /* panels whose dS meet K together */
};

/* Float32 rows that gradients are added to: row n, head h at data + n * step + h * D, counted from
 * the first row (of dq, query) and head of the part of the tensors that is being worked on. */
struct gradient_rows {
    float *data;
    int64_t step;
    bool queries;
};

enum backward_pass { DELTA_PASS, GRADIENT_PASS };

struct backward {
    const struct lnet_dilated_attention_backward_args *args;
    struct attention_pattern pattern;
    enum backward_pass pass;
    struct gradient_rows dq, dk, dv;
    struct uncovered uncovered;
    int64_t first_row, first_query, first_kv_head; /* of the part that is being worked on */
    float *delta;  /* (B, H, Nq) rowsum(dO * O); detached: rowsum(dO * sum of P V) of the level, */
    float *weight; /* (B, H, Nq) and the sum of P */
    int64_t key_tile, block_rows; /* block_rows: the most queries of a pair of blocks */
    int workers;
    float *scratch; /* (workers, scratch_floats) */
    int64_t scratch_floats;
};

/* Rows of queries, packed. */
struct backward_queries {
    float *q, *dout, *dq; /* (rows, stride) */
    float *lse, *delta;   /* (rows,); lse as a power of 2 */
};

/* One thread's memory, and the strip on one head that it works on. */
struct backward_unit {
    struct backward *job;
    const struct attention_strip *strip;
    struct attention_sequence sequence; /* that the strip lies in */
    int64_t head, kv_head;
    bool first_keys, first_queries; /* no other pair of the level has had them */
    bool last;      /* all rows belong to one pair of the level, and no later level adds to them */
    int64_t stride; /* between rows: D, rounded up to whole vectors */
    float *k;       /* (key_tile, stride) */
    float *kt, *vt, *dkt, *dvt;    /* (panels, D, LANES) */
    struct backward_queries block; /* (block_rows, ...) of all queries of the pair, */
    struct backward_queries tile;  /* (QUERY_TILE, ...) and of the tile in turn */
    float *p, *kept, *factors;     /* (GROUP_PANELS, QUERY_TILE, LANES) */
    float *sums;                   /* (2, QUERY_TILE, VLEN) rows of P * dP and P */
    float *rows;                   /* (LANES, stride) */
    struct ahead *ahead;           /* for q, dout and out */
    struct uncovered_place *place; /* in dq, dk and dv */
};

static int64_t backward_lay_out(struct backward_unit *unit, struct backward *job, float *base) {
    int64_t used = 0, width = job->pattern.width, keys = job->key_tile;
    int64_t stride = round_up(width, VLEN), panel = QUERY_TILE * LANES;
    unit->job = job;
    unit->stride = stride;
    unit->k = carve(base, &used, keys * stride);
    unit->kt = carve(base, &used, keys * width);
    unit->vt = carve(base, &used, keys * width);
    unit->dkt = carve(base, &used, keys * width);
    unit->dvt = carve(base, &used, keys * width);
    unit->block.q = carve(base, &used, job->block_rows * stride);
    unit->block.dout = carve(base, &used, job->block_rows * stride);
    unit->block.dq = carve(base, &used, job->block_rows * stride);
    unit->block.lse = carve(base, &used, job->block_rows);
    unit->block.delta = carve(base, &used, job->block_rows);
    unit->p = carve(base, &used, GROUP_PANELS * panel);
    unit->kept = carve(base, &used, panel);
    unit->factors = carve(base, &used, panel);
    unit->sums = carve(base, &used, 2 * QUERY_TILE * VLEN);
    unit->rows = carve(base, &used, LANES * stride);
    return used;
}

/* A tile of queries before a panel of keys. */
struct backward_tile {
    int64_t first_query, queries;
    int64_t first_key, keys;    /* of the panel */
    int64_t from[GROUP_PANELS]; /* queries before it see nothing of the panel: a whole block */
    bool masked;
    int64_t panel;       /* in the key tile */
    int64_t slot, slots; /* in the group */
    const float *kept;   /* P with dropout */
};

/* The last lane of the panel that query `query` of the tile sees. */
static inline int64_t last_lane(const struct backward_unit *unit, const struct backward_tile *tile,
                                int64_t query) {
    int64_t last = tile->keys - 1;
    if (!unit->job->pattern.dilation->causal) return last;
    return min_int(last, tile->first_query + query - tile->first_key);
}

/* The lanes of vector j up to `last`. */
ALWAYS_INLINE veci lanes_upto(int64_t last, int j) {
    return lane_numbers() <= (int32_t)last - j * VLEN;
}

/* P = exp2(Q K^T - lse) */
ALWAYS_INLINE void probabilities(int vecs, const struct backward_unit *unit,
                                 const struct backward_tile *tile) {
    int64_t width = unit->job->pattern.width, stride = unit->stride;
    const float *kt = unit->kt + tile->panel * width * LANES;
    float *p = unit->p + tile->slot * QUERY_TILE * LANES;
    for (int64_t q = tile->from[tile->slot]; q < tile->queries; q += BLOCK) {
        vec acc[BLOCK][MAX_VECS];
        look_ahead(unit->ahead);
        struct lines bare = uncovered_lines(&unit->job->uncovered, unit->place, lines_in(width));
        clear_block(acc, vecs);
        multiply_add_clearing(acc, vecs, unit->tile.q + q * stride, stride, 1, kt, LANES, width,
                              bare);
        FOR_BLOCK(i, j, vecs) {
            acc[i][j] = vec_exp2(acc[i][j] - unit->tile.lse[q + i]);
        }
        if (tile->masked) {
            FOR_BLOCK(i, j, vecs) {
                acc[i][j] =
                    vec_select(lanes_upto(last_lane(unit, tile, q + i), j), acc[i][j], (vec){0});
            }
        }
        store_block(p + q * LANES, LANES, acc, vecs);
    }
}

/* dS = P * (factor * dO V^T - delta), in place of P. */
ALWAYS_INLINE void score_gradients(int vecs, const struct backward_unit *unit,
                                   const struct backward_tile *tile) {
    int64_t width = unit->job->pattern.width, stride = unit->stride;
    bool dropout = unit->job->pattern.dilation->dropout > 0;
    const float *vt = unit->vt + tile->panel * width * LANES;
    float *p = unit->p + tile->slot * QUERY_TILE * LANES;
    for (int64_t q = tile->from[tile->slot]; q < tile->queries; q += BLOCK) {
        vec acc[BLOCK][MAX_VECS];
        struct lines bare = uncovered_lines(&unit->job->uncovered, unit->place, lines_in(width));
        clear_block(acc, vecs);
        multiply_add_clearing(acc, vecs, unit->tile.dout + q * stride, stride, 1, vt, LANES, width,
                              bare);
        if (dropout) {
            FOR_BLOCK(i, j, vecs) {
                acc[i][j] *= vec_load(unit->factors + (q + i) * LANES + j * VLEN);
            }
        }
        FOR_BLOCK(i, j, vecs) {
            acc[i][j] =
                vec_load(p + (q + i) * LANES + j * VLEN) * (acc[i][j] - unit->tile.delta[q + i]);
        }
        if (tile->masked) {
            FOR_BLOCK(i, j, vecs) {
                acc[i][j] =
                    vec_select(lanes_upto(last_lane(unit, tile, q + i), j), acc[i][j], (vec){0});
            }
        }
        store_block(p + q * LANES, LANES, acc, vecs);
    }
}

/* Row sums of factor * P * dO V^T, and of P. */
ALWAYS_INLINE void sum_rows(int vecs, const struct backward_unit *unit,
                            const struct backward_tile *tile) {
    int64_t width = unit->job->pattern.width, stride = unit->stride;
    const float *vt = unit->vt + tile->panel * width * LANES;
    const float *p = unit->p + tile->slot * QUERY_TILE * LANES;
    for (int64_t q = tile->from[tile->slot]; q < tile->queries; q += BLOCK) {
        vec acc[BLOCK][MAX_VECS];
        clear_block(acc, vecs);
        multiply_add(acc, vecs, unit->tile.dout + q * stride, stride, 1, vt, LANES, width);
        for (int i = 0; i < BLOCK; i++) {
            float *sums = unit->sums + (q + i) * VLEN;
            vec product = vec_load(sums), sum = vec_load(sums + QUERY_TILE * VLEN);
            for (int j = 0; j < vecs; j++) {
                int64_t at = (q + i) * LANES + j * VLEN;
                vec term = vec_load(tile->kept + at) * acc[i][j];
                product += vec_select(lanes_upto(last_lane(unit, tile, q + i), j), term, (vec){0});
                sum += vec_load(p + at);
            }
            vec_store(sums, product);
            vec_store(sums + QUERY_TILE * VLEN, sum);
        }
    }
}

/* sum (D, LANES) += rows^T P: rows of queries, P or dS the same queries. */
struct backward_sum {
    float *sum;
    const float *rows, *p;
    int64_t queries;
};

ALWAYS_INLINE void add_transposed(int vecs, const struct backward_unit *unit,
                                  const struct backward_sum *sum) {
    for (int64_t d = 0; d < unit->job->pattern.width; d += BLOCK) {
        vec acc[BLOCK][MAX_VECS];
        struct lines bare =
            uncovered_lines(&unit->job->uncovered, unit->place, lines_in(sum->queries));
        clear_block(acc, vecs);
        multiply_add_clearing(acc, vecs, sum->rows + d, 1, unit->stride, sum->p, LANES,
                              sum->queries, bare);
        add_block(sum->sum + d * LANES, LANES, acc, vecs);
    }
}

/* dQ += dS K of a group of panels, for vectors [column, column + vecs) of the rows. */
struct backward_columns {
    const struct backward_tile *tile;
    int64_t first_panel, keys; /* of the group */
    int64_t column;
};

ALWAYS_INLINE void add_queries(int vecs, const struct backward_unit *unit,
                               const struct backward_columns *columns) {
    const struct backward_tile *tile = columns->tile;
    int64_t stride = unit->stride;
    const float *k = unit->k + columns->first_panel * LANES * stride + columns->column * VLEN;
    float *dq = unit->tile.dq + columns->column * VLEN;
    for (int64_t q = tile->from[0]; q < tile->queries; q += BLOCK) {
        vec acc[BLOCK][MAX_VECS];
        clear_block(acc, vecs);
        for (int64_t slot = 0; slot < tile->slots && tile->from[slot] <= q; slot++) {
            const float *ds = unit->p + (slot * QUERY_TILE + q) * LANES;
            multiply_add(acc, vecs, ds, LANES, 1, k + slot * LANES * stride, stride,
                         min_int(LANES, columns->keys - slot * LANES));
        }
        add_block(dq + q * stride, stride, acc, vecs);
    }
}

/* The same two for a masked tile with numbers that are not finite: the product of one and the 0 of
 * a pair that must not see each other would be NaN. */
static void add_transposed_seen(const struct backward_unit *unit, const struct backward_tile *tile,
                                const struct backward_sum *sum) {
    int64_t width = unit->job->pattern.width;
    for (int64_t q = 0; q < sum->queries; q++) {
        int64_t last = last_lane(unit, tile, tile->from[tile->slot] + q);
        for (int64_t d = 0; d < width; d++)
            for (int64_t lane = 0; lane <= last; lane++)
                sum->sum[d * LANES + lane] +=
                    sum->rows[q * unit->stride + d] * sum->p[q * LANES + lane];
    }
}

static void add_queries_seen(const struct backward_unit *unit, const struct backward_tile *tile) {
    int64_t stride = unit->stride;
    const float *k = unit->k + tile->panel * LANES * stride;
    for (int64_t q = tile->from[tile->slot]; q < tile->queries; q++) {
        const float *ds = unit->p + (tile->slot * QUERY_TILE + q) * LANES;
        int64_t last = last_lane(unit, tile, q);
        for (int64_t lane = 0; lane <= last; lane++)
            for (int64_t d = 0; d < stride; d++)
                unit->tile.dq[q * stride + d] += ds[lane] * k[lane * stride + d];
    }
}

INSTANTIATE(probabilities, struct backward_unit, struct backward_tile)
INSTANTIATE(score_gradients, struct backward_unit, struct backward_tile)
INSTANTIATE(sum_rows, struct backward_unit, struct backward_tile)
INSTANTIATE(add_transposed, struct backward_unit, struct backward_sum)
INSTANTIATE(add_queries, struct backward_unit, struct backward_columns)

#endif
