/* RoPE and xPos. A block has some rows at a time: it finds their positions, makes a table of the
 * cosine and sine of each of their pairs, and turns all heads by it.
 *
 * Angles are counted in turns, whole turns taken off in double precision twice over (the position
 * times a sum of two doubles), so that position 2^40 is as exact as position 1.
 *
 * Rows that no document of an impossible cu_seqlens holds become NaN. */
#include "cuda/positions.cuh"
#include "cuda/rows.cuh"

extern "C" {
#include "ops/rotary.h"
}

#include <math.h>

enum {
    THREADS = 256,
    PAIRS = 128,     /* of a head, and */
    HEADS = 1 << 12, /* heads of a row, that one launch turns at most */
    ENTRIES = 256,   /* of the table */
    ROWS = 64,       /* at a time */
    AHEAD = 4,       /* packets that a thread has on their way at one time */
};

struct rotary_job {
    void *out;
    const void *x;
    const int64_t *starts; /* (S+1,) or NULL */
    int64_t documents;
    int64_t rows, length; /* B * N and N */
    int64_t heads, dim;
    int64_t start, block; /* block: 0 for RoPE */
    int64_t first_head;
    int head_count, first_pair, pair_count, tile_rows;
    float direction;
};

/* What is particular to a pair. */
struct pair_constant {
    double turns, turns_low; /* base^(-2i/D) / (2 pi), as a sum */
    double zoom;             /* sign * log2(zeta_i) / scale_base */
};

struct pair_constants {
    pair_constant items[PAIRS];
};

/* A row's place in the sequence of positions, and its distance from the middle of its block. */
struct position {
    double p, distance;
};

static __device__ position position_of(const rotary_job &a, int64_t row) {
    const int64_t p = position_in(a.starts, a.documents, a.start + row % a.length);
    position found = {NAN, 0.0};
    if (p < 0) return found;
    found.p = static_cast<double>(p);
    if (a.block > 0)
        found.distance = static_cast<double>(p % a.block) - 0.5 * static_cast<double>(a.block);
    return found;
}

/* z cos(a) and z sin(a) of a pair at a position. */
static __device__ float2 turn_of(const pair_constant &pair, const position &at) {
    /* the product is high + low, of which high loses its whole turns exactly */
    const double high = at.p * pair.turns;
    const double low = fma(at.p, pair.turns, -high) + at.p * pair.turns_low;
    const double rest = (high - rint(high)) + low, quarters = rint(4.0 * rest);
    const int quarter = static_cast<int>(quarters);
    float cosine, sine;
    sincospif(static_cast<float>(2.0 * (rest - 0.25 * quarters)), &sine, &cosine);
    if (quarter & 1) {
        const float turned = cosine;
        cosine = -sine;
        sine = turned;
    }
    const double power = at.distance * pair.zoom, whole = rint(power);
    float zoom = ldexpf(exp2f(static_cast<float>(power - whole)),
                        static_cast<int>(fmin(fmax(whole, -300.0), 300.0)));
    if (quarter & 2) zoom = -zoom;
    return make_float2(zoom * cosine, zoom * sine);
}

/* N elements of a thread at a time: 16 bytes, or one pair by elements. */
template <typename element, int N> struct pair_packet : packet<element, N> {};

template <typename element> struct pair_packet<element, 2> {
    element items[2];

    __device__ __forceinline__ void widen(float (&x)[2]) const {
        x[0] = lnet_widen(items[0]), x[1] = lnet_widen(items[1]);
    }
    __device__ __forceinline__ void narrow(const float (&x)[2]) {
        lnet_narrow(&items[0], x[0]), lnet_narrow(&items[1], x[1]);
    }
    __device__ __forceinline__ void load(const element *row, int64_t i) {
        items[0] = row[2 * i], items[1] = row[2 * i + 1];
    }
    __device__ __forceinline__ void store(element *row, int64_t i) const {
        row[2 * i] = items[0], row[2 * i + 1] = items[1];
    }
};

template <int N>
static __device__ __forceinline__ void turn_pairs(float (&x)[N], const float2 *turns) {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
        const float2 turn = turns[i / 2];
        const float even = x[i], odd = x[i + 1];
        x[i] = even * turn.x - odd * turn.y;
        x[i + 1] = even * turn.y + odd * turn.x;
    }
}

template <typename element, int N>
static __global__ void __launch_bounds__(THREADS)
    turn_rows(const rotary_job a, const pair_constants constants) {
    __shared__ position positions[ROWS];
    __shared__ float2 table[ENTRIES];
    const int thread = static_cast<int>(threadIdx.x), packs = 2 * a.pair_count / N;
    const int table_row = thread / a.pair_count;
    const pair_constant pair = constants.items[thread - table_row * a.pair_count];
    const element *const x = static_cast<const element *>(a.x);
    element *const out = static_cast<element *>(a.out);
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * a.tile_rows; first < a.rows;
         first += static_cast<int64_t>(gridDim.x) * a.tile_rows) {
        const int rows = static_cast<int>(min(static_cast<int64_t>(a.tile_rows), a.rows - first));
        const int all = rows * a.head_count * packs;
        __syncthreads(); /* all have used the table before */
        if (thread < rows) positions[thread] = position_of(a, first + thread);
        __syncthreads();
        if (table_row < rows) {
            const float2 turn = turn_of(pair, positions[table_row]);
            table[thread] = make_float2(turn.x, a.direction * turn.y);
        }
        __syncthreads();
        for (int begin = thread; begin < all; begin += AHEAD * THREADS) {
            pair_packet<element, N> ahead[AHEAD];
            int64_t places[AHEAD];
            const float2 *turns[AHEAD];
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                const int k = begin + j * THREADS;
                const int line = k / packs, pack = k - line * packs; /* a line: a head of a row */
                const int row = line / a.head_count, head = line - row * a.head_count;
                places[j] = ((first + row) * a.heads + a.first_head + head) * a.dim +
                            2 * a.first_pair + pack * N;
                turns[j] = table + row * a.pair_count + pack * (N / 2);
                if (k < all) ahead[j].load(x + places[j], 0);
            }
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                float v[N];
                if (begin + j * THREADS >= all) break;
                ahead[j].widen(v);
                turn_pairs(v, turns[j]);
                ahead[j].narrow(v);
                ahead[j].store(out + places[j], 0);
            }
        }
    }
}

/* In long double, as the CPU has it: turns * 2^40 must keep its fraction. */
static void make_constants(pair_constants *c, const struct lnet_rotary_args *a, int first,
                           int count) {
    const long double pairs = static_cast<long double>(a->x->shape[3] / 2);
    for (int i = 0; i < count; i++) {
        const long double share = static_cast<long double>(first + i) / pairs; /* 2i / D */
        const long double turns =
            lnet_rotary_frequency(a, powl(static_cast<long double>(a->base), -share)) /
            (2.0L * 3.14159265358979323846264338327950288L);
        pair_constant *pair = &c->items[i];
        pair->turns = static_cast<double>(turns);
        pair->turns_low = static_cast<double>(turns - static_cast<long double>(pair->turns));
        pair->zoom = 0.0;
        if (a->scale_base > 0.0)
            pair->zoom = static_cast<double>(a->sign) / a->scale_base *
                         log2((static_cast<double>(share) + 0.4) / 1.4);
    }
}

extern "C" lnet_status lnet_cuda_rotary(const struct lnet_rotary_args *a, lnet_stream *stream) {
    const int64_t *shape = a->x->shape;
    const int64_t heads = shape[2], pairs = shape[3] / 2;
    rotary_job job = {};
    pair_constants constants;
    lnet_status status = LNET_OK;
    job.out = a->out->data;
    job.x = a->x->data;
    if (a->cu_seqlens != NULL) {
        job.starts = data_of<int64_t>(a->cu_seqlens);
        job.documents = a->cu_seqlens->shape[0] - 1;
    }
    job.rows = shape[0] * shape[1];
    job.length = shape[1];
    job.heads = heads;
    job.dim = shape[3];
    job.start = a->start;
    job.block = a->scale_base > 0.0 ? a->block : 0;
    job.direction = a->inverse ? -1.0f : 1.0f;
    if (job.rows == 0) return LNET_OK;
    for (int64_t pair = 0; pair < pairs; pair += PAIRS) {
        job.first_pair = static_cast<int>(pair);
        job.pair_count = static_cast<int>(pairs - pair < PAIRS ? pairs - pair : PAIRS);
        job.tile_rows = ENTRIES / job.pair_count < ROWS ? ENTRIES / job.pair_count : ROWS;
        make_constants(&constants, a, job.first_pair, job.pair_count);
        const int64_t tiles = (job.rows + job.tile_rows - 1) / job.tile_rows;
        for (int64_t head = 0; head < heads; head += HEADS) {
            job.first_head = head;
            job.head_count = static_cast<int>(heads - head < HEADS ? heads - head : HEADS);
            status = lnet_by_dtype(a->x->dtype, [&](auto zero) {
                using element = decltype(zero);
                constexpr int N = packet_size<element>;
                auto *kernel = in_packets(job.dim, N, a->x, a->out) ? turn_rows<element, N>
                                                                    : turn_rows<element, 2>;
                int64_t blocks = 0;
                status = resident_blocks(&blocks, kernel, THREADS, 0, tiles, stream);
                if (status != LNET_OK) return status;
                kernel<<<static_cast<unsigned>(blocks), THREADS, 0, lnet_cuda_stream(stream)>>>(
                    job, constants);
                return lnet_cuda_launched("turn_rows");
            });
            if (status != LNET_OK) return status;
        }
    }
    return status;
}
