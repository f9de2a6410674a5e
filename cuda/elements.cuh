/* Ops that see tensors as flat arrays: what the op does is computed in float32, whatever the
 * storage is. It is a struct with a function
 *
 *     template <typename element, int V>
 *     __device__ void run(float (*y)[V], const float (*x)[V], int64_t first) const;
 *
 * that computes elements first to first + V - 1 of the outputs y[0], y[1], ... from those of the
 * inputs x[0], x[1], ...; V is a multiple of 4, and so is `first`. `element` is the storage's type
 * of the outputs. Elements past the end of the tensors are 0 in the inputs and not stored.
 *
 * An output may be an input. Tensors that begin at odd places are read and written by elements. */
#ifndef LNET_CUDA_ELEMENTS_CUH
#define LNET_CUDA_ELEMENTS_CUH

#include "cuda/packs.cuh"

enum {
    ELEMENT_THREADS = 256,
    ELEMENT_PACKS = 2, /* of a tensor that a thread has on their way at one time */
};

template <int OUTS, int INS> struct element_job {
    void *out[OUTS];
    const void *in[INS > 0 ? INS : 1];
    int64_t count;
    bool aligned; /* for_elements() sets it */
};

/* A block's elements from `begin` on; with `whole` there are as many as it takes. */
template <bool whole, typename Out, typename In, int V, int OUTS, int INS, typename op>
static __device__ __forceinline__ void run_tile(const element_job<OUTS, INS> &job, const op &f,
                                                int64_t begin) {
    lnet_pack<In, V> in[ELEMENT_PACKS][INS > 0 ? INS : 1];
    begin += static_cast<int64_t>(threadIdx.x) * V;
#pragma unroll
    for (int u = 0; u < ELEMENT_PACKS; u++)
#pragma unroll
        for (int i = 0; i < INS; i++) {
            int64_t first = begin + u * ELEMENT_THREADS * V;
            const In *from = static_cast<const In *>(job.in[i]) + first;
            if (whole)
                lnet_read(&in[u][i], from);
            else
                lnet_read_part(&in[u][i], from, job.count - first);
        }
#pragma unroll
    for (int u = 0; u < ELEMENT_PACKS; u++) {
        int64_t first = begin + u * ELEMENT_THREADS * V;
        float x[INS > 0 ? INS : 1][V], y[OUTS][V];
#pragma unroll
        for (int i = 0; i < INS; i++) lnet_widen(x[i], in[u][i]);
        f.template run<Out>(y, x, first);
#pragma unroll
        for (int i = 0; i < OUTS; i++) {
            lnet_pack<Out, V> out;
            Out *to = static_cast<Out *>(job.out[i]) + first;
            lnet_narrow(&out, y[i]);
            if (whole)
                lnet_write(to, out);
            else
                lnet_write_part(to, out, job.count - first);
        }
    }
}

template <typename Out, typename In, int V, int OUTS, int INS, typename op>
static __global__ void __launch_bounds__(ELEMENT_THREADS)
    run_elements(const element_job<OUTS, INS> job, const op f) {
    const int64_t tile = ELEMENT_THREADS * ELEMENT_PACKS * V;
    for (int64_t begin = blockIdx.x * tile; begin < job.count; begin += gridDim.x * tile)
        if (job.aligned && begin + tile <= job.count)
            run_tile<true, Out, In, V>(job, f, begin);
        else
            run_tile<false, Out, In, V>(job, f, begin);
}

/* Blocks for `count` elements, `tile` a block; kernels go on where there are more. */
static inline unsigned lnet_blocks(int64_t count, int64_t tile) {
    const int64_t most = 1 << 24;
    int64_t blocks = (count + tile - 1) / tile;
    return static_cast<unsigned>(blocks < most ? blocks : most);
}

/* Outputs of one type, inputs of one type. */
template <typename Out, typename In, int OUTS, int INS, typename op>
static lnet_status for_elements_of(const char *name, element_job<OUTS, INS> job, const op &f,
                                   lnet_stream *stream) {
    const int V = 16 / (sizeof(Out) > sizeof(In) ? sizeof(Out) : sizeof(In));
    if (job.count == 0) return LNET_OK;
    job.aligned = true;
    for (int i = 0; i < OUTS; i++)
        job.aligned = job.aligned && lnet_is_aligned(job.out[i], V * sizeof(Out));
    for (int i = 0; i < INS; i++)
        job.aligned = job.aligned && lnet_is_aligned(job.in[i], V * sizeof(In));
    run_elements<Out, In, V>
        <<<lnet_blocks(job.count, ELEMENT_THREADS * ELEMENT_PACKS * V), ELEMENT_THREADS, 0,
           lnet_cuda_stream(stream)>>>(job, f);
    return lnet_cuda_launched(name);
}

/* Tensors of one dtype. */
template <int OUTS, int INS, typename op>
static lnet_status for_elements(const char *name, lnet_dtype dtype,
                                const element_job<OUTS, INS> &job, const op &f,
                                lnet_stream *stream) {
    return lnet_by_dtype(dtype, [&](auto zero) {
        return for_elements_of<decltype(zero), decltype(zero)>(name, job, f, stream);
    });
}

#endif
