/* Dilated attention backward on sm_90a: what the launcher tells the kernels, and how work is cut.
 *
 * A tile is 128 keys of one head's segment on one level; it meets, a block at a time, the queries
 * that see it. Two warpgroups of 64 keys each keep its dK and dV in registers until then and leave
 * dS to a third one, which adds dQ block by block. All levels add to the same float32 sums in the scratch, which holds a few groups at a time: rows that share
 * no segment with others, of some heads. The densest level comes last, a group later than the
 * others. Where a k/v head has one query head, its tiles add what the others left in the sums for
 * their keys and write dK and dV at once. When all its tiles of a block of a group's rows are done,
 * warps that have nothing else to do round the rest, while it is in the cache. Both leave zeros for
 * the group that has the place next. A single level's sums hold the rows that take part alone, and
 * only dQ has some where each k/v head has one query head. All work is taken in order, and waits
 * only for work taken before it: tiles for the rounding of earlier groups, the rounding for the
 * tiles of its own group. */
#ifndef LNET_DILATED_ATTENTION_SM90_BACKWARD_CUH
#define LNET_DILATED_ATTENTION_SM90_BACKWARD_CUH

#include "cuda/dilated_attention_sm90_forward.cuh"

namespace dilated_sm90 {

enum { KEY_TILE = 128, GRADIENT_WARPS = 8, QUERY_WARPS = 4, ROUNDING_ROWS = 128 };

struct backward : problem {
    int32_t group_items, group_chunks; /* of tiles' keys, of rounding */
    int32_t sparse_items;              /* of those, on all levels but the densest */
    int32_t blocks, block_rows;        /* of a group; rows that share no segment of the densest */
    int32_t block_chunks;              /* the densest level's ranges in a block */
    int32_t direct;                    /* the densest level's tiles write dK and dV */
    int32_t uncovered;                 /* some rows may not take part on the densest level */
    int32_t parts;                     /* heads of dQ, dK and dV to round in a group */
    divisor sums_spacing;              /* rows of a group to one of its sums: r or 1 */
    int32_t sums_rows, stats_rows;     /* of a head of a group, of a head */
    int32_t segment_chunks;            /* ranges of a segment where the first come first, else 0 */
    int64_t slot_floats, dk_at, dv_at; /* of a slot: (group_heads, sums_rows, padded D) x 1 or 3 */
    float *sums;                       /* (slots, slot_floats), zeros */
    int64_t zero_floats;               /* of counters and sums together, which begin as zeros */
    float2 *stats;                     /* (B, H, stats_rows): LSE * log2(e), delta */
    float gradient_scale;              /* of dQ and dK */
    const void *out, *dout;            /* (B, N, H, D) */
    const float *lse;                  /* (B, H, N) */
    void *dq, *dk, *dv;                /* (B, N, H or Hk, D) */
};

/* Of an element of dq, dk and dv: float32, or the dtype of the inputs. */
template <bool float32> constexpr int gradient_bytes = float32 ? 4 : 2;

/* Counters, cleared by `prepare`: items taken, chunks of rounding taken, groups of 32 rows taken for
 * zeros, then of each slot the chunks rounded, the items of sparser levels that are done, and those
 * of the densest level in each block. */
enum { MOST_SLOTS = 3, MOST_BLOCKS = 64 };

__host__ __device__ __forceinline__ int rounded_counter(const backward &p, int slot) {
    return 3 + slot * (2 + p.blocks);
}
__host__ __device__ __forceinline__ int sparse_counter(const backward &p, int slot) {
    return rounded_counter(p, slot) + 1;
}
__host__ __device__ __forceinline__ int dense_counter(const backward &p, int slot, int block) {
    return rounded_counter(p, slot) + 2 + block;
}

struct key_tile {
    int32_t level;            /* -1: no more work */
    int32_t rows;             /* keys of the tile, at most KEY_TILE */
    int32_t first;            /* its first key as number of its segment */
    int32_t keys;             /* keys, and so queries, of the segment */
    int32_t blocks;           /* of queries that see the tile; past the last comes query 0 */
    int32_t start;            /* the first query of the first */
    int32_t step;             /* r */
    int32_t counter;          /* to raise when the tile is done, or -1 */
    int32_t batch, head, kv_head;
    int32_t phase, key_j;     /* map coordinates of the segment's first key */
    int32_t sums_phase, sums_j, sums_head, slot; /* likewise in the map of the sums */
    int32_t sums_step;        /* rows of dQ's sums, and of stats, from a query to the next */
    int32_t row;              /* of the segment's first key in its batch item */
    int32_t direct;           /* the tile's dK and dV are written, else added to the sums */
    int32_t wait;             /* a counter, and what it must reach before that, or -1 */
    uint32_t target;
    uint32_t known[KEY_TILE / 32]; /* which keys other levels have left sums for */
    int64_t stats_at;         /* of the segment's first key, in stats */
    int64_t dq_at, dkv_at;    /* likewise in sums; dkv_at from dK and from dV alike */
};

/* `keep`: keys and values stay in registers, where there are some to spare. Then the registers of a
 * thread of the two warpgroups that meet keys with queries, of the one that makes dQ, and of the
 * others. */
template <int width> struct gradient_shape;
template <> struct gradient_shape<48> {
    enum { queries = 128, v_stages = 2, dq_columns = 48, round_rows = 16 };
    enum { keep = 1, key_registers = 200, query_registers = 64, spare = 48 };
};
template <> struct gradient_shape<64> {
    enum { queries = 128, v_stages = 2, dq_columns = 64, round_rows = 16 };
    enum { keep = 0, key_registers = 192, query_registers = 72, spare = 56 };
};
template <> struct gradient_shape<128> {
    enum { queries = 64, v_stages = 1, dq_columns = 32, round_rows = 4 };
    enum { keep = 0, key_registers = 208, query_registers = 48, spare = 48 };
};

/* Shared memory: tiles in panels of 64 columns, as the copy engine swizzles them. */
template <int width> struct gradient_layout : gradient_shape<width> {
    using S = gradient_shape<width>;
    enum {
        queries = S::queries,
        v_stages = S::v_stages,
        stages = 2, /* of keys, of queries and dO, of dS */
        ring = 2,   /* tiles described ahead */
        threads = (GRADIENT_WARPS + QUERY_WARPS + 4) * 32,
        round_rows = S::round_rows,
        round_buffers = 3, /* of each of the two warps */
        panels = (width + 63) / 64,
        kv_bytes = KEY_TILE * 128 * panels,
        q_bytes = queries * 128 * panels,
        ds_bytes = KEY_TILE * queries * 2,
        /* dQ of a block is made in parts: 64 queries, or some columns. They leave from where that
         * part of dS was, or from a place of their own. */
        dq_columns = S::dq_columns,
        split_columns = queries == 64,
        dq_parts = split_columns ? width / dq_columns : queries / 64,
        dq_stages = 2,
        dq_bytes = split_columns ? 64 * dq_columns * 4 : 0,
        round_bytes = round_rows * width * 4,
        k_at = 0,
        v_at = k_at + kv_bytes * stages,
        q_at = v_at + kv_bytes * v_stages,
        dout_at = q_at + q_bytes * stages,
        ds_at = dout_at + q_bytes * stages,
        dq_at = ds_at + ds_bytes * stages,
        zeros_at = dq_at + dq_bytes * dq_stages,
        round_at = zeros_at + round_bytes,
        stats_bytes = queries * 8,
        stats_at = round_at + round_bytes * round_buffers * 2,
        tiles_at = stats_at + stats_bytes * stages,
        barriers_at = tiles_at + ring * (int)sizeof(key_tile),
        /* barriers, by index */
        k_full = 0,
        k_empty = k_full + stages,
        v_full = k_empty + stages,
        v_empty = v_full + v_stages,
        q_full = v_empty + v_stages,
        q_empty = q_full + stages,
        ds_full = q_empty + stages,
        ds_empty = ds_full + stages,
        tile_full = ds_empty + stages,
        tile_empty = tile_full + ring,
        tile_done = tile_empty + ring, /* what the tile adds and writes is there */
        raw = tile_done + ring,
        round_full = raw + 1,
        barriers = round_full + round_buffers * 2,
        bytes = barriers_at + barriers * 8,
    };
    static_assert(bytes <= 227 * 1024, "shared memory of a block");
};

} // namespace dilated_sm90

#endif
