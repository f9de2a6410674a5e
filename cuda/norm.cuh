/* Layer norm (CENTRED) and RMS norm of rows; csrc/ops/layer_norm.h and csrc/ops/rms_norm.h say what
 * is computed.
 *
 * A row is held by one warp, or by one block where it is longer, in registers: PACKETS packets of N
 * elements a thread. Rows that do not fit (WIDE) go through one packet a thread at a time, and are
 * read again, from the cache, for every pass. */
#ifndef LNET_CUDA_NORM_CUH
#define LNET_CUDA_NORM_CUH

#include "cuda/gelu.cuh"
#include "cuda/rows.cuh"

enum {
    NORM_THREADS = 512,     /* at most, of a block */
    NORM_BLOCK_WARPS = 8,   /* where each warp has a row of its own */
    NORM_WARP_WIDTH = 1024, /* at most, of such rows */
};

template <typename element> struct norm_job {
    element *y, *sum;   /* sum: NULL without a residual */
    float *mean, *rstd; /* mean: NULL for RMS norm */
    const element *x, *residual, *weight, *bias;
    int64_t rows, width;
    float eps;
};

/* A thread's packets of a row from packet `first` on; those past the row's end are zeros. */
template <typename element, int N, int PACKETS> struct norm_tile {
    packet<element, N> items[PACKETS];

    static __device__ __forceinline__ int64_t place(int64_t first, int j) {
        return first + j * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x);
    }
    __device__ __forceinline__ void load(const element *row, int64_t first, int64_t count) {
#pragma unroll
        for (int j = 0; j < PACKETS; j++)
            if (place(first, j) < count)
                items[j].load(row, place(first, j));
            else
                items[j] = packet<element, N>();
    }
    __device__ __forceinline__ void store(element *row, int64_t first, int64_t count) const {
#pragma unroll
        for (int j = 0; j < PACKETS; j++)
            if (place(first, j) < count) items[j].store(row, place(first, j));
    }
};

/* Adds the residual, and stores the sums, which are what is normalised. */
template <typename element, int N, int PACKETS>
static __device__ __forceinline__ void add_residual(norm_tile<element, N, PACKETS> *x,
                                                    const norm_job<element> &a, int64_t row,
                                                    int64_t first, int64_t count) {
    norm_tile<element, N, PACKETS> residual;
    residual.load(a.residual + row, first, count);
#pragma unroll
    for (int j = 0; j < PACKETS; j++) {
        float sum[N], more[N];
        x->items[j].widen(sum);
        residual.items[j].widen(more);
#pragma unroll
        for (int i = 0; i < N; i++) sum[i] += more[i];
        x->items[j].narrow(sum);
    }
    x->store(a.sum + row, first, count);
}

/* What is normalised: x or gelu(x). */
template <bool GELU, typename element, int N>
static __device__ __forceinline__ void norm_input(float (&h)[N], const packet<element, N> &x) {
    x.widen(h);
    if constexpr (GELU) {
#pragma unroll
        for (int i = 0; i < N; i++) h[i] = lnet_gelu<sizeof(element) == 2>(h[i]);
    }
}

template <typename element, int N, int PACKETS, bool CENTRED, bool GELU, bool WIDE>
static __global__ void __launch_bounds__(NORM_THREADS) norm_rows(const norm_job<element> a) {
    __shared__ float2 shared[32];
    const int64_t count = a.width / N, step = WIDE ? blockDim.x : count;
    const float share = 1.0f / static_cast<float>(a.width);
    for (int64_t m = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; m < a.rows;
         m += static_cast<int64_t>(gridDim.x) * blockDim.y) {
        const int64_t row = m * a.width;
        norm_tile<element, N, PACKETS> in;
        float h[PACKETS][N], total = 0.0f, mean = 0.0f;
        auto make_h = [&] {
#pragma unroll
            for (int j = 0; j < PACKETS; j++) norm_input<GELU>(h[j], in.items[j]);
        };
        auto read_again = [&](int64_t first) {
            in.load((a.sum != NULL ? a.sum : a.x) + row, first, count);
            make_h();
        };
        for (int64_t first = 0; first < count; first += step) {
            in.load(a.x + row, first, count);
            if (a.sum != NULL) add_residual(&in, a, row, first, count);
            make_h();
#pragma unroll
            for (int j = 0; j < PACKETS; j++)
                if (in.place(first, j) < count)
#pragma unroll
                    for (int i = 0; i < N; i++) total += CENTRED ? h[j][i] : h[j][i] * h[j][i];
        }
        total = row_sum(total, shared);
        if (CENTRED) {
            mean = total * share;
            total = 0.0f;
            for (int64_t first = 0; first < count; first += step) {
                if (WIDE) read_again(first);
#pragma unroll
                for (int j = 0; j < PACKETS; j++)
                    if (in.place(first, j) < count)
#pragma unroll
                        for (int i = 0; i < N; i++) total += (h[j][i] - mean) * (h[j][i] - mean);
            }
            total = row_sum(total, shared);
        }
        const float rstd = rsqrtf(total * share + a.eps);
        if (threadIdx.x == 0) {
            if (CENTRED) a.mean[m] = mean;
            a.rstd[m] = rstd;
        }
        for (int64_t first = 0; first < count; first += step) {
            if (WIDE) read_again(first);
#pragma unroll
            for (int j = 0; j < PACKETS; j++) {
                const int64_t place = in.place(first, j);
                if (place >= count) continue;
                float weight[N], bias[N], y[N];
                load_floats(weight, a.weight, place);
                if (CENTRED) load_floats(bias, a.bias, place);
#pragma unroll
                for (int i = 0; i < N; i++) {
                    const float n = (h[j][i] - mean) * rstd;
                    y[i] = CENTRED ? n * weight[i] + bias[i] : n * weight[i];
                }
                store_floats(a.y + row, place, y);
            }
        }
    }
}

/* The threads that have a row, and the elements of each in registers: at most `most`. */
struct norm_shape {
    dim3 threads;
    int elements; /* 0: WIDE */
};

static inline norm_shape norm_shape_of(int64_t width, int size, bool packed, int most) {
    const int64_t count = packed ? width / size : width, per_thread = most / size;
    const int64_t all_packets = (count + 31) / 32 * 32,
                  fewest = (count + per_thread - 1) / per_thread;
    const int64_t threads = fewest > 0 ? (fewest + 31) / 32 * 32 : 32;
    if (!packed || threads > NORM_THREADS) {
        const int64_t wide = all_packets < NORM_THREADS ? all_packets : NORM_THREADS;
        return {dim3(static_cast<unsigned>(wide > 0 ? wide : 32)), 0};
    }
    const dim3 block =
        threads == 32 ? dim3(32, NORM_BLOCK_WARPS) : dim3(static_cast<unsigned>(threads));
    return {block, static_cast<int>((count + threads - 1) / threads) * size};
}

template <bool CENTRED, bool GELU, typename element>
static lnet_status launch_norm(const norm_job<element> &job, bool packed, lnet_stream *stream) {
    constexpr int N = packet_size<element>;
    const norm_shape shape = norm_shape_of(job.width, N, packed, 32);
    auto launch = [&](void (*kernel)(norm_job<element>)) {
        int64_t blocks = 0, all = (job.rows + shape.threads.y - 1) / shape.threads.y;
        lnet_status status = resident_blocks(&blocks, kernel, shape.threads, 0, all, stream);
        if (status != LNET_OK) return status;
        kernel<<<static_cast<unsigned>(blocks), shape.threads, 0, lnet_cuda_stream(stream)>>>(job);
        return lnet_cuda_launched("norm_rows");
    };
    if (job.rows == 0) return LNET_OK;
    if (!packed) return launch(norm_rows<element, 1, 1, CENTRED, GELU, true>);
    if (shape.elements == 0) return launch(norm_rows<element, N, 1, CENTRED, GELU, true>);
    if (shape.elements <= 16) return launch(norm_rows<element, N, 16 / N, CENTRED, GELU, false>);
    if (shape.elements <= 24) return launch(norm_rows<element, N, 24 / N, CENTRED, GELU, false>);
    return launch(norm_rows<element, N, 32 / N, CENTRED, GELU, false>);
}

#endif
