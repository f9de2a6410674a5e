/* How the parts of a kernel hand things to each other: rings of buffers in shared memory, counters
 * in global memory. */
#ifndef LNET_DILATED_ATTENTION_SM90_SYNC_CUH
#define LNET_DILATED_ATTENTION_SM90_SYNC_CUH

#include <stdint.h>

namespace dilated_sm90 {

/* How often a ring of `size` (a power of two) buffers has been used: which buffer is next, and the
 * parity of its barriers' phase. A reader waits for `parity`, a writer for the one before. */
template <int size> struct ring_place {
    uint32_t count;
    __device__ __forceinline__ uint32_t index() const { return count % size; }
    __device__ __forceinline__ uint32_t parity() const { return count / size % 2; }
    __device__ __forceinline__ uint32_t parity_before() const { return parity() ^ 1; }
    __device__ __forceinline__ ring_place before() const { return {count - 1}; }
    __device__ __forceinline__ void advance() { count++; }
};

/* Whether a counter has been raised to `target`; if so, sees what was written before. */
__device__ __forceinline__ bool counter_reached(const uint32_t *counter, uint32_t target) {
    uint32_t value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
    return value >= target;
}

/* Waits until it has. */
__device__ __forceinline__ void wait_counter(const uint32_t *counter, uint32_t target) {
    while (!counter_reached(counter, target)) __nanosleep(100);
}

/* Raises a counter; whoever waits for it sees what was written before. */
__device__ __forceinline__ void raise_counter(uint32_t *counter, uint32_t by) {
    asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(counter), "r"(by) : "memory");
}

/* Likewise where nothing was written that anybody reads. */
__device__ __forceinline__ void raise_counter_relaxed(uint32_t *counter, uint32_t by) {
    asm volatile("red.relaxed.gpu.global.add.u32 [%0], %1;" ::"l"(counter), "r"(by) : "memory");
}

} // namespace dilated_sm90

#endif
