#include "ops/alibi.h"

#include "cpu/convert.h"
#include "cpu/cpu.h"
#include "cpu/positions.h"

enum { EXTRA = LNET_ALIBI_EXTRA, CHUNK_ELEMENTS = 1 << 15 };

/* The first eight bits of a number, toward 0. */
static float leading(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= 0xffff0000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void of_query(float *extra, float slope, float b) {
    float m = leading(slope), rest = slope - m, shift = slope * b / 256.0f, c = leading(shift);
    const float found[EXTRA] = {-c, c - shift,     256.0f * m,   16.0f * m,
                                m,  256.0f * rest, 16.0f * rest, rest};
    memcpy(extra, found, sizeof found);
}

static void of_key(float *extra, int64_t b) {
    float low = (float)(b & 255), middle = 16.0f * (float)(b >> 8 & 255),
          high = 256.0f * (float)(b >> 16);
    const float found[EXTRA] = {256.0f, 256.0f, high, middle, low, high, middle, low};
    memcpy(extra, found, sizeof found);
}

static lnet_status widen_rows(void *context, int64_t begin, int64_t end, int worker) {
    const struct lnet_alibi_args *a = context;
    const lnet_tensor *x = a->x;
    int64_t heads = x->shape[2], dim = x->shape[3], position = 0, run_end = 0;
    size_t size = lnet_dtype_size(x->dtype), bytes = (size_t)dim * size;
    (void)worker;
    for (int64_t row = begin; row < end; row++) {
        position++;
        if (row >= run_end) position = row_position(x, a->start, a->cu_seqlens, row, &run_end);
        int64_t b = a->sign == 0 ? 0 : position % a->block;
        for (int64_t h = 0; h < heads; h++) {
            int64_t place = row * heads + h, first = place * (dim + EXTRA);
            float extra[EXTRA] = {0};
            if (a->sign > 0) of_query(extra, ((const float *)a->slopes->data)[h], (float)b);
            if (a->sign < 0) of_key(extra, b);
            store_floats(a->out->data, first, extra, EXTRA, x->dtype);
            memcpy((char *)a->out->data + (size_t)(first + EXTRA) * size,
                   (const char *)x->data + (size_t)place * bytes, bytes);
        }
    }
    return LNET_OK;
}

lnet_status LNET_CPU(alibi)(const struct lnet_alibi_args *args, lnet_stream *stream) {
    const int64_t *shape = args->x->shape;
    (void)stream;
    return lnet_parallel_for(shape[0] * shape[1],
                             CHUNK_ELEMENTS / (shape[2] * (shape[3] + EXTRA) + 1) + 1, widen_rows,
                             (void *)args);
}
