/* Two softmaxes over different keys become one, for rows a step apart. All lanes of a row find its
 * weights; one of them writes the new LSE after all have read the old. */
#include "cuda/stepped_rows.cuh"

extern "C" {
#include "ops/merge_rows.h"
}

#include <math.h>

template <typename result, typename element, int N> struct merge_op {
    enum { AHEAD = 2 };
    result *out;
    float *lse;
    const element *part;
    const float *part_lse;
    int64_t length; /* N */

    __device__ __forceinline__ void run(const stepped_job &job, const stepped_place &at) const {
        const lnet_stepped_rows &head = job.heads[at.local];
        const int64_t width = job.packets * N;
        const int64_t part_row = (at.batch * job.head_count + at.head) * job.rows + at.m;
        const int64_t lse_row = (at.batch * job.head_count + at.head) * length;
        result *to[AHEAD];
        float l[AHEAD], p[AHEAD], keep[AHEAD], take[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const int64_t m = at.m + j * at.stride;
            const bool exists = job.has(head, m);
            const int64_t n = exists ? job.row(head, m) : 0;
            to[j] = out + ((at.batch * length + n) * job.head_count + at.head) * width;
            p[j] = exists ? part_lse[part_row + j * at.stride] : -INFINITY;
            l[j] = exists ? lse[lse_row + n] : -INFINITY;
        }
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            /* the weights of the larger denominator and of the smaller one */
            const float ratio = expf(-fabsf(l[j] - p[j])), large = 1.0f / (1.0f + ratio);
            const bool kept = l[j] > p[j];
            keep[j] = kept ? large : ratio * large;
            take[j] = kept ? ratio * large : large;
        }
        for (int64_t i = at.lane; i < job.packets; i += at.lanes) {
            packet<result, N> old[AHEAD];
            packet<element, N> parts[AHEAD];
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                if (p[j] == -INFINITY) continue;
                if (keep[j] != 0.0f) old[j].load(to[j], i);
                parts[j].load(part + (part_row + j * at.stride) * width, i);
            }
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                if (p[j] == -INFINITY) continue;
                float mixed[N], before[N] = {};
                parts[j].widen(mixed);
                if (keep[j] != 0.0f) old[j].widen(before);
#pragma unroll
                for (int e = 0; e < N; e++) mixed[e] = mixed[e] * take[j] + before[e] * keep[j];
                store_floats(to[j], i, mixed);
            }
        }
        __syncwarp();
#pragma unroll
        for (int j = 0; j < AHEAD; j++)
            if (at.lane == 0 && p[j] != -INFINITY)
                lse[lse_row + job.row(head, at.m + j * at.stride)] =
                    (l[j] > p[j] ? l[j] : p[j]) + log1pf(expf(-fabsf(l[j] - p[j])));
    }
};

template <typename result, typename element, int N>
static lnet_status launch(const struct lnet_merge_rows_args *a, lnet_stream *stream) {
    const int64_t *shape = a->out->shape;
    merge_op<result, element, N> op = {};
    op.out = data_of<result>(a->out);
    op.lse = data_of<float>(a->lse);
    op.part = data_of<element>(a->part);
    op.part_lse = data_of<float>(a->part_lse);
    op.length = shape[1];
    return for_stepped_rows("merge_rows", op, shape[0], a->part->shape[1], shape[3] / N, shape[1],
                            1, a->starts, a->step, stream);
}

template <typename result, typename element>
static lnet_status launch_packets(const struct lnet_merge_rows_args *a, lnet_stream *stream) {
    constexpr int N = packet_size<result>;
    return in_packets(a->out->shape[3], N, a->out, a->part)
               ? launch<result, element, N>(a, stream)
               : launch<result, element, 1>(a, stream);
}

extern "C" lnet_status lnet_cuda_merge_rows(const struct lnet_merge_rows_args *a,
                                            lnet_stream *stream) {
    return lnet_by_dtype(a->part->dtype, [&](auto zero) {
        using element = decltype(zero);
        return a->out->dtype == LNET_FLOAT32 ? launch_packets<float, element>(a, stream)
                                             : launch_packets<element, element>(a, stream);
    });
}
