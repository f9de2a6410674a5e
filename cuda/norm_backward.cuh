/* The gradients of layer norm (CENTRED) and of RMS norm: dx row by row, as norm.cuh holds rows, and
 * the sums for dweight and dbias in two steps, of each block's rows and of all blocks. */
#ifndef LNET_CUDA_NORM_BACKWARD_CUH
#define LNET_CUDA_NORM_BACKWARD_CUH

#include "cuda/norm.cuh"

template <typename element> struct norm_gradient_job {
    element *dx;
    const element *dy, *x, *weight, *dsum; /* dsum: NULL where there is none */
    const float *mean, *rstd;              /* mean: NULL for RMS norm */
    float *parts;                          /* (2, blocks, width): sums for dweight and dbias */
    int64_t rows, width;
    bool parts_shared; /* WIDE: they are made in shared memory */
};

/* dx of all rows. Each thread adds up its columns' shares of dweight and dbias over the rows of its
 * warp or block; those of the block go to row blockIdx.x of `parts`, for norm_add_parts. */
template <typename element, int N, int PACKETS, bool CENTRED, bool GELU, bool WIDE>
static __global__ void __launch_bounds__(NORM_THREADS)
    norm_rows_backward(const norm_gradient_job<element> a) {
    constexpr int SUMS = WIDE ? 1 : PACKETS, TERMS = CENTRED ? 2 : 1;
    extern __shared__ float shared_parts[];
    __shared__ float2 shared[32];
    const int64_t count = a.width / N, step = WIDE ? blockDim.x : count;
    const float share = 1.0f / static_cast<float>(a.width);
    float *const parts = a.parts + blockIdx.x * a.width;
    const int64_t next_parts = gridDim.x * a.width;            /* from dweight's to dbias's */
    float *const sums = a.parts_shared ? shared_parts : parts; /* WIDE */
    const int64_t next_sums = a.parts_shared ? a.width : next_parts;
    float dweight[SUMS][N] = {}, dbias[SUMS][N] = {};
    if constexpr (WIDE)
        for (int64_t d = threadIdx.x; d < count; d += blockDim.x)
            for (int i = 0; i < N; i++)
                for (int term = 0; term < TERMS; term++) sums[term * next_sums + d * N + i] = 0.0f;
    for (int64_t m = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; m < a.rows;
         m += static_cast<int64_t>(gridDim.x) * blockDim.y) {
        const int64_t row = m * a.width;
        const float mean = CENTRED ? a.mean[m] : 0.0f, rstd = a.rstd[m];
        norm_tile<element, N, PACKETS> x, dy, dsum;
        float2 means = make_float2(0.0f, 0.0f); /* of g and g * n */
        auto read = [&](int64_t first) {
            x.load(a.x + row, first, count);
            dy.load(a.dy + row, first, count);
        };
        if (!WIDE && a.dsum != NULL) dsum.load(a.dsum + row, 0, count);
        for (int64_t first = 0; first < count; first += step) {
            read(first);
#pragma unroll
            for (int j = 0; j < PACKETS; j++) {
                const int64_t place = x.place(first, j);
                if (place >= count) continue;
                float weight[N], h[N], d[N];
                load_floats(weight, a.weight, place);
                norm_input<GELU>(h, x.items[j]);
                dy.items[j].widen(d);
#pragma unroll
                for (int i = 0; i < N; i++) {
                    const float n = (h[i] - mean) * rstd, g = d[i] * weight[i];
                    if (WIDE) {
                        sums[place * N + i] += d[i] * n;
                        if (CENTRED) sums[next_sums + place * N + i] += d[i];
                    } else {
                        dweight[j][i] += d[i] * n;
                        if (CENTRED) dbias[j][i] += d[i];
                    }
                    if (CENTRED) means.x += g;
                    means.y += g * n;
                }
            }
        }
        means = row_sums(means, shared);
        means = make_float2(means.x * share, means.y * share);
        for (int64_t first = 0; first < count; first += step) {
            if (WIDE) {
                read(first);
                if (a.dsum != NULL) dsum.load(a.dsum + row, first, count);
            }
#pragma unroll
            for (int j = 0; j < PACKETS; j++) {
                const int64_t place = x.place(first, j);
                if (place >= count) continue;
                float weight[N], at[N], h[N], d[N], more[N] = {};
                load_floats(weight, a.weight, place);
                x.items[j].widen(at);
                norm_input<GELU>(h, x.items[j]);
                dy.items[j].widen(d);
                if (a.dsum != NULL) dsum.items[j].widen(more);
#pragma unroll
                for (int i = 0; i < N; i++) {
                    const float n = (h[i] - mean) * rstd;
                    d[i] = (d[i] * weight[i] - means.x - n * means.y) * rstd;
                    if (GELU) d[i] *= lnet_gelu_slope<sizeof(element) == 2>(at[i]);
                    if (a.dsum != NULL) d[i] += more[i];
                }
                store_floats(a.dx + row, place, d);
            }
        }
    }
    if constexpr (WIDE) {
        if (!a.parts_shared) return;
        for (int64_t d = threadIdx.x; d < count; d += blockDim.x)
            for (int i = 0; i < N; i++)
                for (int term = 0; term < TERMS; term++)
                    parts[term * next_parts + d * N + i] = sums[term * next_sums + d * N + i];
    } else {
        /* the block's warps one after the other, where they had rows of their own */
        __shared__ float warp_parts[TERMS * NORM_WARP_WIDTH];
        for (int y = 0; y < static_cast<int>(blockDim.y); y++) {
            const bool last = y == static_cast<int>(blockDim.y) - 1;
            float *const to = last ? parts : warp_parts;
            const int64_t next = last ? next_parts : NORM_WARP_WIDTH;
            if (y == static_cast<int>(threadIdx.y)) {
#pragma unroll
                for (int j = 0; j < PACKETS; j++) {
                    const int64_t place = norm_tile<element, N, PACKETS>::place(0, j);
                    if (place >= count) continue;
#pragma unroll
                    for (int i = 0; i < N; i++) {
                        const int64_t d = place * N + i;
                        if (y > 0) dweight[j][i] += warp_parts[d];
                        to[d] = dweight[j][i];
                        if (CENTRED && y > 0) dbias[j][i] += warp_parts[NORM_WARP_WIDTH + d];
                        if (CENTRED) to[next + d] = dbias[j][i];
                    }
                }
            }
            __syncthreads();
        }
    }
}

/* dweight and dbias: the sums over the blocks of the columns of `parts`. A warp's lanes are 32
 * columns, and its warps take turns at the blocks. */
template <typename element>
static __global__ void __launch_bounds__(1024)
    norm_add_parts(element *dweight, element *dbias, const float *parts, int64_t blocks,
                   int64_t width) {
    __shared__ float shared[32][33];
    const float *from = parts + blockIdx.y * blocks * width;
    element *to = blockIdx.y == 0 ? dweight : dbias;
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * 32; first < width;
         first += static_cast<int64_t>(gridDim.x) * 32) {
        const int64_t d = first + threadIdx.x;
        float sum = 0.0f;
        if (d < width)
#pragma unroll 8
            for (int64_t b = threadIdx.y; b < blocks; b += 32) sum += from[b * width + d];
        shared[threadIdx.y][threadIdx.x] = sum;
        __syncthreads();
        sum = warp_sum(shared[threadIdx.x][threadIdx.y]);
        if (threadIdx.x == 0 && first + threadIdx.y < width)
            lnet_narrow(to + first + threadIdx.y, sum);
        __syncthreads();
    }
}

/* Shared memory in which a block of a WIDE kernel may add up its parts; 0: they do not fit. */
template <typename kernel>
static lnet_status allow_shared_parts(size_t *bytes, kernel k, int64_t needed,
                                      const lnet_stream *stream) {
    int most = 0;
    lnet_status status;
    *bytes = 0;
    LNET_CUDA_TRY(
        cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, stream->device));
    most -= 1024; /* more than what the kernel has besides */
    if (needed > most) return LNET_OK;
    /* always the same: another thread may be about to launch the kernel for wider rows */
    LNET_CUDA_TRY(cudaFuncSetAttribute(k, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
    *bytes = static_cast<size_t>(needed);
fail:
    return status;
}

/* Writes dx, dweight and, unless it is NULL, dbias. */
template <bool CENTRED, bool GELU, typename element>
static lnet_status launch_norm_backward(norm_gradient_job<element> job, element *dweight,
                                        element *dbias, bool packed, lnet_stream *stream) {
    constexpr int N = packet_size<element>, TERMS = CENTRED ? 2 : 1;
    constexpr int MOST = N == 8 && !GELU ? 24 : 16; /* elements, so that registers suffice */
    const norm_shape shape = norm_shape_of(job.width, N, packed, MOST);
    void (*kernel)(norm_gradient_job<element>) =
        !packed                ? norm_rows_backward<element, 1, 1, CENTRED, GELU, true>
        : shape.elements == 0  ? norm_rows_backward<element, N, 1, CENTRED, GELU, true>
        : shape.elements <= 16 ? norm_rows_backward<element, N, 16 / N, CENTRED, GELU, false>
                               : norm_rows_backward<element, N, MOST / N, CENTRED, GELU, false>;
    const int64_t all = (job.rows + shape.threads.y - 1) / shape.threads.y;
    const int64_t columns = (job.width + 31) / 32, row_bytes = job.width * TERMS * 4;
    const dim3 add_grid(static_cast<unsigned>(columns < 65535 ? columns : 65535), TERMS);
    int64_t blocks = 0;
    size_t shared = 0;
    void *parts = NULL;
    lnet_status status = LNET_OK;
    if (job.width == 0) return LNET_OK;
    if (job.rows > 0) {
        if (shape.elements == 0) LNET_TRY(allow_shared_parts(&shared, kernel, row_bytes, stream));
        LNET_TRY(resident_blocks(&blocks, kernel, shape.threads, shared, all, stream));
        LNET_TRY(lnet_cuda_host->alloc(&parts, blocks * row_bytes, stream));
        job.parts = static_cast<float *>(parts);
        job.parts_shared = shared > 0;
        kernel<<<static_cast<unsigned>(blocks), shape.threads, shared, lnet_cuda_stream(stream)>>>(
            job);
        LNET_TRY(lnet_cuda_launched("norm_rows_backward"));
    }
    norm_add_parts<<<add_grid, dim3(32, 32), 0, lnet_cuda_stream(stream)>>>(
        dweight, dbias, static_cast<const float *>(parts), blocks, job.width);
    status = lnet_cuda_launched("norm_add_parts");
fail:
    if (parts != NULL) lnet_cuda_host->free(parts, blocks * row_bytes, stream);
    return status;
}

#endif
