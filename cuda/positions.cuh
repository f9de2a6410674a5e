/* At which position of its document a row of a sequence stands. */
#ifndef LNET_CUDA_POSITIONS_CUH
#define LNET_CUDA_POSITIONS_CUH

#include <stdint.h>

/* The position of row p; `starts` (documents + 1,) says where each document begins, or is NULL. A
 * row that no document of impossible starts holds gets -1. */
static __device__ int64_t position_in(const int64_t *starts, int64_t documents, int64_t p) {
    if (starts == NULL) return p;
    int64_t low = 0, high = documents; /* starts[low] <= p < starts[high] */
    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;
        if (starts[middle] <= p)
            low = middle;
        else
            high = middle;
    }
    const int64_t begin = starts[low], end = starts[high];
    return begin < 0 || begin > p || p >= end ? -1 : p - begin;
}

#endif
