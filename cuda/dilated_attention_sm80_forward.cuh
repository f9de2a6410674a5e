/* Forward dilated attention for tensor cores from Ampere on: 16 or 32 queries a warp, a block of
 * keys at a time.
 *
 * A level goes on where the earlier ones stopped: it weighs its own output, and theirs, by their
 * softmax denominators. What rests between levels is the output so far, in float32, and its LSE. */
#ifndef LNET_DILATED_ATTENTION_SM80_FORWARD_CUH
#define LNET_DILATED_ATTENTION_SM80_FORWARD_CUH

#include "cuda/dilated_attention_sm80_plan.cuh"
#include "cuda/dilated_attention_sm80_rows.cuh"

namespace dilated_sm80 {

struct forward_call {
    queue work;
    void *out;               /* (B, Nq, H, D) */
    float *lse;              /* (B, H, Nq) */
    const void *q, *k, *v;   /* (B, Nq, H, D), (B, N, Hk, D) */
    resting_sums sums;
    dropout drop;
    float scale; /* of scores, as powers of 2; positive */
    float sign;  /* that the scale has, or 0 */
};

/* Registers: sums of 16 BLOCKS x WIDTH and of 16 BLOCKS x KEYS are WIDTH + KEYS halves each. */
template <typename T, int WIDTH> struct forward_shape {
    static constexpr int BLOCKS = WIDTH <= 128 ? 2 : 1; /* of 16 queries, a warp */
    static constexpr int KEYS = WIDTH <= 128 ? 64 : 32;
    static constexpr int STAGES = WIDTH <= 64 ? 2 : 1;
};
template <int WIDTH> struct forward_shape<float, WIDTH> {
    static constexpr int BLOCKS = 1;
    static constexpr int KEYS = WIDTH <= 128 ? 32 : 16;
    static constexpr int STAGES = WIDTH <= 64 ? 2 : 1;
};

template <typename T, int WIDTH, bool DROPOUT> struct forward_kernel {
    static constexpr int WARPS = 4, THREADS = 32 * WARPS;
    static constexpr int BLOCKS = forward_shape<T, WIDTH>::BLOCKS;
    static constexpr int KEYS = forward_shape<T, WIDTH>::KEYS;
    static constexpr int STAGES = forward_shape<T, WIDTH>::STAGES;
    static constexpr int QUERIES = 16 * BLOCKS * WARPS;
    using layout = tile<T, WIDTH>;
    static constexpr int KEY_BYTES = KEYS * layout::PITCH;
    static constexpr int SHARED = QUERIES * layout::PITCH + 2 * STAGES * KEY_BYTES;

    /* What a thread keeps of its queries: rows g and g + 8 of every block of 16. */
    struct state {
        float out[BLOCKS][WIDTH / 8][4];
        float top[BLOCKS][2]; /* what scores are relative to, as a power of 2 */
        float total[BLOCKS][2];
    };

    /* Of it a tile of queries, and the keys [0, end) that any of them sees. */
    struct strip {
        const T *q, *k, *v;
        int64_t q_step, k_step;
        uint32_t first_query, end, width;
        bool causal;
        uint64_t dropout_high;
    };

    static __device__ void load_keys(const strip &s, const T *from, uint32_t to, uint32_t key) {
        load_tile<T, WIDTH, KEYS, THREADS>(to, from, s.k_step, key, s.end, s.width);
    }

    /* Scores of the warp's queries with keys from `key` on: -inf where they are not seen. */
    static __device__ void scores(const forward_call &call, const strip &s,
                                  float (&score)[BLOCKS][KEYS / 8][4], uint32_t queries,
                                  uint32_t keys, int row, uint32_t key) {
        multiply_tiles<T, WIDTH, BLOCKS, KEYS>(score, queries, keys, row);
        if (call.sign != 1.0f) {
#pragma unroll
            for (int m = 0; m < BLOCKS; m++)
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) score[m][n][i] *= call.sign;
        }
        uint32_t first = s.first_query + row, lane = threadIdx.x % 32;
        if (key + KEYS <= s.end && (!s.causal || key + KEYS - 1 <= first)) return;
#pragma unroll
        for (int m = 0; m < BLOCKS; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t query = first + 16 * m + lane / 4 + i / 2 * 8;
                uint32_t seen = s.causal ? min32(query + 1, s.end) : s.end;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
                    if (key + n * 8 + lane % 4 * 2 + i % 2 >= seen) score[m][n][i] = -INFINITY;
            }
    }

    /* Scores to probabilities relative to `top`, which follows the highest score by leaps: as long
     * as no score is 2^8 times above it, sums stay far from overflow. */
    static __device__ void probabilities(const forward_call &call, state &x,
                                         float (&score)[BLOCKS][KEYS / 8][4]) {
        float highest[BLOCKS][2];
        bool leap = false;
#pragma unroll
        for (int m = 0; m < BLOCKS; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float most = -INFINITY;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
                    most = fmaxf(most, fmaxf(score[m][n][2 * h], score[m][n][2 * h + 1]));
                highest[m][h] = max_of_quad(most) * call.scale;
                leap = leap || highest[m][h] > x.top[m][h] + 8.0f;
            }
        if (__any_sync(0xFFFFFFFF, leap)) {
#pragma unroll
            for (int m = 0; m < BLOCKS; m++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    float top = fmaxf(x.top[m][h], highest[m][h]);
                    float shrink = top == -INFINITY ? 1.0f : exp2_fast(x.top[m][h] - top);
                    x.top[m][h] = top;
                    x.total[m][h] *= shrink;
#pragma unroll
                    for (int n = 0; n < WIDTH / 8; n++) {
                        x.out[m][n][2 * h] *= shrink;
                        x.out[m][n][2 * h + 1] *= shrink;
                    }
                }
        }
#pragma unroll
        for (int m = 0; m < BLOCKS; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float top = x.top[m][h] == -INFINITY ? 0.0f : x.top[m][h];
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                    for (int i = 2 * h; i < 2 * h + 2; i++) {
                        score[m][n][i] = exp2_fast(fmaf(score[m][n][i], call.scale, -top));
                        x.total[m][h] += score[m][n][i];
                    }
            }
    }

    static __device__ void drop(const forward_call &call, const strip &s,
                                float (&p)[BLOCKS][KEYS / 8][4], int row, uint32_t key) {
#pragma unroll
        for (int m = 0; m < BLOCKS; m++) {
            uint32_t kept = 0; /* 4 bits for each 8 keys */
#pragma unroll 1
            for (int n = 0; n < KEYS / 8; n++)
                kept |= keep_of_queries(call.drop, s.dropout_high, s.first_query + row + 16 * m,
                                        key + 8 * n)
                        << 4 * n;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (!(kept >> (4 * n + i) & 1)) p[m][n][i] = 0;
        }
    }

    /* The warp's queries before all keys that they see; q and the first keys are on their way. */
    static __device__ void attend(const forward_call &call, const strip &s, state &x, uint32_t q,
                                  uint32_t keys, int row) {
        uint32_t last = s.first_query + row + 16 * BLOCKS - 1;
        for (uint32_t key = 0, stage = 0; key < s.end; key += KEYS) {
            uint32_t k = keys + stage * 2 * KEY_BYTES, v = k + KEY_BYTES;
            bool more = key + KEYS < s.end, sees = !s.causal || key <= last;
            float score[BLOCKS][KEYS / 8][4];
            copies_wait<0>();
            __syncthreads();
            if (STAGES == 2) {
                stage ^= 1;
                uint32_t next = keys + stage * 2 * KEY_BYTES;
                if (more) load_keys(s, s.k, next, key + KEYS);
                if (more) load_keys(s, s.v, next + KEY_BYTES, key + KEYS);
            } else {
                load_keys(s, s.v, v, key);
            }
            copies_commit();
            if (sees) scores(call, s, score, q, k, row, key);
            if (STAGES == 1) {
                copies_wait<0>();
                __syncthreads();
                if (more) load_keys(s, s.k, k, key + KEYS);
                copies_commit();
            }
            if (!sees) continue;
            probabilities(call, x, score);
            if (DROPOUT) drop(call, s, score, row, key);
            add_product<T, WIDTH, BLOCKS, KEYS>(x.out, score, v);
        }
        copies_wait<0>();
    }

    /* LSE so far, as a power of 2, of a thread's rows: -inf where no earlier level takes one. */
    static __device__ void load_before(const forward_call &call, const item &it,
                                       const uint8_t *flags, int row, float (&before)[BLOCKS][2]) {
        const float log2e = 1.44269504088896341f;
        const plan &p = call.work.p;
        const float *lse = statistics_of(p, call.lse, it, it.head);
        const int64_t rate = p.levels[it.level].rate;
#pragma unroll
        for (int m = 0; m < BLOCKS; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                uint32_t at = row + 16 * m + threadIdx.x % 32 / 4 + 8 * h;
                bool earlier = it.begin + at < it.end && (flags[at] & EARLIER);
                before[m][h] = earlier ? __ldcg(lse + (it.begin + at) * rate) * log2e : -INFINITY;
            }
    }

    /* The level's sums, keys of zeros, and the output so far become one output: what the first
     * and the last are multiplied by, and the LSE. */
    static __device__ float weigh(const item &it, float top, float total, float before, float *own,
                                  float *other) {
        const float ln2 = 0.693147180559945309f;
        float highest = fmaxf(top, before);
        if (it.zero_keys > 0) highest = fmaxf(highest, 0.0f);
        float base = highest == -INFINITY ? 0.0f : highest;
        *own = exp2_fast(top - base);
        *other = exp2_fast(before - base);
        total = total * *own + *other;
        if (it.zero_keys > 0) total += static_cast<float>(it.zero_keys) * exp2_fast(-base);
        float part = total == 0.0f ? 0.0f : 1.0f / total;
        *own *= part;
        *other *= part;
        return total == 0.0f ? -INFINITY : (base + log2f(total)) * ln2;
    }

    /* The output of the levels so far, and its LSE, to where they go. */
    static __device__ void settle(const forward_call &call, const item &it, state &x,
                                  const uint8_t *flags, int row, uint32_t staging) {
        const plan &p = call.work.p;
        const uint32_t lane = threadIdx.x % 32;
        const int64_t rate = p.levels[it.level].rate;
        const bool chained = p.level_count > 1;
        float *lse = statistics_of(p, call.lse, it, it.head);
        strip_output<T> to;
        to.out = queries_of(p, static_cast<T *>(call.out), it, it.head);
        to.out_step = rate * p.heads * p.width;
        to.sums = resting_rows_of(p, call.sums, it, it.head, it.group_head);
        to.factor = call.drop.factor;
        float before[BLOCKS][2];
#pragma unroll
        for (int m = 0; m < BLOCKS; m++) before[m][0] = before[m][1] = -INFINITY;
        constexpr bool AHEAD = WIDTH == 64; /* the others need their registers */
        resting_block<WIDTH> resting[BLOCKS];
        if (chained) {
            load_before(call, it, flags, row, before);
#pragma unroll
            for (int m = 0; AHEAD && m < BLOCKS; m++)
                resting[m].load(p, it, to.sums, row + 16 * m, flags);
        }
#pragma unroll
        for (int m = 0; m < BLOCKS; m++) {
            float other[2];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                uint32_t query = it.begin + row + 16 * m + lane / 4 + 8 * h;
                float own, total = sum_of_quad(x.total[m][h]);
                float all = weigh(it, x.top[m][h], total, before[m][h], &own, &other[h]);
                if (query < it.end && lane % 4 == 0) __stcg(lse + query * rate, all);
#pragma unroll
                for (int n = 0; n < WIDTH / 8; n++) {
                    x.out[m][n][2 * h] *= own;
                    x.out[m][n][2 * h + 1] *= own;
                }
            }
            if (chained && AHEAD)
                resting[m].add_to(x.out[m], other);
            else if (chained)
                add_resting<WIDTH>(p, it, to.sums, x.out[m], other, row + 16 * m, flags);
            store_rows<T, WIDTH>(p, it, to, x.out[m], row + 16 * m, flags, staging);
        }
    }

    static __device__ void attend_item(const forward_call &call, const item &it, uint32_t q,
                                       uint8_t *flags, item *next) {
        const plan &p = call.work.p;
        const uint32_t rate = p.levels[it.level].rate, kv_head = it.head / (p.heads / p.kv_heads);
        const uint32_t keys = q + QUERIES * layout::PITCH;
        const int row = static_cast<int>(threadIdx.x / 32) * 16 * BLOCKS;
        const bool chained = p.level_count > 1;
        state x;
        strip s;
        if (it.end > 0) {
            s.q = queries_of(p, static_cast<const T *>(call.q), it, it.head);
            s.k = keys_of(p, static_cast<const T *>(call.k), it, kv_head);
            s.v = keys_of(p, static_cast<const T *>(call.v), it, kv_head);
            s.q_step = static_cast<int64_t>(rate) * p.heads * p.width;
            s.k_step = static_cast<int64_t>(rate) * p.kv_heads * p.width;
            s.first_query = it.begin;
            s.end = it.end_column;
            s.width = p.width;
            s.causal = p.causal;
            s.dropout_high = dropout_high(call.drop, p, it, it.head);
            load_tile<T, WIDTH, QUERIES, THREADS>(q, s.q, s.q_step, it.begin, it.end, p.width);
            load_keys(s, s.k, keys, 0);
            if (STAGES == 2) load_keys(s, s.v, keys + KEY_BYTES, 0);
            copies_commit();
            if (chained) flag_rows(p, it, it.head, 1, flags); /* while the rows arrive */
        }
        if (threadIdx.x == 0) take_item(call.work, next);
        if (it.end > 0) {
#pragma unroll
            for (int m = 0; m < BLOCKS; m++) {
#pragma unroll
                for (int n = 0; n < WIDTH / 8; n++)
#pragma unroll
                    for (int i = 0; i < 4; i++) x.out[m][n][i] = 0;
                x.top[m][0] = x.top[m][1] = -INFINITY;
                x.total[m][0] = x.total[m][1] = 0;
            }
            attend(call, s, x, q, keys, row);
        }
        if (chained) {
            if (threadIdx.x == 0) wait_for_others(call.work, it);
            __syncthreads();
        }
        if (it.end > 0) settle(call, it, x, flags, row, q);
        if (chained) finish_item(call.work, it);
    }
};

template <typename T, int WIDTH, bool DROPOUT>
__global__ void __launch_bounds__(forward_kernel<T, WIDTH, DROPOUT>::THREADS)
    attend_all(const __grid_constant__ forward_call call) {
    using kernel = forward_kernel<T, WIDTH, DROPOUT>;
    extern __shared__ __align__(128) char memory[];
    __shared__ item items[2];
    __shared__ uint8_t flags[kernel::QUERIES];
    if (threadIdx.x == 0) take_item(call.work, &items[0]);
    for (int turn = 0;; turn ^= 1) {
        __syncthreads();
        if (items[turn].level < 0) return;
        kernel::attend_item(call, items[turn], shared_address(memory), flags, &items[turn ^ 1]);
    }
}

template <typename T, int WIDTH, bool DROPOUT> instance forward_instance_of() {
    using kernel = forward_kernel<T, WIDTH, DROPOUT>;
    return {reinterpret_cast<const void *>(attend_all<T, WIDTH, DROPOUT>), kernel::QUERIES,
            kernel::THREADS, kernel::SHARED};
}

/* Where speed matters most there are more instances. */
template <typename T, bool DROPOUT> instance forward_instance_for(int64_t width) {
    if constexpr (sizeof(T) == 2 && !DROPOUT) {
        if (width <= 48) return forward_instance_of<T, 48, DROPOUT>();
        if (width > 64 && width <= 96) return forward_instance_of<T, 96, DROPOUT>();
    }
    if (width <= 64) return forward_instance_of<T, 64, DROPOUT>();
    if (width <= 128) return forward_instance_of<T, 128, DROPOUT>();
    return forward_instance_of<T, 256, DROPOUT>();
}

template <typename T> instance forward_instance(int64_t width, bool dropout) {
    return dropout ? forward_instance_for<T, true>(width) : forward_instance_for<T, false>(width);
}

} // namespace dilated_sm80

#endif
