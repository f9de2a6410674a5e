/* Row-major matrices are their transposes to cuBLASLt, whose matrices are column-major: it takes
 * out^T = B^T A^T, so that its first factor is our `b` and its second is our `a`. */
#include "cuda/product.cuh"

#include "cuda/cublaslt.cuh"

#include <algorithm>
#include <mutex>
#include <string.h>

constexpr size_t WORKSPACE_BYTES = 32 << 20; /* what Hopper's algorithms may ask for */
constexpr uint32_t CACHE_ENTRIES = 1024;

/* Everything that the choice of an algorithm depends on; compared by its bytes. */
struct product_key {
    int64_t M, N, K;
    uint32_t device, dtype, out_dtype, epilogue;
    uint32_t transposes;
    uint32_t adds; /* 0 without c, 1 where it is `out`, else 2 */
    uint32_t align_a, align_b, align_c, align_out;
};
static_assert(sizeof(product_key) == 3 * 8 + 10 * 4, "no padding among the bytes compared");

struct product_algorithm {
    bool found; /* whether cuBLASLt has one */
    size_t workspace;
    cublasLtMatmulAlgo_t algorithm;
};

/* What a product is to cuBLASLt. */
struct description {
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t a, b, out;
};

/* The largest power of two up to 256 that divides an address. */
static uint32_t alignment_of(const void *memory) {
    uintptr_t address = reinterpret_cast<uintptr_t>(memory) | 256;
    return static_cast<uint32_t>(address & -address);
}

static product_key key_of(const lnet_product &p, int32_t device) {
    product_key key;
    memset(&key, 0, sizeof key);
    key.M = p.M, key.N = p.N, key.K = p.K;
    key.device = static_cast<uint32_t>(device);
    key.dtype = p.dtype, key.out_dtype = p.out_dtype, key.epilogue = p.epilogue;
    key.transposes = p.transpose_a + 2u * p.transpose_b;
    key.adds = p.c == NULL ? 0 : p.c == p.out ? 1 : 2;
    key.align_a = alignment_of(p.a), key.align_b = alignment_of(p.b);
    key.align_c = alignment_of(p.c != NULL ? p.c : p.out), key.align_out = alignment_of(p.out);
    return key;
}

/* ---- descriptions ---- */

static cudaDataType_t type_of(lnet_dtype dtype) {
    return dtype == LNET_FLOAT32 ? CUDA_R_32F : dtype == LNET_FLOAT16 ? CUDA_R_16F : CUDA_R_16BF;
}

/* A row-major matrix of `rows` by `columns`, as its transpose. */
static lnet_status describe_matrix(const lnet_cublaslt *lib, cublasLtMatrixLayoutOpaque_t *layout,
                                   lnet_dtype dtype, int64_t rows, int64_t columns) {
    return lnet_cublaslt_check(
        lib,
        lib->cublasLtMatrixLayoutInit_internal(layout, sizeof *layout, type_of(dtype),
                                               static_cast<uint64_t>(columns),
                                               static_cast<uint64_t>(rows), columns),
        "cublasLtMatrixLayoutInit");
}

template <typename T>
static lnet_status set(const lnet_cublaslt *lib, cublasLtMatmulDescOpaque_t *product,
                       cublasLtMatmulDescAttributes_t name, T value) {
    return lnet_cublaslt_check(
        lib, lib->cublasLtMatmulDescSetAttribute(product, name, &value, sizeof value),
        "cublasLtMatmulDescSetAttribute");
}

template <typename T>
static lnet_status prefer(const lnet_cublaslt *lib, cublasLtMatmulPreferenceOpaque_t *preference,
                          cublasLtMatmulPreferenceAttributes_t name, T value) {
    return lnet_cublaslt_check(
        lib, lib->cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof value),
        "cublasLtMatmulPreferenceSetAttribute");
}

static lnet_status describe_epilogue(const lnet_cublaslt *lib, cublasLtMatmulDescOpaque_t *product,
                                     const lnet_product &p) {
    cublasLtEpilogue_t epilogue =
        p.epilogue == LNET_BIAS ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_BGRADB;
    lnet_status status = LNET_OK;
    if (p.epilogue == LNET_PLAIN) return status;
    LNET_TRY(set(lib, product, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue));
    LNET_TRY(set(lib, product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.vector));
    LNET_TRY(set(lib, product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
                 static_cast<int32_t>(type_of(p.out_dtype))));
fail:
    return status;
}

static lnet_status describe(const lnet_cublaslt *lib, description *d, const lnet_product &p) {
    lnet_status status;
    /* float32 products in float32, not TF32 */
    LNET_TRY(lnet_cublaslt_check(lib,
                                 lib->cublasLtMatmulDescInit_internal(
                                     &d->product, sizeof d->product, CUBLAS_COMPUTE_32F,
                                     CUDA_R_32F),
                                 "cublasLtMatmulDescInit"));
    LNET_TRY(set(lib, &d->product, CUBLASLT_MATMUL_DESC_TRANSA,
                 static_cast<int32_t>(p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N)));
    LNET_TRY(set(lib, &d->product, CUBLASLT_MATMUL_DESC_TRANSB,
                 static_cast<int32_t>(p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N)));
    LNET_TRY(describe_epilogue(lib, &d->product, p));
    LNET_TRY(describe_matrix(lib, &d->a, p.dtype, p.transpose_a ? p.K : p.M,
                             p.transpose_a ? p.M : p.K));
    LNET_TRY(describe_matrix(lib, &d->b, p.dtype, p.transpose_b ? p.N : p.K,
                             p.transpose_b ? p.K : p.N));
    LNET_TRY(describe_matrix(lib, &d->out, p.out_dtype, p.M, p.N));
fail:
    return status;
}

/* ---- algorithms ---- */

static lnet_status choose(const lnet_cublaslt *lib, cublasLtHandle_t handle, description *d,
                          const product_key &key, product_algorithm *chosen) {
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t best;
    cublasStatus_t found;
    int count = 0;
    lnet_status status;
    LNET_TRY(lnet_cublaslt_check(
        lib, lib->cublasLtMatmulPreferenceInit_internal(&preference, sizeof preference),
        "cublasLtMatmulPreferenceInit"));
    LNET_TRY(prefer(lib, &preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                    static_cast<uint64_t>(WORKSPACE_BYTES)));
    /* Parts of a sum that several blocks take are added in float32 and in a fixed order. */
    LNET_TRY(prefer(lib, &preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                    static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)));
    LNET_TRY(prefer(lib, &preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.align_b));
    LNET_TRY(prefer(lib, &preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.align_a));
    LNET_TRY(prefer(lib, &preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.align_c));
    LNET_TRY(prefer(lib, &preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.align_out));
    found = lib->cublasLtMatmulAlgoGetHeuristic(handle, &d->product, &d->b, &d->a, &d->out, &d->out,
                                                &preference, 1, &best, &count);
    memset(chosen, 0, sizeof *chosen);
    if (found == CUBLAS_STATUS_NOT_SUPPORTED || found == CUBLAS_STATUS_INVALID_VALUE) return status;
    LNET_TRY(lnet_cublaslt_check(lib, found, "cublasLtMatmulAlgoGetHeuristic"));
    chosen->found = count > 0 && best.state == CUBLAS_STATUS_SUCCESS;
    if (chosen->found) chosen->algorithm = best.algo, chosen->workspace = best.workspaceSize;
fail:
    return status;
}

/* The algorithms chosen so far. cuBLASLt chooses the same one again where an entry was overwritten
 * by another product's. */
static struct {
    std::mutex lock;
    struct {
        bool used;
        product_key key;
        product_algorithm algorithm;
    } entries[CACHE_ENTRIES];
} cache;

static uint32_t slot_of(const product_key &key) {
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    const unsigned char *bytes = reinterpret_cast<const unsigned char *>(&key);
    for (size_t i = 0; i < sizeof key; i++) hash = (hash ^ bytes[i]) * 1099511628211u;
    return static_cast<uint32_t>(hash ^ hash >> 32) % CACHE_ENTRIES;
}

static lnet_status algorithm_for(const lnet_cublaslt *lib, cublasLtHandle_t handle, description *d,
                                 const product_key &key, product_algorithm *algorithm) {
    auto &entry = cache.entries[slot_of(key)];
    lnet_status status = LNET_OK;
    std::lock_guard<std::mutex> guard(cache.lock);
    if (!entry.used || memcmp(&entry.key, &key, sizeof key) != 0) {
        entry.used = false;
        LNET_TRY(choose(lib, handle, d, key, &entry.algorithm));
        entry.key = key;
        entry.used = true;
    }
    *algorithm = entry.algorithm;
fail:
    return status;
}

lnet_status lnet_cuda_product(const lnet_product *product, bool *done, lnet_stream *stream) {
    const float one = 1.0f, beta = product->c != NULL ? 1.0f : 0.0f;
    const lnet_cublaslt *lib;
    cublasLtHandle_t handle;
    description d;
    product_algorithm chosen;
    void *workspace = NULL;
    int64_t bytes = 0;
    lnet_status status;
    LNET_TRY(lnet_cublaslt_open(&lib, &handle, stream->device));
    LNET_TRY(describe(lib, &d, *product));
    LNET_TRY(algorithm_for(lib, handle, &d, key_of(*product, stream->device), &chosen));
    *done = chosen.found;
    if (!chosen.found) return LNET_OK;
    bytes = static_cast<int64_t>(chosen.workspace);
    if (bytes > 0) LNET_TRY(lnet_cuda_host->alloc(&workspace, bytes, stream));
    status = lnet_cublaslt_check(
        lib,
        lib->cublasLtMatmul(handle, &d.product, &one, product->b, &d.b, product->a, &d.a, &beta,
                            product->c != NULL ? product->c : product->out, &d.out, product->out,
                            &d.out, &chosen.algorithm, workspace, chosen.workspace,
                            lnet_cuda_stream(stream)),
        "cublasLtMatmul");
    if (bytes > 0) lnet_cuda_host->free(workspace, bytes, stream);
fail:
    return status;
}
