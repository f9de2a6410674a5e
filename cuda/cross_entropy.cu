/* Cross-entropy and its gradient: a block has a row of logits.
 *
 * The row is read once for the largest logit and the sum, and is then in shared memory for the
 * gradient, as far as it fits there; the rest of a longer one is read again. A target that is out
 * of range and not ignore_index makes loss and gradient of its row NaN. */
#include "cuda/rows.cuh"

extern "C" {
#include "ops/cross_entropy.h"
}

enum {
    THREADS = 512,
    BLOCKS = 2, /* on one multiprocessor */
    AHEAD = 4,  /* packets that a thread has on their way at one time */
};

static const float LOG2_E = 1.44269504088896341f;

/* 2^x, 0 for what would be subnormal. */
static __device__ __forceinline__ float power_of_2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Of some logits the largest and the sum of exp(x - largest). A NaN or +inf among them makes the
 * sum NaN, and nothing but -inf makes it 0; loss and gradient become NaN by either. */
struct softmax {
    float largest, sum;

    /* The sum's terms are relative to this: -inf - -inf would be NaN. */
    __device__ __forceinline__ float shift() const { return largest == -INFINITY ? 0.0f : largest; }
    __device__ __forceinline__ void raise(float to) {
        const float before = largest;
        if (!(to > largest)) return;
        largest = to;
        sum *= power_of_2((before - to) * LOG2_E);
    }
    template <int N> __device__ __forceinline__ void add(const float (&x)[N]) {
        float most = x[0];
#pragma unroll
        for (int i = 1; i < N; i++) most = fmaxf(most, x[i]);
        raise(most);
        const float base = shift();
#pragma unroll
        for (int i = 0; i < N; i++) sum += power_of_2((x[i] - base) * LOG2_E);
    }
    __device__ __forceinline__ void add(softmax other) {
        raise(other.largest); /* and no fused addition, so that both sides of a pair agree */
        const float more = __fmul_rn(other.sum, power_of_2((other.largest - shift()) * LOG2_E));
        sum = __fadd_rn(sum, more);
    }
};

/* Of the whole row, to all threads. */
static __device__ softmax row_softmax(softmax s, softmax *shared) {
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    auto add_lanes = [&] {
        for (int step = 16; step > 0; step /= 2) {
            const softmax other = {__shfl_xor_sync(~0u, s.largest, step),
                                   __shfl_xor_sync(~0u, s.sum, step)};
            s.add(other);
        }
    };
    add_lanes();
    __syncthreads(); /* all have read what the row before left */
    if (lane == 0) shared[warp] = s;
    __syncthreads();
    s = lane < THREADS / 32 ? shared[lane] : softmax{-INFINITY, 0.0f};
    add_lanes();
    return s;
}

template <typename element> struct loss_job {
    float *loss;
    element *dlogits; /* NULL: the loss alone */
    const element *logits;
    index_list targets;
    int64_t rows, width, ignored;
    int64_t kept; /* packets of a row that stay in shared memory */
    float scale;
};

template <typename element, int N>
static __global__ void __launch_bounds__(THREADS, BLOCKS) loss_rows(const loss_job<element> a) {
    extern __shared__ uint4 kept_bytes[];
    __shared__ softmax shared[THREADS / 32];
    element *const kept = reinterpret_cast<element *>(kept_bytes);
    const int64_t count = a.width / N;
    for (int64_t m = blockIdx.x; m < a.rows; m += gridDim.x) {
        const element *const logits = a.logits + m * a.width;
        element *const dlogits = a.dlogits != NULL ? a.dlogits + m * a.width : NULL;
        const int64_t target = a.targets[m];
        const bool ignored = target == a.ignored, valid = target >= 0 && target < a.width;
        if (ignored || !valid) {
            const float value = ignored ? 0.0f : NAN;
            float values[N];
#pragma unroll
            for (int i = 0; i < N; i++) values[i] = value;
            if (threadIdx.x == 0) a.loss[m] = value;
            if (dlogits != NULL)
                for (int64_t i = threadIdx.x; i < count; i += THREADS)
                    store_floats(dlogits, i, values);
            continue;
        }
        const float at_target = lnet_widen(logits[target]); /* before dlogits, its place too */
        softmax s = {-INFINITY, 0.0f};
        for (int64_t first = threadIdx.x; first < count; first += AHEAD * THREADS) {
            packet<element, N> ahead[AHEAD];
#pragma unroll
            for (int j = 0; j < AHEAD; j++)
                if (first + j * THREADS < count) ahead[j].load(logits, first + j * THREADS);
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                const int64_t i = first + j * THREADS;
                float x[N];
                if (i >= count) break;
                if (i < a.kept) ahead[j].store(kept, i);
                ahead[j].widen(x);
                s.add(x);
            }
        }
        s = row_softmax(s, shared);
        if (threadIdx.x == 0) a.loss[m] = logf(s.sum) - (at_target - s.largest);
        if (dlogits == NULL) continue;
        const float base = s.shift(), factor = a.scale / s.sum;
        const int64_t target_packet = target / N;
#pragma unroll 4
        for (int64_t i = threadIdx.x; i < count; i += THREADS) {
            float x[N];
            load_floats(x, i < a.kept ? kept : logits, i);
#pragma unroll
            for (int e = 0; e < N; e++) x[e] = power_of_2((x[e] - base) * LOG2_E) * factor;
            if (i == target_packet) {
#pragma unroll
                for (int e = 0; e < N; e++)
                    if (target_packet * N + e == target) x[e] -= a.scale;
            }
            store_floats(dlogits, i, x);
        }
    }
}

/* The bytes of shared memory that each of BLOCKS blocks may have. */
static lnet_status shared_bytes(int64_t *bytes, const lnet_stream *stream) {
    int all = 0, reserved = 0;
    lnet_status status;
    LNET_CUDA_TRY(
        cudaDeviceGetAttribute(&all, cudaDevAttrMaxSharedMemoryPerMultiprocessor, stream->device));
    LNET_CUDA_TRY(
        cudaDeviceGetAttribute(&reserved, cudaDevAttrReservedSharedMemoryPerBlock, stream->device));
    *bytes = all / BLOCKS - reserved - static_cast<int>(THREADS / 32 * sizeof(softmax));
    *bytes = *bytes / 16 * 16;
fail:
    return status;
}

template <int N, typename element>
static lnet_status launch(loss_job<element> job, lnet_stream *stream) {
    const int64_t most_blocks = INT32_MAX, count = job.width / N;
    int64_t bytes = 0;
    lnet_status status;
    if (job.dlogits != NULL) {
        const int64_t packet_bytes = N * static_cast<int64_t>(sizeof(element));
        LNET_TRY(shared_bytes(&bytes, stream));
        LNET_CUDA_TRY(cudaFuncSetAttribute(loss_rows<element, N>,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(bytes)));
        job.kept = count < bytes / packet_bytes ? count : bytes / packet_bytes;
        bytes = job.kept * packet_bytes;
    }
    loss_rows<element, N><<<static_cast<unsigned>(job.rows < most_blocks ? job.rows : most_blocks),
                            THREADS, static_cast<size_t>(bytes), lnet_cuda_stream(stream)>>>(job);
    status = lnet_cuda_launched("loss_rows");
fail:
    return status;
}

extern "C" lnet_status lnet_cuda_cross_entropy(const struct lnet_cross_entropy_args *a,
                                               lnet_stream *stream) {
    return lnet_by_dtype(a->logits->dtype, [&](auto zero) {
        using element = decltype(zero);
        const loss_job<element> job = {
            data_of<float>(a->loss),
            data_of<element>(a->dlogits),
            data_of<element>(a->logits),
            index_list(a->targets),
            a->logits->shape[0],
            a->logits->shape[1],
            a->ignore_index,
            0,
            static_cast<float>(a->scale),
        };
        if (job.rows == 0) return LNET_OK;
        constexpr int N = packet_size<element>;
        return in_packets(job.width, N, a->logits, a->dlogits) ? launch<N>(job, stream)
                                                               : launch<1>(job, stream);
    });
}
