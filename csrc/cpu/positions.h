/* At which positions of their sequence, or of their document of it, rows stand. */
#ifndef LNET_CPU_POSITIONS_H
#define LNET_CPU_POSITIONS_H

#include "lnet/tensor.h"

/* Row `row` of x (B * N), which is row start + row mod N of its sequence, and the rows up to `end`
 * stand at positions one after another; returns the first. */
static inline int64_t row_position(const lnet_tensor *x, int64_t start,
                                   const lnet_tensor *cu_seqlens, int64_t row, int64_t *end) {
    int64_t length = x->shape[1], place = start + row % length;
    *end = row / length * length + length;
    if (cu_seqlens == NULL) return place;
    const int64_t *begins = cu_seqlens->data;
    int64_t low = 0, high = cu_seqlens->shape[0] - 1;
    while (high - low > 1) { /* begins[low] <= place < begins[high] */
        int64_t middle = low + (high - low) / 2;
        if (begins[middle] <= place)
            low = middle;
        else
            high = middle;
    }
    if (begins[high] - start < *end) *end = begins[high] - start;
    return place - begins[low];
}

#endif
