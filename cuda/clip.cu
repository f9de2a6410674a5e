/* The factor that clips a gradient. */
#include "cuda/common.cuh"

extern "C" {
#include "ops/clip.h"
}

static __global__ void clip(float *factor, float *norm, const float *squares, double max_norm,
                            double divisor) {
    float found = static_cast<float>(sqrt(static_cast<double>(*squares)) / divisor);
    double least = fmin(1.0, max_norm / fmax(static_cast<double>(found), 1e-30)) / divisor;
    *norm = found;
    *factor = isfinite(found) ? static_cast<float>(least) : nanf("");
}

extern "C" lnet_status lnet_cuda_clip(const struct lnet_clip_args *args, lnet_stream *stream) {
    clip<<<1, 1, 0, lnet_cuda_stream(stream)>>>(
        static_cast<float *>(args->factor->data), static_cast<float *>(args->norm->data),
        static_cast<const float *>(args->squares->data), args->max_norm, args->divisor);
    return lnet_cuda_launched("clip");
}
