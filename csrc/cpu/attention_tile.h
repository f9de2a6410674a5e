/* Tiles of attention: strided rows packed to float32, transposed, and multiplied.
 *
 * Every product here is C (M, n) += A (M, K) B (K, n) with A taken one number at a time and B by
 * whole vectors; a block of C stays in registers while K passes by. No product adds up across the
 * lanes of a vector, so a lane's result does not depend on its neighbours. */
#ifndef LNET_CPU_ATTENTION_TILE_H
#define LNET_CPU_ATTENTION_TILE_H

#include "cpu/attention_pattern.h"
#include "cpu/convert.h"
#include "cpu/simd.h"

enum {
#if defined(__AVX512F__) || defined(__aarch64__)
    BLOCK = 8, /* rows of C in registers: 8 x 3 of 32 vector registers, or 4 x 3 of 16 */
#else
    BLOCK = 4,
#endif
    MAX_VECS = 3,            /* vectors of C in registers */
    LANES = MAX_VECS * VLEN, /* rows of a strip that lie side by side in a tile */
};

#define LOG2E 1.44269504088896341f
#define LN2 0.693147180559945309f
/* Before a loop over a block in registers: no index must remain. Clang finds this out for itself,
 * and keeps the block in memory when it is told. */
#if defined(__clang__)
#    define UNROLLED
#else
#    define UNROLLED _Pragma("GCC unroll 8")
#endif
#define FOR_BLOCK(i, j, vecs)                                                                      \
    UNROLLED for (int i = 0; i < BLOCK; i++) UNROLLED for (int j = 0; j < (vecs); j++)
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* The rows of a tensor (B, N, heads, D) that a strip takes, on one head, as elements. */
struct strided_rows {
    const void *data;
    lnet_dtype dtype;
    int64_t first, step, width;
};

static inline struct strided_rows strip_rows(const lnet_tensor *tensor,
                                             const struct attention_strip *strip, int64_t head) {
    int64_t heads = tensor->shape[2], width = tensor->shape[3];
    return (struct strided_rows){tensor->data, tensor->dtype, (strip->first * heads + head) * width,
                                 strip->step * heads * width, width};
}

/* Likewise of a tensor (B, Nq, heads, D), those that are queries. */
static inline struct strided_rows query_rows(const lnet_tensor *tensor,
                                             const struct attention_strip *strip, int64_t head) {
    struct strided_rows rows = strip_rows(tensor, strip, head);
    rows.first += (strip->first_query - strip->first) * tensor->shape[2] * rows.width;
    return rows;
}

/* Rows [begin, begin + count) times `scale` to out (count, stride), zeros up to the stride. */
static inline void pack_rows(float *out, int64_t stride, struct strided_rows rows, int64_t begin,
                             int64_t count, float scale) {
    for (int64_t i = begin; i < begin + count; i++, out += stride) {
        load_floats(out, rows.data, rows.first + i * rows.step, rows.width, rows.dtype);
        if (scale != 1.0f)
            for (int64_t d = 0; d < rows.width; d++) out[d] *= scale;
        for (int64_t d = rows.width; d < stride; d++) out[d] = 0;
    }
}

/* Copies of the last of `count` rows up to `padded`: rows that can be computed with and are never
 * kept, finite where the last one is. */
static inline void pad_rows(float *rows, int64_t stride, int64_t count, int64_t padded) {
    for (; count < padded; count++)
        memcpy(rows + count * stride, rows + (count - 1) * stride, (size_t)stride * sizeof *rows);
}

/* Asks for a row that pack_rows() will read soon. */
static inline void prefetch_row(struct strided_rows rows, int64_t row) {
    int64_t size = rows.dtype == LNET_FLOAT32 ? 4 : 2;
    uintptr_t begin = (uintptr_t)rows.data + (uintptr_t)((rows.first + row * rows.step) * size);
    uintptr_t end = begin + (uintptr_t)(rows.width * size);
    for (begin &= ~(uintptr_t)(LINE - 1); begin < end; begin += LINE)
        __builtin_prefetch((const void *)begin, 0, 2);
}

/* Rows of several tensors to ask for before their turn: next to end of each, `pace` at a time,
 * between two blocks of arithmetic. */
enum { MAX_AHEAD = 3 };
struct ahead {
    struct strided_rows rows[MAX_AHEAD];
    int64_t next[MAX_AHEAD], end[MAX_AHEAD], pace[MAX_AHEAD];
};

static __attribute__((noinline)) void look_ahead(struct ahead *ahead) {
    for (int i = 0; i < MAX_AHEAD; i++) {
        int64_t end = min_int(ahead->next[i] + ahead->pace[i], ahead->end[i]);
        for (; ahead->next[i] < end; ahead->next[i]++) prefetch_row(ahead->rows[i], ahead->next[i]);
    }
}

typedef float quad __attribute__((vector_size(16)));

/* out (cols, out_stride) = transpose of in (rows, in_stride); rows and cols multiples of 4. */
static inline void transpose(float *restrict out, int64_t out_stride, const float *restrict in,
                             int64_t in_stride, int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r += 4) {
        for (int64_t c = 0; c < cols; c += 4) {
            const float *from = in + r * in_stride + c;
            float *to = out + c * out_stride + r;
            quad x[4], y[4];
            for (int i = 0; i < 4; i++) memcpy(&x[i], from + i * in_stride, sizeof x[i]);
            y[0] = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5);
            y[1] = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
            y[2] = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7);
            y[3] = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
            x[0] = __builtin_shufflevector(y[0], y[1], 0, 1, 4, 5);
            x[1] = __builtin_shufflevector(y[0], y[1], 2, 3, 6, 7);
            x[2] = __builtin_shufflevector(y[2], y[3], 0, 1, 4, 5);
            x[3] = __builtin_shufflevector(y[2], y[3], 2, 3, 6, 7);
            for (int i = 0; i < 4; i++) memcpy(to + i * out_stride, &x[i], sizeof x[i]);
        }
    }
}

/* acc += a (BLOCK numbers a_row apart) times b (a vector or more) */
ALWAYS_INLINE void multiply_add_row(vec acc[BLOCK][MAX_VECS], int vecs, const float *a,
                                    int64_t a_row, const float *b) {
    vec row[MAX_VECS];
    UNROLLED for (int j = 0; j < vecs; j++) row[j] = vec_load(b + j * VLEN);
    UNROLLED for (int i = 0; i < BLOCK; i++) {
        vec x = vec_set(a[i * a_row]);
        UNROLLED for (int j = 0; j < vecs; j++) acc[i][j] += x * row[j];
    }
}

/* acc += a (BLOCK rows a_row apart, columns a_step apart) times b (depth rows b_step apart). */
ALWAYS_INLINE void multiply_add(vec acc[BLOCK][MAX_VECS], int vecs, const float *a, int64_t a_row,
                                int64_t a_step, const float *b, int64_t b_step, int64_t depth) {
    for (int64_t k = 0; k < depth; k++, a += a_step, b += b_step)
        multiply_add_row(acc, vecs, a, a_row, b);
}

/* Cache lines of one run of memory. */
struct lines {
    char *begin;
    int64_t count;
};

/* Of the depth of a product, to a line that is cleared meanwhile: with fewer, memory does not keep
 * up; with more, not all zeros are written by the end of a backward pass at rate 16. */
enum { ROWS_PER_LINE = 3 };

/* How many lines multiply_add_clearing() may clear. */
static inline int64_t lines_in(int64_t depth) {
    return depth / ROWS_PER_LINE;
}

/* The same, clearing lines meanwhile: one by one, as the loads after a burst of stores wait until
 * memory has taken them. */
ALWAYS_INLINE void multiply_add_clearing(vec acc[BLOCK][MAX_VECS], int vecs, const float *a,
                                         int64_t a_row, int64_t a_step, const float *b,
                                         int64_t b_step, int64_t depth, struct lines lines) {
    for (int64_t line = 0; line < lines.count; line++) {
        stream_zero_line(lines.begin + line * LINE);
        for (int i = 0; i < ROWS_PER_LINE; i++, a += a_step, b += b_step)
            multiply_add_row(acc, vecs, a, a_row, b);
    }
    multiply_add(acc, vecs, a, a_row, a_step, b, b_step, depth - ROWS_PER_LINE * lines.count);
}

ALWAYS_INLINE void clear_block(vec acc[BLOCK][MAX_VECS], int vecs) {
    FOR_BLOCK(i, j, vecs) {
        acc[i][j] = (vec){0};
    }
}

ALWAYS_INLINE void store_block(float *c, int64_t stride, vec acc[BLOCK][MAX_VECS], int vecs) {
    FOR_BLOCK(i, j, vecs) {
        vec_store(c + i * stride + j * VLEN, acc[i][j]);
    }
}

/* c += acc: adding at the end spares the compiler from keeping two copies of the block. */
ALWAYS_INLINE void add_block(float *c, int64_t stride, vec acc[BLOCK][MAX_VECS], int vecs) {
    FOR_BLOCK(i, j, vecs) {
        float *at = c + i * stride + j * VLEN;
        vec_store(at, vec_load(at) + acc[i][j]);
    }
}

/* Makes of an always inlined f(vecs, unit, tile) a function f_of() that calls one of three, each
 * compiled with a number of vectors that the compiler knows, and with the registers to itself. */
#define INSTANTIATE(f, unit_type, tile_type)                                                       \
    static __attribute__((noinline)) void f##_1(const unit_type *unit, const tile_type *tile) {    \
        f(1, unit, tile);                                                                          \
    }                                                                                              \
    static __attribute__((noinline)) void f##_2(const unit_type *unit, const tile_type *tile) {    \
        f(2, unit, tile);                                                                          \
    }                                                                                              \
    static __attribute__((noinline)) void f##_3(const unit_type *unit, const tile_type *tile) {    \
        f(3, unit, tile);                                                                          \
    }                                                                                              \
    static inline void f##_of(int64_t vecs, const unit_type *unit, const tile_type *tile) {        \
        (vecs == 3 ? f##_3 : vecs == 2 ? f##_2 : f##_1)(unit, tile);                               \
    }

/* The numbers of the lanes. */
static inline veci lane_numbers(void) {
    veci lanes;
    for (int i = 0; i < VLEN; i++) lanes[i] = i;
    return lanes;
}

static inline bool all_finite(const float *x, int64_t n) {
    veci odd = {0};
    int64_t i = 0;
    for (; i + VLEN <= n; i += VLEN) {
        vec v = vec_load(x + i);
        odd |= v - v != (vec){0};
    }
    bool finite = true;
    for (int lane = 0; lane < VLEN; lane++) finite = finite && odd[lane] == 0;
    for (; i < n; i++) finite = finite && x[i] - x[i] == 0;
    return finite;
}

/* A part of a block of scratch memory; with base NULL only its size is counted. */
static inline float *carve(float *base, int64_t *used, int64_t floats) {
    int64_t at = *used;
    *used += round_up(floats, 16);
    return base != NULL ? base + at : NULL;
}

#endif
