/* What layer_norm and rms_norm normalise: rows of x, of gelu(x), or of sum = x + residual. */
#ifndef LNET_CPU_NORM_H
#define LNET_CPU_NORM_H

#include "cpu/functions.h"
#include "cpu/rows.h"

static inline const float *row_gelu(const float *x, int64_t width, float *h) {
    for (int64_t d = 0; d < width; d += VLEN)
        row_store(h, d, width, vec_gelu(row_load(x, d, width)));
    return h;
}

/* Row m of x + residual; it is stored in `sum`, and comes as it is stored. */
static inline const float *row_residual(const lnet_tensor *x, const lnet_tensor *residual,
                                        lnet_tensor *sum, int64_t m, int64_t width, float *scratch,
                                        float *more_scratch) {
    const float *a = row_in(x, m * width, width, scratch);
    const float *b = row_in(residual, m * width, width, more_scratch);
    float *out = row_out(sum, m * width, scratch);
    for (int64_t d = 0; d < width; d += VLEN)
        row_store(out, d, width, row_load(a, d, width) + row_load(b, d, width));
    row_done(sum, m * width, width, out);
    return row_in(sum, m * width, width, scratch);
}

/* Row m of what is normalised, in two rows of scratch. */
static inline const float *norm_input(const lnet_tensor *x, const lnet_tensor *residual,
                                      lnet_tensor *sum, bool gelu, int64_t m, int64_t width,
                                      float *scratch, float *more_scratch) {
    if (residual != NULL) return row_residual(x, residual, sum, m, width, scratch, more_scratch);
    const float *row = row_in(x, m * width, width, scratch);
    return gelu ? row_gelu(row, width, more_scratch) : row;
}

/* dx from the gradient of what is normalised: elements from d on of rows x and dsum (or NULL). */
static inline vec norm_input_gradient(vec dh, const float *x, const float *dsum, bool gelu,
                                      int64_t d, int64_t width) {
    if (gelu) dh *= vec_gelu_slope(row_load(x, d, width));
    return dsum != NULL ? dh + row_load(dsum, d, width) : dh;
}

#endif
