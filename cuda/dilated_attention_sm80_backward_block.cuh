/* Backward dilated attention for tensor cores from Ampere on, in two kernels that need no atomic
 * addition, so that the gradients are the same bits every time:
 *
 *     OF_QUERIES  rows are queries, columns keys      dQ += dS K
 *     OF_KEYS     rows are keys, columns queries      dV += P^T dO,  dK += dS^T Q
 *
 * An item holds a tile of its own rows and their gradients while the others pass by:
 *
 *     S = own[0] other[0]^T,  P = exp2(S - LSE),  dP = own[1] other[1]^T,  dS = P (dP - delta)
 *     sums[0] += dS other[0],  sums[1] += P other[1]
 *
 * with own = Q, dO and other = K, V for queries, and the other way round for keys. An item of keys
 * is for all query heads of its kv head that have these keys. Scores are computed in both kernels:
 * 7 products where one kernel with atomic additions needs 5. */
#ifndef LNET_DILATED_ATTENTION_SM80_BACKWARD_BLOCK_CUH
#define LNET_DILATED_ATTENTION_SM80_BACKWARD_BLOCK_CUH

#include "cuda/dilated_attention_sm80_plan.cuh"
#include "cuda/dilated_attention_sm80_rows.cuh"

namespace dilated_sm80 {

struct backward_call {
    queue work;
    const void *q, *k, *v, *dout; /* (B, Nq, H, D), (B, N, Hk, D) */
    const float *lse;             /* (B, H, Nq) */
    float *delta;                 /* (B, H, Nq); detached: (levels, B, H, Nq), of OF_QUERIES */
    void *out[2];                 /* dQ; dK and dV; dK; or dV */
    resting_sums sums[2];
    dropout drop;
    bool detached;
    float scale;    /* of scores, as powers of 2; positive */
    float sign;     /* that the scale has, or 0 */
    float gradient; /* the scale itself */
};

/* Registers: sums of 16 BLOCKS x WIDTH, once or twice, and twice 16 BLOCKS x COLUMNS. */
template <typename T, int WIDTH, pass PASS> struct backward_shape {
    static constexpr int WARPS = 4;
    static constexpr int BLOCKS = WIDTH <= 64 ? 2 : 1;
    static constexpr int COLUMNS = WIDTH > 128 ? 16 : WIDTH > 64 || PASS == OF_KEYS ? 32 : 64;
    static constexpr int STAGES = WIDTH <= 128 ? 2 : 1;
};
template <int WIDTH, pass PASS> struct backward_shape<float, WIDTH, PASS> {
    static constexpr int WARPS = WIDTH <= 128 ? 4 : 2;
    static constexpr int BLOCKS = 1;
    static constexpr int COLUMNS = WIDTH <= 64 ? 32 : 16;
    static constexpr int STAGES = WIDTH <= 64 ? 2 : 1;
};

template <typename T, int WIDTH, pass PASS> struct backward_block {
    using shape = backward_shape<T, WIDTH, PASS>;
    using layout = tile<T, WIDTH>;
    static constexpr int THREADS = 32 * shape::WARPS, STAGES = shape::STAGES;
    static constexpr int BLOCKS = shape::BLOCKS, COLUMNS = shape::COLUMNS;
    static constexpr int ROWS = 16 * BLOCKS * shape::WARPS;
    static constexpr int OTHER_BYTES = COLUMNS * layout::PITCH;
    static constexpr int OWN_BYTES = ROWS * layout::PITCH;
    static constexpr int SHARED = 2 * OWN_BYTES + 2 * STAGES * OTHER_BYTES;
    static constexpr bool KEYS = PASS != OF_QUERIES; /* rows are keys */
    static constexpr bool FIRST = PASS != OF_KEYS_DV, SECOND = PASS == OF_KEYS || !FIRST;
    static constexpr int SUMS = FIRST && SECOND ? 2 : 1;

    typedef float block[BLOCKS][COLUMNS / 8][4];
    typedef float gradients[SUMS][BLOCKS][WIDTH / 8][4];

    /* LSE, as a power of 2, and delta of the queries in the columns, of both stages. */
    struct statistics {
        float lse[STAGES][COLUMNS], delta[STAGES][COLUMNS];
    };

    /* The rows that pass by, of one head. */
    struct strip {
        const T *other[2];
        const float *lse, *delta; /* of query 0, queries `rate` apart */
        int64_t step;
        uint32_t rate, first_row, end_column, width;
        bool causal;
        uint64_t dropout_high;
    };

    /* Scores to P, 0 where a key is not seen; `lse` of the rows, or in `stats` of the columns. */
    static __device__ void probabilities(const backward_call &call, const strip &s, block &x,
                                         const float (&lse)[BLOCKS][2], const float *columns,
                                         int row, uint32_t column) {
        uint32_t first = s.first_row + row, lane = threadIdx.x % 32;
        if (call.sign != 1.0f) {
#pragma unroll
            for (int m = 0; m < BLOCKS; m++)
#pragma unroll
                for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) x[m][n][i] *= call.sign;
        }
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++) {
            float2 of_columns = {0, 0};
            if (KEYS) of_columns = reinterpret_cast<const float2 *>(columns)[n * 4 + lane % 4];
#pragma unroll
            for (int m = 0; m < BLOCKS; m++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float less = !KEYS ? lse[m][i / 2] : i % 2 ? of_columns.y : of_columns.x;
                    x[m][n][i] = exp2_fast(fmaf(x[m][n][i], call.scale, -less));
                }
        }
        bool inside = column + COLUMNS <= s.end_column;
        if (s.causal && KEYS) inside = inside && column >= first + 16 * BLOCKS - 1;
        if (s.causal && !KEYS) inside = inside && column + COLUMNS - 1 <= first;
        if (inside) return;
#pragma unroll
        for (int m = 0; m < BLOCKS; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t at = first + 16 * m + lane / 4 + i / 2 * 8;
#pragma unroll
                for (int n = 0; n < COLUMNS / 8; n++) {
                    uint32_t other = column + n * 8 + lane % 4 * 2 + i % 2;
                    bool ordered = !s.causal || (KEYS ? at <= other : other <= at);
                    bool seen = ordered && other < s.end_column;
                    if (!seen) x[m][n][i] = 0;
                }
            }
    }

    /* Bit 4n + i of kept[m]: the pair of x[m][n][i] is not dropped. */
    static __device__ void draw(const backward_call &call, const strip &s, uint32_t (&kept)[BLOCKS],
                                int row, uint32_t column) {
#pragma unroll
        for (int m = 0; m < BLOCKS; m++) {
            kept[m] = 0;
#pragma unroll 1
            for (int n = 0; n < COLUMNS / 8; n++) {
                uint32_t at = s.first_row + row + 16 * m, other = column + 8 * n;
                uint32_t found = KEYS ? keep_of_keys(call.drop, s.dropout_high, other, at)
                                      : keep_of_queries(call.drop, s.dropout_high, at, other);
                kept[m] |= found << 4 * n;
            }
        }
    }

    /* x times the factors of dropout. */
    static __device__ void drop(const backward_call &call, block &x,
                                const uint32_t (&kept)[BLOCKS]) {
#pragma unroll
        for (int m = 0; m < BLOCKS; m++)
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    x[m][n][i] = kept[m] >> (4 * n + i) & 1 ? x[m][n][i] * call.drop.factor : 0;
    }

    /* The warp's rows before the columns from `column` on, which lie at `other`. */
    static __device__ void show(const backward_call &call, const strip &s, gradients &sums,
                                const float (&lse)[BLOCKS][2], const float (&delta)[BLOCKS][2],
                                uint32_t own, uint32_t other, const statistics &stats, int stage,
                                int row, uint32_t column) {
        uint32_t kept[BLOCKS], lane = threadIdx.x % 32;
        block p, dp;
        multiply_tiles<T, WIDTH, BLOCKS, COLUMNS>(p, own, other, row);
        probabilities(call, s, p, lse, stats.lse[stage], row, column);
        if (call.drop.on) draw(call, s, kept, row, column);
        if constexpr (SECOND) {
            if (call.drop.on) {
#pragma unroll
                for (int m = 0; m < BLOCKS; m++)
#pragma unroll
                    for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
                        for (int i = 0; i < 4; i++) dp[m][n][i] = p[m][n][i];
                drop(call, dp, kept);
                add_product<T, WIDTH, BLOCKS, COLUMNS>(sums[SUMS - 1], dp, other + OTHER_BYTES);
            } else {
                add_product<T, WIDTH, BLOCKS, COLUMNS>(sums[SUMS - 1], p, other + OTHER_BYTES);
            }
        }
        if constexpr (FIRST) {
            multiply_tiles<T, WIDTH, BLOCKS, COLUMNS>(dp, own + OWN_BYTES, other + OTHER_BYTES,
                                                      row);
            if (call.drop.on) drop(call, dp, kept);
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; n++) {
                float2 columns = {0, 0};
                const float2 *pairs = reinterpret_cast<const float2 *>(stats.delta[stage]);
                if (KEYS) columns = pairs[n * 4 + lane % 4];
#pragma unroll
                for (int m = 0; m < BLOCKS; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        float less = !KEYS ? delta[m][i / 2] : i % 2 ? columns.y : columns.x;
                        p[m][n][i] *= dp[m][n][i] - less;
                    }
            }
            add_product<T, WIDTH, BLOCKS, COLUMNS>(sums[0], p, other);
        }
    }

    /* Row sums of P dP, with dropout, and of P. */
    static __device__ void sum_rows(const backward_call &call, const strip &s,
                                    float (&product)[BLOCKS][2], float (&weight)[BLOCKS][2],
                                    const float (&lse)[BLOCKS][2], uint32_t own, uint32_t other,
                                    int row, uint32_t column) {
        uint32_t kept[BLOCKS];
        block p, dp;
        multiply_tiles<T, WIDTH, BLOCKS, COLUMNS>(p, own, other, row);
        probabilities(call, s, p, lse, nullptr, row, column);
        multiply_tiles<T, WIDTH, BLOCKS, COLUMNS>(dp, own + OWN_BYTES, other + OTHER_BYTES, row);
        if (call.drop.on) {
            draw(call, s, kept, row, column);
            drop(call, dp, kept);
        }
#pragma unroll
        for (int m = 0; m < BLOCKS; m++)
#pragma unroll
            for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    /* what is not seen has P = 0, whatever its dP is */
                    product[m][i / 2] += p[m][n][i] == 0.0f ? 0.0f : p[m][n][i] * dp[m][n][i];
                    weight[m][i / 2] += p[m][n][i];
                }
    }
};

} // namespace dilated_sm80

#endif
