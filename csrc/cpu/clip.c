#include "ops/clip.h"

#include "cpu/cpu.h"

#include <math.h>

lnet_status LNET_CPU(clip)(const struct lnet_clip_args *args, lnet_stream *stream) {
    double squares = (double)*(const float *)args->squares->data;
    float norm = (float)(sqrt(squares) / args->divisor);
    double factor = fmin(1.0, args->max_norm / fmax((double)norm, 1e-30)) / args->divisor;
    (void)stream;
    *(float *)args->norm->data = norm;
    *(float *)args->factor->data = isfinite(norm) ? (float)factor : NAN;
    return LNET_OK;
}
