/* The gradient of a table's rows, the same bits every time.
 *
 * Positions are sorted by their tokens, stably, and cut in chunks of equal length. A warp adds up a
 * chunk's rows of dout in their order, for some columns. A token's rows that lie in one chunk go to
 * dweight at once; of a token that goes on from one chunk to the next, each chunk leaves its sum in
 * scratch, and a second kernel adds these up. So the work is the same however often a token comes.
 *
 * A token that is out of range counts as none. */
#include "cuda/rows.cuh"

extern "C" {
#include "ops/embedding.h"
}

#include <cub/device/device_radix_sort.cuh>

enum {
    CHUNK = 128,   /* positions */
    AHEAD = 8,     /* rows that a lane has on their way at one time */
    WARPS = 4,     /* of a block of add_chunks */
    COLUMNS = 128, /* of a block of add_across */
    STRIPS = 16,   /* into which it cuts the chunks of a token */
};

struct gradient_job {
    const uint32_t *tokens, *order; /* (M,): sorted tokens, the vocabulary's size where it is none,
                                     * and their positions */
    float *parts; /* (2, chunks, E): of each chunk the sum of the token that goes on from the chunk
                   * before, and of the one that begins here and goes on in the chunk after */
    int64_t count, chunks, width, vocabulary;
    float scale;
};

static __global__ void list_tokens(uint32_t *keys, uint32_t *positions, const index_list tokens,
                                   int64_t count, int64_t vocabulary) {
    for (int64_t m = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; m < count;
         m += static_cast<int64_t>(gridDim.x) * blockDim.x) {
        const int64_t token = tokens[m];
        const bool valid = token >= 0 && token < vocabulary;
        keys[m] = static_cast<uint32_t>(valid ? token : vocabulary);
        positions[m] = static_cast<uint32_t>(m);
    }
}

/* Adds to N columns, from d on, of a row of dweight; the columns begin at a multiple of 16 bytes
 * unless N is 1. */
template <typename element, int N>
static __device__ __forceinline__ void add_to(element *row, int64_t d, const float (&sum)[N],
                                              float scale) {
    constexpr int SIZE = N == 1 ? 1 : packet_size<element>;
#pragma unroll
    for (int first = 0; first < N; first += SIZE) {
        float x[SIZE];
        load_floats(x, row + d + first, 0);
#pragma unroll
        for (int i = 0; i < SIZE; i++) x[i] += sum[first + i] * scale;
        store_floats(row + d + first, 0, x);
    }
}

/* Warp w of the grid has chunk w / slabs and the columns of slab w % slabs, N a lane. */
template <typename element, typename weight, int N>
static __global__ void __launch_bounds__(32 * WARPS)
    add_chunks(weight *dweight, const element *dout, const gradient_job a, int64_t slabs) {
    const int64_t warps = static_cast<int64_t>(gridDim.x) * WARPS;
    for (int64_t w = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.y; w < a.chunks * slabs;
         w += warps) {
        const int64_t chunk = w / slabs, begin = chunk * CHUNK;
        const int64_t end = begin + CHUNK < a.count ? begin + CHUNK : a.count;
        const int64_t d = ((w - chunk * slabs) * 32 + threadIdx.x) * N;
        const bool mine = d < a.width;
        uint32_t token = a.tokens[begin];
        bool goes_on_from_before = begin > 0 && a.tokens[begin - 1] == token;
        float sum[N] = {};
        for (int64_t first = begin; first < end && token < a.vocabulary; first += AHEAD) {
            packet<element, N> ahead[AHEAD];
            uint32_t next[AHEAD]; /* the token after each */
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                const int64_t i = first + j;
                next[j] = i + 1 < a.count ? a.tokens[i + 1] : UINT32_MAX;
                if (i < end && mine) ahead[j].load(dout + a.order[i] * a.width + d, 0);
            }
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                const int64_t i = first + j;
                float x[N];
                if (i >= end || token >= a.vocabulary) break;
                ahead[j].widen(x);
#pragma unroll
                for (int e = 0; e < N; e++) sum[e] += x[e];
                const bool ends = next[j] != token;
                if (!ends && i + 1 < end) continue;
                if (mine) {
                    if (goes_on_from_before || !ends) {
                        float *part = a.parts + chunk * a.width + d;
                        if (!goes_on_from_before) part += a.chunks * a.width;
#pragma unroll
                        for (int e = 0; e < N; e++) part[e] = sum[e];
                    } else {
                        add_to(dweight + token * a.width, d, sum, a.scale);
                    }
                }
#pragma unroll
                for (int e = 0; e < N; e++) sum[e] = 0.0f;
                goes_on_from_before = false;
                token = next[j];
            }
        }
    }
}

/* The first of the sorted positions past `begin` that has another token than `token`. */
static __device__ int64_t end_of_token(const gradient_job &a, uint32_t token, int64_t begin) {
    int64_t low = begin, high = a.count; /* tokens[low] == token, tokens[high] is another */
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (a.tokens[middle] == token)
            low = middle;
        else
            high = middle;
    }
    return high;
}

/* Blocks (x, y): of the token that begins in chunk x and goes on after it, columns from
 * COLUMNS * y on. The chunks' sums are added up in strips, every STRIPS-th in one. */
template <typename weight>
static __global__ void __launch_bounds__(32 * STRIPS)
    add_across(weight *dweight, const gradient_job a) {
    __shared__ float shared[STRIPS][COLUMNS];
    for (int64_t chunk = blockIdx.x; chunk + 1 < a.chunks; chunk += gridDim.x) {
        const int64_t begin = chunk * CHUNK, end = begin + CHUNK;
        const uint32_t token = a.tokens[end - 1];
        if (a.tokens[end] != token || token >= a.vocabulary) continue;
        if (begin > 0 && a.tokens[begin - 1] == token) continue; /* it began earlier */
        const int64_t last = (end_of_token(a, token, end) - 1) / CHUNK;
        const float *const rest = a.parts, *const start = a.parts + a.chunks * a.width;
        for (int64_t first = blockIdx.y * COLUMNS; first < a.width;
             first += static_cast<int64_t>(gridDim.y) * COLUMNS) {
            float sum[COLUMNS / 32] = {};
#pragma unroll 4
            for (int64_t c = chunk + threadIdx.y; c <= last; c += STRIPS)
#pragma unroll
                for (int k = 0; k < COLUMNS / 32; k++) {
                    const int64_t d = first + 32 * k + threadIdx.x;
                    if (d < a.width) sum[k] += (c == chunk ? start : rest)[c * a.width + d];
                }
#pragma unroll
            for (int k = 0; k < COLUMNS / 32; k++)
                shared[threadIdx.y][32 * k + threadIdx.x] = sum[k];
            __syncthreads();
            const int column = static_cast<int>(threadIdx.y * 32 + threadIdx.x);
            if (column < COLUMNS && first + column < a.width) {
                float total[1] = {};
                for (int s = 0; s < STRIPS; s++) total[0] += shared[s][column];
                add_to(dweight + token * a.width, first + column, total, a.scale);
            }
            __syncthreads();
        }
    }
}

static unsigned blocks_for(int64_t needed, int64_t most) {
    return static_cast<unsigned>(needed < most ? needed : most);
}

template <typename weight, typename element>
static lnet_status add_up(const struct lnet_embedding_backward_args *a, const gradient_job &job,
                          cudaStream_t queue) {
    constexpr int N = packet_size<element>;
    const bool packed = in_packets(job.width, N, a->dweight, a->dout);
    const int64_t columns = 32 * (packed ? N : 1), slabs = (job.width + columns - 1) / columns;
    const int64_t groups = (job.width + COLUMNS - 1) / COLUMNS;
    auto *kernel = packed ? add_chunks<element, weight, N> : add_chunks<element, weight, 1>;
    lnet_status status;
    kernel<<<blocks_for((job.chunks * slabs + WARPS - 1) / WARPS, 1 << 24), dim3(32, WARPS), 0,
             queue>>>(data_of<weight>(a->dweight), data_of<element>(a->dout), job, slabs);
    LNET_TRY(lnet_cuda_launched("add_chunks"));
    add_across<<<dim3(blocks_for(job.chunks, 1 << 24), blocks_for(groups, 65535)), dim3(32, STRIPS),
                 0, queue>>>(data_of<weight>(a->dweight), job);
    status = lnet_cuda_launched("add_across");
fail:
    return status;
}

/* Scratch, one piece after the other. */
struct layout {
    int64_t keys, positions, sorted_keys, sorted_positions, parts, sort, bytes;
};

static int64_t take(int64_t *bytes, int64_t more) {
    const int64_t at = *bytes;
    *bytes += (more + 255) / 256 * 256;
    return at;
}

extern "C" lnet_status lnet_cuda_embedding_backward(const struct lnet_embedding_backward_args *a,
                                                    lnet_stream *stream) {
    const int64_t count = lnet_elements_of(a->tokens), vocabulary = a->dweight->shape[0];
    const int64_t width = a->dweight->shape[1], most = UINT32_MAX - 1;
    gradient_job job = {NULL,
                        NULL,
                        NULL,
                        count,
                        (count + CHUNK - 1) / CHUNK,
                        width,
                        vocabulary,
                        static_cast<float>(a->scale)};
    cudaStream_t queue = lnet_cuda_stream(stream);
    uint32_t *keys, *positions, *sorted_keys, *sorted_positions;
    layout at = {};
    size_t sort_bytes = 0;
    char *memory = NULL;
    int bits = 1;
    lnet_status status;
    if (count == 0 || width == 0) return LNET_OK;
    if (count > most || vocabulary > most)
        return lnet_fail(LNET_VALUE_ERROR,
                         "embedding_backward: %lld tokens of %lld, expected at most %lld on a GPU",
                         static_cast<long long>(count), static_cast<long long>(vocabulary),
                         static_cast<long long>(most));
    while (vocabulary >> bits > 0) bits++; /* the vocabulary's size is a key too */
    LNET_CUDA_TRY(cub::DeviceRadixSort::SortPairs(
        NULL, sort_bytes, static_cast<uint32_t *>(NULL), static_cast<uint32_t *>(NULL),
        static_cast<uint32_t *>(NULL), static_cast<uint32_t *>(NULL), static_cast<uint32_t>(count),
        0, bits, queue));
    at.keys = take(&at.bytes, count * 4);
    at.positions = take(&at.bytes, count * 4);
    at.sorted_keys = take(&at.bytes, count * 4);
    at.sorted_positions = take(&at.bytes, count * 4);
    at.parts = take(&at.bytes, 2 * job.chunks * width * 4);
    at.sort = take(&at.bytes, static_cast<int64_t>(sort_bytes));
    LNET_TRY(lnet_cuda_host->alloc(reinterpret_cast<void **>(&memory), at.bytes, stream));
    keys = reinterpret_cast<uint32_t *>(memory + at.keys);
    positions = reinterpret_cast<uint32_t *>(memory + at.positions);
    sorted_keys = reinterpret_cast<uint32_t *>(memory + at.sorted_keys);
    sorted_positions = reinterpret_cast<uint32_t *>(memory + at.sorted_positions);
    job.tokens = sorted_keys;
    job.order = sorted_positions;
    job.parts = reinterpret_cast<float *>(memory + at.parts);
    list_tokens<<<blocks_for((count + 255) / 256, 1 << 16), 256, 0, queue>>>(
        keys, positions, index_list(a->tokens), count, vocabulary);
    LNET_TRY(lnet_cuda_launched("list_tokens"));
    LNET_CUDA_TRY(cub::DeviceRadixSort::SortPairs(memory + at.sort, sort_bytes, keys, sorted_keys,
                                                  positions, sorted_positions,
                                                  static_cast<uint32_t>(count), 0, bits, queue));
    status = lnet_by_dtype(a->dout->dtype, [&](auto zero) {
        using element = decltype(zero);
        return a->dweight->dtype == LNET_FLOAT32 ? add_up<float, element>(a, job, queue)
                                                 : add_up<element, element>(a, job, queue);
    });
fail:
    if (memory != NULL) lnet_cuda_host->free(memory, at.bytes, stream);
    return status;
}
