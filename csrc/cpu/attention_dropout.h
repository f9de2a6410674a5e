/* Which pairs of a query and a key a strip's dropout keeps; the words are
 * ops/dilated_attention.h's. */
#ifndef LNET_CPU_ATTENTION_DROPOUT_H
#define LNET_CPU_ATTENTION_DROPOUT_H

#include "cpu/attention_pattern.h"
#include "lnet/random.h"

struct attention_dropout {
    uint64_t key, high;
    uint32_t threshold;
    float factor; /* 1 / (1 - p) */
};

static inline struct attention_dropout dropout_of(const struct lnet_dilation *dilation,
                                                  const struct attention_strip *strip,
                                                  int64_t batch_head) {
    uint64_t start = (uint64_t)(strip->start + dilation->first_row);
    uint64_t level = (uint64_t)(strip->level + dilation->first_level);
    return (struct attention_dropout){
        .key = dilation->seed ^ (start >> 32) << 32,
        .high = (start & 0xFFFFFFFF) | (level | (uint64_t)batch_head << 6) << 32,
        .threshold = lnet_dropout_threshold(dilation->dropout),
        .factor = (float)(1.0 / (1.0 - dilation->dropout)),
    };
}

/* out[i * q_stride + j * k_stride] = what the term of query q + i and key k + j is multiplied by,
 * for i < queries and j < keys rounded up to a multiple of 4; k is a multiple of 4. */
static void dropout_factors(float *out, int64_t q_stride, int64_t k_stride,
                            const struct attention_dropout *dropout, int64_t q, int64_t queries,
                            int64_t k, int64_t keys) {
    enum { GROUP = 16 };
    for (int64_t j = 0; j < keys; j += 4) {
        for (int64_t begin = 0; begin < queries; begin += GROUP) {
            float factors[4][GROUP];
            for (int i = 0; i < GROUP; i++) {
                uint64_t low = (uint64_t)(k + j) / 4 | (uint64_t)(q + begin + i) << 32;
                lnet_random4 random = lnet_philox(dropout->key, low, dropout->high);
                for (int word = 0; word < 4; word++)
                    factors[word][i] =
                        random.word[word] >= dropout->threshold ? dropout->factor : 0.0f;
            }
            int64_t end = min_int(GROUP, queries - begin);
            for (int word = 0; word < 4; word++)
                for (int64_t i = 0; i < end; i++)
                    out[(begin + i) * q_stride + (j + word) * k_stride] = factors[word][i];
        }
    }
}

#endif
