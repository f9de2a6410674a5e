/* Passes over all rows: zeros for those that no level takes, and rowsum(dO * O). */
#include "cuda/dilated_attention_sm80_plan.cuh"

#include <algorithm>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace dilated_sm80 {
namespace {

const int THREADS = 256;
const int64_t MAX_BLOCKS = 1 << 14;

__global__ void fill_rows(const __grid_constant__ plan p, const uncovered_rows rows, int bytes,
                          const uint32_t *invalid) {
    int64_t cells = static_cast<int64_t>(p.batch) * p.own_rows * rows.heads;
    int64_t warps = static_cast<int64_t>(gridDim.x) * blockDim.x / 32;
    int64_t warp = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
    const int lane = threadIdx.x % 32, chunks = bytes / 16;
    for (int64_t first = warp * 32; first < cells; first += warps * 32) {
        int64_t cell = first + lane, row = divide(cell, rows.heads);
        uint32_t head = static_cast<uint32_t>(cell - row * rows.heads);
        uint32_t batch = static_cast<uint32_t>(divide(row, p.own_rows));
        uint32_t own = static_cast<uint32_t>(row - static_cast<int64_t>(batch) * p.own_rows);
        uint32_t place = p.first_own + own, position = place;
        bool bad = false, empty = false;
        if (cell < cells) {
            bool exists = true;
            if (p.documents > 0) {
                bad = *invalid != 0;
                position -= document_begin(p, document_of(p.cu_seqlens, p.documents, place));
            } else if (p.lengths != nullptr) {
                bad = p.lengths[batch] < 0 || p.lengths[batch] > p.rows;
                exists = place < length_of(p, batch);
            }
            empty = bad || !exists ||
                    !covered(p, 0, p.level_count, position, head * rows.members, rows.members);
            if (empty && rows.lse != nullptr)
                rows.lse[(static_cast<int64_t>(batch) * rows.heads + head) * p.own_rows + own] =
                    bad ? NAN : -INFINITY;
        }
        uint32_t chosen = __ballot_sync(0xFFFFFFFF, empty);
        uint32_t nan = __ballot_sync(0xFFFFFFFF, bad);
        if (chosen == 0) continue;
        uint4 *to = reinterpret_cast<uint4 *>(static_cast<char *>(rows.tensor) + first * bytes);
        for (int i = lane; i < 32 * chunks; i += 32) {
            int at = i / chunks;
            uint32_t word = nan >> at & 1 ? 0xFFFFFFFF : 0; /* NaN in every dtype */
            if (chosen >> at & 1) to[i] = make_uint4(word, word, word, word);
        }
    }
}

/* Eight threads to a row. */
template <typename T>
__global__ void sum_delta_rows(float *delta, const T *dout, const T *out, int64_t batch,
                               int64_t rows, int64_t heads, int64_t width) {
    constexpr int CHUNK = 16 / static_cast<int>(sizeof(T));
    int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x / 8;
    int part = threadIdx.x % 8;
    int64_t all = batch * rows * heads, padded = ceil_div(all, 4) * 4;
    for (int64_t cell = thread / 8; cell < padded; cell += step) {
        float sum = 0;
        for (int64_t d = part * CHUNK; cell < all && d < width; d += 8 * CHUNK) {
            uint4 a = *reinterpret_cast<const uint4 *>(dout + cell * width + d);
            uint4 b = *reinterpret_cast<const uint4 *>(out + cell * width + d);
            const T *x = reinterpret_cast<const T *>(&a), *y = reinterpret_cast<const T *>(&b);
#pragma unroll
            for (int i = 0; i < CHUNK; i++)
                sum += static_cast<float>(x[i]) * static_cast<float>(y[i]);
        }
#pragma unroll
        for (int i = 1; i < 8; i *= 2) sum += __shfl_xor_sync(0xFFFFFFFF, sum, i);
        if (part != 0 || cell >= all) continue;
        int64_t row = divide(cell, heads), head = cell - row * heads, item = divide(row, rows);
        delta[(item * heads + head) * rows + (row - item * rows)] = sum;
    }
}

int blocks_for(int64_t threads) {
    return static_cast<int>(std::min(MAX_BLOCKS, ceil_div(threads, THREADS)));
}

template <typename T>
lnet_status launch_deltas(float *delta, const lnet_tensor *dout, const lnet_tensor *out,
                          lnet_stream *stream) {
    const int64_t *shape = out->shape;
    sum_delta_rows<<<blocks_for(shape[0] * shape[1] * shape[2] * 8), THREADS, 0,
                     lnet_cuda_stream(stream)>>>(delta, static_cast<const T *>(dout->data),
                                                 static_cast<const T *>(out->data), shape[0],
                                                 shape[1], shape[2], shape[3]);
    return lnet_cuda_launched("dilated_attention_backward: sum_delta_rows");
}

} // namespace

lnet_status fill_uncovered(const launch *l, const plan &p, const uncovered_rows &rows,
                           lnet_dtype dtype, lnet_stream *stream) {
    bool all = p.lengths == nullptr && p.documents == 0;
    bool dense = false;
    for (int i = 0; i < p.level_count; i++) dense = dense || p.levels[i].rate == 1;
    if (all && dense) return LNET_OK;
    const int bytes = static_cast<int>(p.width) * (dtype == LNET_FLOAT32 ? 4 : 2);
    const int64_t cells = static_cast<int64_t>(p.batch) * p.own_rows * rows.heads;
    fill_rows<<<blocks_for(cells), THREADS, 0, lnet_cuda_stream(stream)>>>(
        p, rows, bytes, reinterpret_cast<uint32_t *>(static_cast<char *>(l->memory) + 8));
    return lnet_cuda_launched("dilated_attention: fill_rows");
}

lnet_status sum_deltas(float *delta, const lnet_tensor *dout, const lnet_tensor *out,
                       lnet_stream *stream) {
    if (out->dtype == LNET_FLOAT16) return launch_deltas<__half>(delta, dout, out, stream);
    if (out->dtype == LNET_BFLOAT16) return launch_deltas<__nv_bfloat16>(delta, dout, out, stream);
    return launch_deltas<float>(delta, dout, out, stream);
}

} // namespace dilated_sm80
