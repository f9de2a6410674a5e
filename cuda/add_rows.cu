/* Rows a step apart, added to a sequence. Heads of a group may meet in a row of x: the first of
 * them adds up all of theirs, so that no row has two writers and the order is that of the heads.
 * Groups of more than STEPPED_HEADS heads are cut into launches that follow each other. */
#include "cuda/stepped_rows.cuh"

extern "C" {
#include "ops/add_rows.h"
}

template <typename sum, typename element, int N> struct add_op {
    enum { AHEAD = 2 };
    sum *x;
    const element *part;
    int64_t length, group; /* N, and H / Hx */

    /* Whether a head has row k of those with the residue of `rows`. */
    __device__ __forceinline__ bool meets(const stepped_job &job, const lnet_stepped_rows &rows,
                                          int64_t k, int64_t local) const {
        const lnet_stepped_rows &other = job.heads[local];
        return other.residue == rows.residue && k >= other.first && k < other.first + job.rows;
    }

    __device__ __forceinline__ void run(const stepped_job &job, const stepped_place &at) const {
        const lnet_stepped_rows &head = job.heads[at.local];
        const int64_t width = job.packets * N, x_head = at.head / group;
        const int64_t group_begin = x_head * group - job.first_head;
        const int64_t begin = group_begin > 0 ? group_begin : 0;
        const int64_t end =
            group_begin + group < job.heads_here ? group_begin + group : job.heads_here;
        const int64_t first_part = at.batch * job.head_count + job.first_head;
        sum *to[AHEAD];
        bool mine[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const int64_t m = at.m + j * at.stride;
            mine[j] = job.has(head, m);
            const int64_t n = at.batch * length + (mine[j] ? job.row(head, m) : 0);
            to[j] = x + (n * (job.head_count / group) + x_head) * width;
            for (int64_t h = begin; h < at.local && mine[j]; h++)
                mine[j] = !meets(job, head, head.first + m, h);
        }
        for (int64_t i = at.lane; i < job.packets; i += at.lanes) {
            packet<sum, N> sums[AHEAD];
            packet<element, N> parts[AHEAD];
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                if (!mine[j]) continue;
                const int64_t m = at.m + j * at.stride;
                sums[j].load(to[j], i);
                parts[j].load(part + ((first_part + at.local) * job.rows + m) * width, i);
            }
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                if (!mine[j]) continue;
                const int64_t k = head.first + at.m + j * at.stride;
                float total[N], one[N];
                sums[j].widen(total);
                parts[j].widen(one);
#pragma unroll
                for (int e = 0; e < N; e++) total[e] += one[e];
                for (int64_t h = at.local + 1; h < end; h++) {
                    if (!meets(job, head, k, h)) continue;
                    const int64_t m = k - job.heads[h].first;
                    load_floats(one, part + ((first_part + h) * job.rows + m) * width, i);
#pragma unroll
                    for (int e = 0; e < N; e++) total[e] += one[e];
                }
                store_floats(to[j], i, total);
            }
        }
    }
};

template <typename sum, typename element, int N>
static lnet_status launch(const struct lnet_add_rows_args *a, lnet_stream *stream) {
    const int64_t *shape = a->x->shape;
    add_op<sum, element, N> op = {};
    op.x = data_of<sum>(a->x);
    op.part = data_of<element>(a->part);
    op.length = shape[1];
    op.group = a->starts.count / shape[2];
    return for_stepped_rows("add_rows", op, shape[0], a->part->shape[1], shape[3] / N, shape[1],
                            op.group, a->starts, a->step, stream);
}

template <typename sum, typename element>
static lnet_status launch_packets(const struct lnet_add_rows_args *a, lnet_stream *stream) {
    constexpr int N = sizeof(sum) > sizeof(element) ? packet_size<sum> : packet_size<element>;
    return in_packets(a->x->shape[3], N, a->x, a->part) ? launch<sum, element, N>(a, stream)
                                                        : launch<sum, element, 1>(a, stream);
}

extern "C" lnet_status lnet_cuda_add_rows(const struct lnet_add_rows_args *a, lnet_stream *stream) {
    if (lnet_elements_of(a->part) == 0) return LNET_OK;
    if (a->part->dtype == LNET_FLOAT32)
        return lnet_by_dtype(a->x->dtype, [&](auto zero) {
            return launch_packets<decltype(zero), float>(a, stream);
        });
    return lnet_by_dtype(a->part->dtype, [&](auto zero) {
        using element = decltype(zero);
        return a->x->dtype == LNET_FLOAT32 ? launch_packets<float, element>(a, stream)
                                           : launch_packets<element, element>(a, stream);
    });
}
