/* NaN where lengths or cu_seqlens are impossible. */
#include "cuda/dilated_attention_sm90_problem.cuh"

#include <cmath>

namespace dilated_sm90 {
namespace {

struct marks {
    int16_t *tensors[3]; /* (B, N, ..): `words` of 16 bits to a row */
    int64_t words[3];
    int count;
    float *lse; /* (B, H, N) or NULL */
};

/* One batch item, by a row of blocks. */
__global__ void mark_rows(const int64_t *lengths, const int64_t *cu_seqlens, int documents,
                          int rows, int heads, const marks m) {
    const int batch = blockIdx.x;
    bool bad = lengths && (lengths[batch] < 0 || lengths[batch] > rows);
    if (cu_seqlens) {
        bad = cu_seqlens[0] != 0 || cu_seqlens[documents] != rows;
        for (int i = threadIdx.x; i < documents; i += blockDim.x)
            bad = bad || cu_seqlens[i] > cu_seqlens[i + 1];
    }
    if (!__syncthreads_or(bad)) return;
    const int64_t thread = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
    const int64_t threads = static_cast<int64_t>(gridDim.y) * blockDim.x;
    for (int i = 0; i < m.count; i++) {
        const int64_t size = rows * m.words[i];
        for (int64_t at = thread; at < size; at += threads)
            m.tensors[i][batch * size + at] = 0x7fff; /* NaN, two of them in float32 too */
    }
    const int64_t size = static_cast<int64_t>(rows) * heads;
    for (int64_t at = thread; m.lse && at < size; at += threads) m.lse[batch * size + at] = NAN;
}

} // namespace

lnet_status mark_impossible(const problem &p, lnet_tensor *const *tensors, int count,
                            lnet_tensor *lse, cudaStream_t stream) {
    marks m = {};
    if (p.lengths == nullptr && p.cu_seqlens == nullptr) return LNET_OK;
    m.count = count;
    for (int i = 0; i < count; i++) {
        m.tensors[i] = static_cast<int16_t *>(tensors[i]->data);
        m.words[i] = tensors[i]->shape[2] * tensors[i]->shape[3] *
                     (tensors[i]->dtype == LNET_FLOAT32 ? 2 : 1);
    }
    if (lse != nullptr) m.lse = static_cast<float *>(lse->data);
    mark_rows<<<dim3(static_cast<unsigned>(p.batch), 64), 256, 0, stream>>>(
        p.lengths, p.cu_seqlens, p.documents, p.rows, p.heads, m);
    return lnet_cuda_launched("dilated_attention: mark_rows");
}

} // namespace dilated_sm90
