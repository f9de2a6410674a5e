/* Rows a step apart, as gather_rows, add_rows and merge_rows see them: row m of head h,
 * 0 <= m < M, stands for row
 *
 *     n = starts[h] + m * step
 *
 * of a sequence of N rows. starts[h] may be negative or beyond N; where n is outside [0, N) there
 * is no such row.
 *
 * Seen from the sequence n = residue + k * step with 0 <= residue < step and k = first + m, so that
 * two heads meet in a row where they have the same residue and the same k. */
#ifndef LNET_OPS_STEPPED_ROWS_H
#define LNET_OPS_STEPPED_ROWS_H

#include "lnet/op.h"

/* The rows of a head: those of the sequence have 0 <= k < count. */
struct lnet_stepped_rows {
    int64_t residue, first, count;
};

static inline struct lnet_stepped_rows lnet_rows_from(int64_t start, int64_t step, int64_t length) {
    struct lnet_stepped_rows rows;
    rows.first = start / step;
    rows.residue = start % step;
    if (rows.residue < 0) {
        rows.first -= 1;
        rows.residue += step;
    }
    rows.count = rows.residue < length ? (length - 1 - rows.residue) / step + 1 : 0;
    return rows;
}

/* `part` is rows (B*H, M, D) of x (B, N, Hx, D): H, which is the number of starts, is a multiple of
 * Hx, and head h belongs to head h / (H / Hx) of x. */
lnet_status lnet_check_stepped_rows(const char *op, const char *x_name, const lnet_tensor *x,
                                    const char *part_name, const lnet_tensor *part,
                                    lnet_int64_list starts, int64_t step);

/* `part` is rows (B*H, M) of the float32 statistic x (B, H, N). */
lnet_status lnet_check_stepped_statistic(const char *op, const char *x_name, const lnet_tensor *x,
                                         const char *part_name, const lnet_tensor *part,
                                         lnet_int64_list starts, int64_t step);

#endif
