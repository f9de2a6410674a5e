/* Rows a step apart, side by side. */
#include "cuda/stepped_rows.cuh"

extern "C" {
#include "ops/gather_rows.h"
}

#include <math.h>

template <typename element, int N> struct gather_op {
    enum { AHEAD = 4 };
    element *out;
    const element *x;
    int64_t batch_pitch, head_pitch, row_pitch; /* of x, in elements */
    int64_t group;                              /* heads that share one of x */
    float missing;

    __device__ __forceinline__ void run(const stepped_job &job, const stepped_place &at) const {
        const lnet_stepped_rows &head = job.heads[at.local];
        const int64_t width = job.packets * N;
        const element *from = x + at.batch * batch_pitch + at.head / group * head_pitch;
        element *to = out + (at.batch * job.head_count + at.head) * job.rows * width;
        for (int64_t i = at.lane; i < job.packets; i += at.lanes) {
            packet<element, N> ahead[AHEAD];
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                const int64_t m = at.m + j * at.stride;
                float gap[N];
#pragma unroll
                for (int e = 0; e < N; e++) gap[e] = missing;
                if (job.has(head, m))
                    ahead[j].load(from + job.row(head, m) * row_pitch, i);
                else
                    ahead[j].narrow(gap);
            }
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                const int64_t m = at.m + j * at.stride;
                if (m < job.rows) ahead[j].store(to + m * width, i);
            }
        }
    }
};

template <typename element, int N>
static lnet_status launch(const struct lnet_gather_rows_args *a, lnet_stream *stream) {
    const int64_t *shape = a->x->shape;
    const bool statistic = a->x->ndim == 3; /* (B, H, N), else (B, N, Hx, D) */
    const int64_t length = shape[statistic ? 2 : 1], width = statistic ? 1 : shape[3];
    gather_op<element, N> op = {};
    op.out = data_of<element>(a->out);
    op.x = data_of<element>(a->x);
    op.batch_pitch = shape[1] * shape[2] * width;
    op.head_pitch = statistic ? length : width;
    op.row_pitch = statistic ? 1 : shape[2] * width;
    op.group = statistic || shape[2] == 0 ? 1 : a->starts.count / shape[2];
    op.missing = statistic ? -INFINITY : 0.0f;
    return for_stepped_rows("gather_rows", op, shape[0], a->out->shape[1], width / N, length,
                            op.group, a->starts, a->step, stream);
}

extern "C" lnet_status lnet_cuda_gather_rows(const struct lnet_gather_rows_args *a,
                                             lnet_stream *stream) {
    const int64_t width = a->x->ndim == 3 ? 1 : a->x->shape[3];
    if (lnet_elements_of(a->out) == 0) return LNET_OK;
    return lnet_by_dtype(a->x->dtype, [&](auto zero) {
        using element = decltype(zero);
        constexpr int N = packet_size<element>;
        return in_packets(width, N, a->out, a->x) ? launch<element, N>(a, stream)
                                                  : launch<element, 1>(a, stream);
    });
}
