/* The backward kernels of dilated attention: items of queries or of keys, all that passes them by,
 * and their gradients out. */
#ifndef LNET_DILATED_ATTENTION_SM80_BACKWARD_CUH
#define LNET_DILATED_ATTENTION_SM80_BACKWARD_CUH

#include "cuda/dilated_attention_sm80_backward_block.cuh"

namespace dilated_sm80 {

/* Of inputs T gradients U: T or float. */
template <typename T, typename U, int WIDTH, pass PASS>
struct backward_kernel : backward_block<T, WIDTH, PASS> {
    using base = backward_block<T, WIDTH, PASS>;
    using typename base::gradients;
    using typename base::layout;
    using typename base::statistics;
    using typename base::strip;
    using base::BLOCKS;
    using base::COLUMNS;
    using base::FIRST;
    using base::KEYS;
    using base::OTHER_BYTES;
    using base::OWN_BYTES;
    using base::ROWS;
    using base::show;
    using base::STAGES;
    using base::sum_rows;
    using base::SUMS;
    using base::THREADS;

    static __device__ float lse_of(float x) {
        const float log2e = 1.44269504088896341f;
        return x == -INFINITY ? INFINITY : x * log2e; /* a query that sees nothing has P = 0 */
    }

    static __device__ strip strip_of(const backward_call &call, const item &it, uint32_t head) {
        const plan &p = call.work.p;
        const uint32_t kv_head = head / (p.heads / p.kv_heads);
        const T *q = static_cast<const T *>(call.q), *dout = static_cast<const T *>(call.dout);
        const T *k = static_cast<const T *>(call.k), *v = static_cast<const T *>(call.v);
        strip s;
        s.rate = p.levels[it.level].rate;
        s.other[0] = KEYS ? queries_of(p, q, it, head) : keys_of(p, k, it, kv_head);
        s.other[1] = KEYS ? queries_of(p, dout, it, head) : keys_of(p, v, it, kv_head);
        s.lse = statistics_of(p, call.lse, it, head);
        int64_t levels = call.detached ? it.level : 0;
        s.delta = statistics_of(p, call.delta, it, head) +
                  levels * p.batch * p.heads * static_cast<int64_t>(p.queries);
        s.step = static_cast<int64_t>(s.rate) * (KEYS ? p.heads : p.kv_heads) * p.width;
        s.first_row = it.begin;
        s.end_column = it.end_column;
        s.width = p.width;
        s.causal = p.causal;
        s.dropout_high = dropout_high(call.drop, p, it, head);
        return s;
    }

    static __device__ void load_other(const strip &s, uint32_t to, statistics &stats, int stage,
                                      uint32_t column) {
        to += stage * 2 * OTHER_BYTES;
        load_tile<T, WIDTH, COLUMNS, THREADS>(to, s.other[0], s.step, column, s.end_column,
                                              s.width);
        load_tile<T, WIDTH, COLUMNS, THREADS>(to + OTHER_BYTES, s.other[1], s.step, column,
                                              s.end_column, s.width);
        copies_commit();
        if (KEYS && threadIdx.x < COLUMNS) {
            int64_t query = column + threadIdx.x;
            bool there = query < s.end_column;
            stats.lse[stage][threadIdx.x] = there ? lse_of(s.lse[query * s.rate]) : INFINITY;
            stats.delta[stage][threadIdx.x] = there && FIRST ? s.delta[query * s.rate] : 0;
        }
    }

    /* Whether the warp's rows have to do with a block of columns. */
    static __device__ bool meets(const strip &s, int row, uint32_t column) {
        if (!s.causal) return true;
        if (KEYS) return column + COLUMNS - 1 >= s.first_row + row;
        return column <= s.first_row + row + 16 * BLOCKS - 1;
    }

    /* Calls visit(stage, column) for every block from `column` on, the next one on its way. */
    template <typename visitor>
    static __device__ void each_block(const strip &s, uint32_t column, uint32_t other,
                                      statistics &stats, visitor visit) {
        load_other(s, other, stats, 0, column);
        for (int stage = 0; column < s.end_column; column += COLUMNS) {
            int now = stage;
            bool more = column + COLUMNS < s.end_column;
            copies_wait<0>();
            __syncthreads();
            if (STAGES == 2) stage ^= 1;
            if (STAGES == 2 && more) load_other(s, other, stats, stage, column + COLUMNS);
            visit(now, column);
            if (STAGES == 2) continue;
            __syncthreads();
            if (more) load_other(s, other, stats, 0, column + COLUMNS);
        }
        __syncthreads(); /* the next head's blocks come to the same places */
    }

    /* delta of a level on its own: its rowsum(P dP) over its rowsum(P). */
    static __device__ void level_delta(const backward_call &call, const item &it, const strip &s,
                                       float (&delta)[BLOCKS][2], const float (&lse)[BLOCKS][2],
                                       uint32_t own, uint32_t other, statistics &stats, int row) {
        float weight[BLOCKS][2] = {};
        float *to = const_cast<float *>(s.delta);
        each_block(s, it.first_column, other, stats, [&](int stage, uint32_t column) {
            if (meets(s, row, column))
                sum_rows(call, s, delta, weight, lse, own, other + stage * 2 * OTHER_BYTES, row,
                         column);
        });
#pragma unroll
        for (int m = 0; m < BLOCKS; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                uint32_t lane = threadIdx.x % 32, at = row + 16 * m + lane / 4 + 8 * h;
                float sum = sum_of_quad(delta[m][h]), all = sum_of_quad(weight[m][h]);
                if (it.zero_keys > 0)
                    all += static_cast<float>(it.zero_keys) * exp2_fast(-lse[m][h]);
                delta[m][h] = all == 0.0f ? 0.0f : sum / all;
                if (it.begin + at < it.end && lane % 4 == 0)
                    to[static_cast<int64_t>(it.begin + at) * s.rate] = delta[m][h];
            }
    }

    /* The strip's row 0 of a tensor that is like the item's own rows. */
    template <typename V>
    static __device__ V *own_of(const plan &p, V *tensor, const item &it, uint32_t head) {
        return KEYS ? keys_of(p, tensor, it, head) : queries_of(p, tensor, it, head);
    }

    static __device__ void load_own(const backward_call &call, const item &it, uint32_t own) {
        const plan &p = call.work.p;
        const uint32_t members = p.heads / p.kv_heads, kv_head = it.head / members;
        const uint32_t heads = KEYS ? p.kv_heads : p.heads, head = KEYS ? kv_head : it.head;
        const int64_t step = static_cast<int64_t>(p.levels[it.level].rate) * heads * p.width;
        const T *first = own_of(p, static_cast<const T *>(KEYS ? call.k : call.q), it, head);
        const T *second = own_of(p, static_cast<const T *>(KEYS ? call.v : call.dout), it, head);
        /* a key after all queries may be anything: its gradient is 0 */
        const uint32_t end = KEYS && p.causal ? min32(it.end, it.end_column) : it.end;
        load_tile<T, WIDTH, ROWS, THREADS>(own, first, step, it.begin, end, p.width);
        if (FIRST)
            load_tile<T, WIDTH, ROWS, THREADS>(own + OWN_BYTES, second, step, it.begin, end,
                                               p.width);
        copies_commit();
    }

    /* All columns, of all heads that share the item's keys. */
    static __device__ void sum_item(const backward_call &call, const item &it, gradients &sums,
                                    uint32_t own, uint32_t other, statistics &stats, int row) {
        const plan &p = call.work.p;
        const level &l = p.levels[it.level];
        const uint32_t members = p.heads / p.kv_heads;
        const uint32_t end = KEYS ? (it.head / members + 1) * members : it.head + 1;
        float lse[BLOCKS][2] = {}, delta[BLOCKS][2] = {};
        for (uint32_t head = it.head; head < end; head++) {
            if (KEYS && offset_of(p, l, head) != offset_of(p, l, it.head)) continue;
            strip s = strip_of(call, it, head);
            if (!KEYS) {
#pragma unroll
                for (int m = 0; m < BLOCKS; m++)
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        int64_t query = it.begin + row + 16 * m + threadIdx.x % 32 / 4 + 8 * h;
                        bool there = query < it.end;
                        lse[m][h] = there ? lse_of(s.lse[query * s.rate]) : INFINITY;
                        if (!call.detached) delta[m][h] = there ? s.delta[query * s.rate] : 0;
                    }
                if (call.detached) level_delta(call, it, s, delta, lse, own, other, stats, row);
            }
            each_block(s, it.first_column, other, stats, [&](int stage, uint32_t column) {
                if (meets(s, row, column))
                    show(call, s, sums, lse, delta, own, other + stage * 2 * OTHER_BYTES, stats,
                         stage, row, column);
            });
        }
    }

    static __device__ void work_on(const backward_call &call, const item &it, uint32_t own,
                                   statistics &stats, uint8_t *flags, item *next) {
        const plan &p = call.work.p;
        const uint32_t other = own + 2 * OWN_BYTES, members = p.heads / p.kv_heads;
        const uint32_t heads = KEYS ? p.kv_heads : p.heads;
        const uint32_t head = KEYS ? it.head / members : it.head;
        const uint32_t first_head = KEYS ? it.group_head / members : it.group_head;
        const int row = static_cast<int>(threadIdx.x / 32) * 16 * BLOCKS;
        const bool chained = p.level_count > 1;
        const bool seen = it.first_column < it.end_column; /* keys that no query sees: zeros */
        gradients sums = {};
        if (it.end > 0 && seen) load_own(call, it, own);
        if (it.end > 0 && chained)
            flag_rows(p, it, KEYS ? head * members : head, KEYS ? members : 1, flags);
        if (threadIdx.x == 0) take_item(call.work, next); /* while the rows arrive */
        if (it.end > 0 && seen) sum_item(call, it, sums, own, other, stats, row);
        if (chained) {
            if (threadIdx.x == 0) wait_for_others(call.work, it);
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < SUMS; i++) {
            if (it.end == 0) break;
            strip_output<U> to;
            to.out = own_of(p, static_cast<U *>(call.out[i]), it, head);
            to.out_step = static_cast<int64_t>(p.levels[it.level].rate) * heads * p.width;
            to.sums = resting_rows_of(p, call.sums[i], it, head, first_head);
            to.factor = FIRST && i == 0 ? call.gradient : 1.0f;
            const float one[2] = {1, 1};
#pragma unroll
            for (int m = 0; m < BLOCKS; m++) {
                if (chained) {
                    resting_block<WIDTH> resting;
                    resting.load(p, it, to.sums, row + 16 * m, flags);
                    resting.add_to(sums[i][m], one);
                }
                store_rows<T, WIDTH>(p, it, to, sums[i][m], row + 16 * m, flags, own);
            }
        }
        if (chained) finish_item(call.work, it);
    }
};

template <typename T, typename U, int WIDTH, pass PASS>
__global__ void __launch_bounds__(backward_kernel<T, U, WIDTH, PASS>::THREADS)
    differentiate_all(const __grid_constant__ backward_call call) {
    using kernel = backward_kernel<T, U, WIDTH, PASS>;
    extern __shared__ __align__(128) char memory[];
    __shared__ item items[2];
    __shared__ uint8_t flags[kernel::ROWS];
    __shared__ __align__(8) typename kernel::statistics stats;
    if (threadIdx.x == 0) take_item(call.work, &items[0]);
    for (int turn = 0;; turn ^= 1) {
        __syncthreads();
        if (items[turn].level < 0) return;
        kernel::work_on(call, items[turn], shared_address(memory), stats, flags, &items[turn ^ 1]);
    }
}

template <typename T, typename U, int WIDTH, pass PASS> instance backward_instance_of() {
    using kernel = backward_kernel<T, U, WIDTH, PASS>;
    return {reinterpret_cast<const void *>(differentiate_all<T, U, WIDTH, PASS>), kernel::ROWS,
            kernel::THREADS, kernel::SHARED};
}

template <typename T, typename U, int WIDTH> instance backward_instance_for(pass which) {
    return which == OF_QUERIES ? backward_instance_of<T, U, WIDTH, OF_QUERIES>()
                               : backward_instance_of<T, U, WIDTH, OF_KEYS>();
}

/* Heads beyond 128 have too many sums for one kernel to hold those of dK and of dV. */
template <typename T, typename U = T> instance backward_instance(int64_t width, pass which) {
    if constexpr (sizeof(T) == 2)
        if (width <= 48) return backward_instance_for<T, U, 48>(which);
    if (width <= 64) return backward_instance_for<T, U, 64>(which);
    if (width <= 128) return backward_instance_for<T, U, 128>(which);
    if (which == OF_QUERIES) return backward_instance_of<T, U, 256, OF_QUERIES>();
    return which == OF_KEYS_DK ? backward_instance_of<T, U, 256, OF_KEYS_DK>()
                               : backward_instance_of<T, U, 256, OF_KEYS_DV>();
}

} // namespace dilated_sm80

#endif
