/* Small calls without Python, for compute-sanitizer: small [width]. */
#include <cuda_runtime.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <vector>

extern "C" int dev_forward(void *out, void *lse, void *q, void *k, void *v, const int64_t *sizes,
                           const int64_t *w, const int64_t *r, double scale, void *lengths,
                           void *cu_seqlens, void *stream);
extern "C" int dev_backward(void *dq, void *dk, void *dv, void *dout, void *q, void *k, void *v,
                            void *out, void *lse, const int64_t *sizes, const int64_t *w,
                            const int64_t *r, double scale, void *lengths, void *cu_seqlens,
                            void *stream);
extern "C" const char *dev_message(void);

static void *device(size_t bytes, bool random) {
    std::vector<uint16_t> host(bytes / 2 + 1);
    for (uint16_t &x : host) x = random ? 0x3f00 | (rand() & 0x80ff) : 0;
    void *pointer = nullptr;
    if (cudaMalloc(&pointer, bytes) || cudaMemcpy(pointer, host.data(), bytes, cudaMemcpyDefault))
        exit(2);
    return pointer;
}

static void run(int64_t b, int64_t n, int64_t h, int64_t d, std::vector<int64_t> w,
                std::vector<int64_t> r, bool causal, bool lengths) {
    const int64_t sizes[] = {b, n, h, h, d, (int64_t)w.size(), 0, causal, 0, 1, 0};
    const size_t bytes = b * n * h * d * 2;
    void *q = device(bytes, true), *k = device(bytes, true), *v = device(bytes, true);
    void *out = device(bytes, false), *dout = device(bytes, true), *lse = nullptr;
    void *dq = device(bytes, false), *dk = device(bytes, false), *dv = device(bytes, false);
    void *rows = nullptr;
    std::vector<int64_t> host(b, n / 2 + 1);
    cudaMalloc(&lse, b * h * n * 4);
    cudaMalloc(&rows, b * 8);
    cudaMemcpy(rows, host.data(), b * 8, cudaMemcpyDefault);
    void *use = lengths ? rows : nullptr;
    int status = 0;
    for (int i = 0; i < 2 && !status; i++) {
        status = dev_forward(out, lse, q, k, v, sizes, w.data(), r.data(), 0.125, use, nullptr,
                             nullptr);
        if (!status)
            status = dev_backward(dq, dk, dv, dout, q, k, v, out, lse, sizes, w.data(), r.data(),
                                  0.125, use, nullptr, nullptr);
    }
    cudaError_t error = cudaDeviceSynchronize();
    printf("N %d D %d: %s %s\n", (int)n, (int)d, status ? dev_message() : "ok",
           cudaGetErrorString(error));
    for (void *p : {q, k, v, out, dout, dq, dk, dv, lse, rows}) cudaFree(p);
    if (status || error) exit(1);
}

int main(int count, char **arguments) {
    const int64_t d = count > 1 ? atoi(arguments[1]) : 64;
    run(1, 300, 3, d, {128, 300}, {1, 2}, true, false);
    run(2, 257, 2, d, {50, 100, 257}, {1, 3, 5}, false, false);
    run(2, 200, 2, d, {64, 150}, {2, 3}, true, true);
    run(1, 300, 3, d, {150}, {5}, true, false);
    run(1, 700, 2, d, {700}, {1}, true, false); /* buffers come round again */
    run(1, 700, 2, d, {700}, {2}, false, true);
    return 0;
}
