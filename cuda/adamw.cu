/* A step of AdamW. */
#include "cuda/packs.cuh"
#include "cuda/random.cuh"

extern "C" {
#include "lnet/rounding.h"
#include "ops/adamw.h"
}

enum { THREADS = 256, V = 4 };

enum rounding { NONE, TO_NEAREST, STOCHASTIC };

template <typename gradient> struct adamw_job {
    float *weight, *m, *v;
    void *rounded;
    const gradient *grad;
    const float *factor; /* or NULL */
    int64_t count;
    bool aligned;
    bool bfloat16; /* what `rounded` is; else float16 */
    enum rounding rounding;
    uint64_t seed;
    int64_t first; /* of the words: a multiple of 4 */
    struct lnet_adamw_factors factors;
};

template <typename half>
static __device__ __forceinline__ void store_rounded(void *rounded, int64_t first, int64_t n,
                                                     bool whole, const float (&x)[V]) {
    half *to = static_cast<half *>(rounded) + first;
    lnet_pack<half, V> pack;
    lnet_narrow(&pack, x);
    if (whole)
        lnet_write(to, pack);
    else
        lnet_write_part(to, pack, n);
}

template <typename gradient>
static __device__ __forceinline__ void round_weight(const adamw_job<gradient> &job, int64_t first,
                                                    bool whole, float (&x)[V]) {
    if (job.rounding == STOCHASTIC) {
        uint32_t word[V];
        lnet_random_words(word, job.seed, job.first + first);
#pragma unroll
        for (int i = 0; i < V; i++)
            x[i] = job.bfloat16 ? lnet_round_bfloat16(x[i], word[i])
                                : lnet_round_float16(x[i], word[i]);
    }
    if (job.bfloat16)
        store_rounded<__nv_bfloat16>(job.rounded, first, job.count - first, whole, x);
    else
        store_rounded<__half>(job.rounded, first, job.count - first, whole, x);
}

/* This thread's elements, from `first` on; with `whole` there are V of them, at places for packs. */
template <bool whole, typename gradient>
static __device__ __forceinline__ void update(const adamw_job<gradient> &job, int64_t first) {
    const struct lnet_adamw_factors &f = job.factors;
    float *const place[] = {job.weight + first, job.m + first, job.v + first};
    int64_t n = job.count - first;
    lnet_pack<float, V> packs[3];
    lnet_pack<gradient, V> grads;
    float weight[V], m[V], v[V], grad[V], factor = 1.0f;
#pragma unroll
    for (int i = 0; i < 3; i++)
        if (whole)
            lnet_read(&packs[i], place[i]);
        else
            lnet_read_part(&packs[i], place[i], n);
    if (whole)
        lnet_read(&grads, job.grad + first);
    else
        lnet_read_part(&grads, job.grad + first, n);
    if (job.factor != NULL) { /* looked at when the rest is on its way already */
        factor = *job.factor;
        if (!isfinite(factor)) return;
    }
    lnet_widen(weight, packs[0]);
    lnet_widen(m, packs[1]);
    lnet_widen(v, packs[2]);
    lnet_widen(grad, grads);
#pragma unroll
    for (int i = 0; i < V; i++) {
        float g = grad[i] * factor;
        m[i] = m[i] * f.beta1 + g * f.rest1;
        v[i] = v[i] * f.beta2 + g * g * f.rest2;
        weight[i] = weight[i] * f.keep - m[i] / (sqrtf(v[i]) * f.root_scale + f.eps) * f.rate;
    }
    lnet_narrow(&packs[0], weight);
    lnet_narrow(&packs[1], m);
    lnet_narrow(&packs[2], v);
#pragma unroll
    for (int i = 0; i < 3; i++)
        if (whole)
            lnet_write(place[i], packs[i]);
        else
            lnet_write_part(place[i], packs[i], n);
    if (job.rounding != NONE) round_weight(job, first, whole, weight);
}

template <typename gradient>
static __global__ void __launch_bounds__(THREADS) step(const adamw_job<gradient> job) {
    const int64_t tile = THREADS * V;
    for (int64_t begin = blockIdx.x * tile; begin < job.count; begin += gridDim.x * tile)
        if (job.aligned && begin + tile <= job.count)
            update<true>(job, begin + threadIdx.x * V);
        else
            update<false>(job, begin + threadIdx.x * V);
}

template <typename gradient>
static lnet_status launch(const struct lnet_adamw_args *args, lnet_stream *stream) {
    adamw_job<gradient> job = {};
    const int64_t tile = THREADS * V, most = 1 << 24;
    job.weight = static_cast<float *>(args->weight->data);
    job.m = static_cast<float *>(args->m->data);
    job.v = static_cast<float *>(args->v->data);
    job.grad = static_cast<const gradient *>(args->grad->data);
    job.count = lnet_elements_of(args->weight);
    job.aligned = lnet_is_aligned(job.weight, 16) && lnet_is_aligned(job.m, 16) &&
                  lnet_is_aligned(job.v, 16) && lnet_is_aligned(job.grad, V * sizeof(gradient));
    if (args->rounded != NULL) {
        job.rounded = args->rounded->data;
        job.bfloat16 = args->rounded->dtype == LNET_BFLOAT16;
        job.rounding = args->stochastic ? STOCHASTIC : TO_NEAREST;
        job.aligned = job.aligned && lnet_is_aligned(job.rounded, V * 2);
        job.seed = args->seed;
        job.first = args->first;
    }
    if (args->factor != NULL) job.factor = static_cast<const float *>(args->factor->data);
    job.factors = lnet_adamw_factors(args);
    if (job.count == 0) return LNET_OK;
    int64_t blocks = (job.count + tile - 1) / tile;
    step<<<static_cast<unsigned>(blocks < most ? blocks : most), THREADS, 0,
           lnet_cuda_stream(stream)>>>(job);
    return lnet_cuda_launched("adamw");
}

extern "C" lnet_status lnet_cuda_adamw(const struct lnet_adamw_args *args, lnet_stream *stream) {
    return lnet_by_dtype(args->grad->dtype,
                         [&](auto zero) { return launch<decltype(zero)>(args, stream); });
}
