/* Dilated attention on sm_90a: what the launcher tells the kernels, and how the forward work is cut.
 *
 * A group is `group_rows` consecutive rows of `group_heads` heads of a batch item. An item is one
 * level of one head of a group, cut further to the rows that a tile takes there, from the end of
 * each segment: what is left over at its begin sees few keys. The rows of an item that take part in
 * one segment are a tile, at most 64 a consumer warpgroup. The sparsest level of a group comes
 * first. A tile goes on with the online softmax that earlier levels left for its rows in the
 * scratch, and writes the output of those rows that no later level covers.
 *
 * Blocks of threads take items in one order: step t holds level i of group t - i for all i, so
 * that what an item waits for, the level before of the same group, was taken nearly a whole step
 * earlier. Waiting cannot block: an item only waits for items taken before it. */
#ifndef LNET_DILATED_ATTENTION_SM90_FORWARD_CUH
#define LNET_DILATED_ATTENTION_SM90_FORWARD_CUH

#include <cuda.h>
#include <stdint.h>

namespace dilated_sm90 {

enum { MAX_LEVELS = 16, WARPGROUP_ROWS = 64 };

/* n / d = n * multiplier >> shift for n < 2^31. */
struct divisor {
    uint32_t value, multiplier, shift;
};

/* Row n of a sequence is (phase, j) of a map with n + pad = j * step + phase, so that the box of
 * `j .. j + rows` is every step-th row. The view ends exactly where the tensor does; its first
 * `pad` rows lie before the tensor and are never asked for. */
struct level {
    CUtensorMap q, k, v; /* (D, heads, phase, j, B) */
    CUtensorMap dout;    /* backward only, as is: */
    CUtensorMap sums;    /* of dQ: (padded D, phase, j, group_heads, slots), a group's rows */
    divisor segment;     /* w, at most N */
    divisor step;        /* r, at most N */
    int32_t rate;        /* r, at most 2^31 - 1 */
    int32_t nested;      /* r divides w: where a row's segment begins does not matter */
    int32_t pad;
    divisor sums_step; /* backward: r of the rows of sums */
    int32_t sums_pad;
    int32_t chunk;  /* rows of an item's range */
    int32_t chunks; /* of a group */
    /* forward only: a piece is a segment where segments are whole in a group, else a group */
    int32_t piece;        /* its rows */
    divisor pieces;       /* of a group */
    divisor piece_chunks; /* ranges of a piece */
    divisor head_chunks;  /* chunks */
};

/* What attention is asked for, forward and backward. */
struct problem {
    level levels[MAX_LEVELS]; /* sparsest first */
    int32_t level_count;
    int32_t batch, rows, heads, kv_heads, width; /* B, N, H, Hk, D */
    int32_t offsets_grouped, causal, zero_keys;
    float scale;               /* scale * log2(e) */
    int32_t documents;         /* S, 0 without cu_seqlens */
    const int64_t *lengths;    /* (B,) or NULL */
    const int64_t *cu_seqlens; /* (S + 1,) or NULL */
    /* groups */
    int32_t group_rows, group_heads;
    int32_t groups, row_groups, head_groups; /* all; in a batch item, along rows and heads */
    int32_t item_count;
    int32_t slots;      /* groups that the scratch holds */
    uint32_t *counters; /* zero when tiles begin */
};

struct forward : problem {
    divisor step_items;  /* items of a step */
    divisor group_slots, group_heads_across, group_rows_along; /* slots, head_groups, row_groups */
    divisor head_share;                                        /* heads to one of keys */
    int32_t uncovered;   /* some rows may take part on no level */
    int32_t slot_rows;   /* rows of scratch a head of a group */
    divisor row_spacing; /* rows of a group to one of scratch */
    void *out;           /* (B, N, H, D) */
    float *lse;          /* (B, H, N) */
    float *state;        /* (slots, group_heads, slot_rows, padded D + 4) */
    /* counters: items taken, nothing, then warps that finished an item (slots, levels) */
};

/* One tile, as the scheduling warp describes it to the others. */
struct tile {
    int32_t level;     /* -1: no more work */
    int32_t rows;      /* of the tile, at most 64 a consumer warpgroup */
    int32_t first;     /* the tile's first row as key number of its segment */
    int32_t keys;      /* keys of the segment */
    int32_t zero_keys; /* keys of zeros beside them */
    int32_t row;       /* the tile's first row in its batch item */
    int32_t step;      /* r */
    int32_t counter;   /* to raise when the tile is done, or -1 */
    int32_t batch, head, kv_head;
    int32_t phase, key_j; /* map coordinates of the segment's first key */
};

/* Of each row of a tile: its place in the scratch, whether earlier levels left something there, and
 * whether no later level covers it. */
enum : uint32_t { ROW_KNOWN = 1u << 31, ROW_FINAL = 1u << 30, ROW_PLACE = ROW_FINAL - 1 };

/* Tile shapes. Columns are padded to whole panels of 64 in shared memory. */
template <int width> struct shape; /* width: head dim of the instance */
template <> struct shape<64> {
    enum { warpgroups = 3, keys = 128, stages = 4, q_buffers = 2, registers = 160, spare = 32 };
};
template <> struct shape<48> : shape<64> {};
template <> struct shape<128> {
    enum { warpgroups = 2, keys = 128, stages = 2, q_buffers = 2, registers = 232, spare = 32 };
};

template <int width> struct layout {
    using S = shape<width>;
    enum {
        panels = (width + 63) / 64,
        threads = S::warpgroups * 128 + 128,
        q_bytes = WARPGROUP_ROWS * 128 * panels,
        kv_bytes = S::keys * 128 * panels,
        ring = 2, /* tiles described ahead: what is taken early is waited for longer */
        q_at = 0,
        k_at = q_at + q_bytes * S::warpgroups * S::q_buffers,
        v_at = k_at + kv_bytes * S::stages,
        tile_rows = S::warpgroups * WARPGROUP_ROWS,
        tables_at = v_at + kv_bytes * S::stages,
        tiles_at = tables_at + ring * tile_rows * 4,
        zeros_bytes = 2048, /* for rows that nothing covers */
        zeros_at = (tiles_at + ring * (int)sizeof(tile) + 127) / 128 * 128,
        barriers_at = zeros_at + zeros_bytes,
        /* barriers, by index */
        k_full = 0,
        k_empty = k_full + S::stages,
        v_full = k_empty + S::stages,
        v_empty = v_full + S::stages,
        q_full = v_empty + S::stages,
        q_empty = q_full + S::warpgroups * S::q_buffers,
        tile_full = q_empty + S::warpgroups * S::q_buffers,
        tile_empty = tile_full + ring,
        v_raw = tile_empty + ring,
        barriers = v_raw + 1,
        bytes = barriers_at + barriers * 8,
        state_stride = width + 4, /* floats of a row of scratch: O, then m and l */
    };
};

} // namespace dilated_sm90

#endif
