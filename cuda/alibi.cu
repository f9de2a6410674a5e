/* ALiBi's dimensions before those of x. */
#include "cuda/positions.cuh"
#include "cuda/rows.cuh"

extern "C" {
#include "ops/alibi.h"
}

#include <math.h>

enum { THREADS = 256, EXTRA = LNET_ALIBI_EXTRA };

struct alibi_job {
    const float *slopes;
    const int64_t *starts; /* (S+1,) or NULL */
    int64_t documents;
    int64_t length, heads;      /* N and H */
    int64_t packets, x_packets; /* of a head, in out and in x */
    int64_t all;                /* packets of out */
    int64_t start, block;
    int sign;
};

/* The first eight bits of a number, toward 0. */
static __device__ float leading(float x) {
    return __uint_as_float(__float_as_uint(x) & 0xffff0000u);
}

static __device__ void of_query(float (&extra)[EXTRA], float slope, float b) {
    const float m = leading(slope), rest = slope - m, shift = slope * b / 256.0f;
    const float c = leading(shift);
    extra[0] = -c, extra[1] = c - shift;
    extra[2] = 256.0f * m, extra[3] = 16.0f * m, extra[4] = m;
    extra[5] = 256.0f * rest, extra[6] = 16.0f * rest, extra[7] = rest;
}

static __device__ void of_key(float (&extra)[EXTRA], int b) {
    extra[0] = extra[1] = 256.0f;
    extra[2] = extra[5] = 256.0f * static_cast<float>(b >> 16);
    extra[3] = extra[6] = 16.0f * static_cast<float>(b >> 8 & 255);
    extra[4] = extra[7] = static_cast<float>(b & 255);
}

/* `line` is a head of a row. */
static __device__ void extra_of(float (&extra)[EXTRA], const alibi_job &a, int64_t line) {
#pragma unroll
    for (int i = 0; i < EXTRA; i++) extra[i] = 0.0f;
    if (a.sign == 0) return;
    const int64_t row = a.start + line / a.heads % a.length;
    const int64_t position = position_in(a.starts, a.documents, row);
    const int b = static_cast<int>(position % a.block);
    if (a.sign > 0)
        of_query(extra, a.slopes[line % a.heads], static_cast<float>(b));
    else
        of_key(extra, b);
    if (position >= 0) return;
#pragma unroll
    for (int i = 0; i < EXTRA; i++) extra[i] = NAN;
}

template <typename element, int N>
static __global__ void __launch_bounds__(THREADS)
    widen_heads(element *out, const element *x, const alibi_job a) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * THREADS;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; i < a.all;
         i += step) {
        const int64_t line = i / a.packets, pack = i - line * a.packets;
        packet<element, N> p;
        if (pack * N >= EXTRA) {
            p.load(x, line * a.x_packets + pack - EXTRA / N);
        } else {
            float extra[EXTRA], mine[N];
            extra_of(extra, a, line);
#pragma unroll
            for (int e = 0; e < EXTRA; e++)
                if (e / N == pack) mine[e % N] = extra[e];
            p.narrow(mine);
        }
        p.store(out, i);
    }
}

template <typename element, int N>
static lnet_status launch(const struct lnet_alibi_args *args, alibi_job a, lnet_stream *stream) {
    const int64_t dim = args->x->shape[3];
    int64_t blocks = 0;
    a.packets = (dim + EXTRA) / N;
    a.x_packets = dim / N;
    a.all = lnet_elements_of(args->out) / N;
    lnet_status status = resident_blocks(&blocks, widen_heads<element, N>, THREADS, 0,
                                         (a.all - 1) / THREADS + 1, stream);
    if (status != LNET_OK) return status;
    widen_heads<element, N>
        <<<static_cast<unsigned>(blocks), THREADS, 0, lnet_cuda_stream(stream)>>>(
            data_of<element>(args->out), data_of<element>(args->x), a);
    return lnet_cuda_launched("widen_heads");
}

extern "C" lnet_status lnet_cuda_alibi(const struct lnet_alibi_args *args, lnet_stream *stream) {
    const int64_t *shape = args->x->shape;
    alibi_job a = {};
    if (lnet_elements_of(args->out) == 0) return LNET_OK;
    if (args->slopes != NULL) a.slopes = data_of<float>(args->slopes);
    if (args->cu_seqlens != NULL) {
        a.starts = data_of<int64_t>(args->cu_seqlens);
        a.documents = args->cu_seqlens->shape[0] - 1;
    }
    a.length = shape[1];
    a.heads = shape[2];
    a.start = args->start;
    a.block = args->block;
    a.sign = static_cast<int>(args->sign);
    return lnet_by_dtype(args->x->dtype, [&](auto zero) {
        using element = decltype(zero);
        constexpr int N = packet_size<element>;
        return in_packets(shape[3], N, args->out, args->x) ? launch<element, N>(args, a, stream)
                                                           : launch<element, 1>(args, a, stream);
    });
}
