/* Ops on rows a step apart (ops/stepped_rows.h). What an op does is a struct with a number AHEAD
 * and a function
 *
 *     __device__ void run(const stepped_job &job, const stepped_place &place) const;
 *
 * that handles the thread's part of AHEAD rows of a head: a row belongs to some lanes of a warp, a
 * power of two, each of which has every so manieth of its packets. All threads of a block come. */
#ifndef LNET_CUDA_STEPPED_ROWS_CUH
#define LNET_CUDA_STEPPED_ROWS_CUH

#include "cuda/rows.cuh"

extern "C" {
#include "ops/stepped_rows.h"
}

enum {
    STEPPED_THREADS = 256,
    STEPPED_HEADS = 128, /* of a launch: they are parameters of the kernel, which has 4 KiB */
};

struct stepped_job {
    lnet_stepped_rows heads[STEPPED_HEADS]; /* first_head and on */
    int64_t first_head, heads_here, head_count;
    int64_t batches;
    int64_t rows, packets; /* M, and packets of a row */
    int64_t step;
    int lane_bits; /* a row has 2^lane_bits lanes */

    /* Whether row m of a head is a row of the sequence, and which. */
    __device__ __forceinline__ bool has(const lnet_stepped_rows &head, int64_t m) const {
        return m < rows && head.first + m >= 0 && head.first + m < head.count;
    }
    __device__ __forceinline__ int64_t row(const lnet_stepped_rows &head, int64_t m) const {
        return head.residue + (head.first + m) * step;
    }
};

/* Rows m, m + stride, m + 2 * stride, ... of a head, and of these packets lane, lane + lanes, ... */
struct stepped_place {
    int64_t batch, head; /* of H */
    int64_t local;       /* head - first_head */
    int64_t m, stride;
    int lane, lanes;
};

template <typename op>
static __global__ void __launch_bounds__(STEPPED_THREADS)
    run_stepped(const stepped_job job, const op f) {
    const int thread = static_cast<int>(threadIdx.x);
    const int64_t parts = job.batches * job.heads_here;
    stepped_place place;
    place.lanes = 1 << job.lane_bits;
    place.lane = thread & (place.lanes - 1);
    place.stride = STEPPED_THREADS >> job.lane_bits;
    const int64_t tile = place.stride * op::AHEAD;
    for (int64_t part = blockIdx.y; part < parts; part += gridDim.y) {
        place.batch = part / job.heads_here;
        place.local = part % job.heads_here;
        place.head = job.first_head + place.local;
        for (int64_t m = blockIdx.x * tile; m < job.rows; m += gridDim.x * tile) {
            place.m = m + (thread >> job.lane_bits);
            f.run(job, place);
        }
    }
}

/* Heads of one launch from `first` on: whole groups of heads, or a part of one. */
static inline int64_t stepped_heads_from(int64_t first, int64_t count, int64_t group) {
    int64_t most = STEPPED_HEADS / group * group;
    if (most == 0) {
        most = group - first % group;
        if (most > STEPPED_HEADS) most = STEPPED_HEADS;
    }
    return count - first < most ? count - first : most;
}

/* `rows` are M, of `packets` packets; `length` is N. Launches follow each other in the order of the
 * heads, `group` of which share a head of the sequence. */
template <typename op>
static lnet_status for_stepped_rows(const char *name, const op &f, int64_t batches, int64_t rows,
                                    int64_t packets, int64_t length, int64_t group,
                                    lnet_int64_list starts, int64_t step, lnet_stream *stream) {
    const int64_t most_blocks = 1 << 20, most_parts = 65535;
    stepped_job job = {};
    job.head_count = starts.count;
    job.batches = batches;
    job.rows = rows;
    job.packets = packets;
    job.step = step;
    while (job.lane_bits < 5 && 1 << job.lane_bits < packets) job.lane_bits++;
    if (batches == 0 || rows == 0) return LNET_OK;
    const int64_t tile = (STEPPED_THREADS >> job.lane_bits) * op::AHEAD;
    const int64_t blocks = (rows - 1) / tile + 1;
    while (job.first_head < job.head_count) {
        job.heads_here = stepped_heads_from(job.first_head, job.head_count, group);
        for (int64_t h = 0; h < job.heads_here; h++)
            job.heads[h] = lnet_rows_from(starts.items[job.first_head + h], step, length);
        const int64_t parts = batches * job.heads_here;
        const dim3 grid(static_cast<unsigned>(blocks < most_blocks ? blocks : most_blocks),
                        static_cast<unsigned>(parts < most_parts ? parts : most_parts));
        run_stepped<<<grid, STEPPED_THREADS, 0, lnet_cuda_stream(stream)>>>(job, f);
        lnet_status status = lnet_cuda_launched(name);
        if (status != LNET_OK) return status;
        job.first_head += job.heads_here;
    }
    return LNET_OK;
}

#endif
