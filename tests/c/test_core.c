/* The C core without Python: built with the address and undefined-behaviour sanitizers. */
#include "lnet/backend.h"
#include "lnet/memory.h"
#include "lnet/parallel.h"
#include "lnet/random.h"
#include "lnet/tensor.h"
#include "ops/dilated_attention.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int passed, failed;

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (condition) {                                                                           \
            passed++;                                                                              \
        } else {                                                                                   \
            failed++;                                                                              \
            printf("%s:%d: expected %s\n", __FILE__, __LINE__, #condition);                        \
        }                                                                                          \
    } while (0)

static const lnet_device CPU = {LNET_CPU, 0};

static void test_memory(void) {
    void *memory;
    int64_t before = lnet_alloc_bytes();
    EXPECT(lnet_alloc(&memory, 1000) == LNET_OK && (uintptr_t)memory % 64 == 0);
    EXPECT(lnet_alloc_bytes() == before + 1000);
    lnet_free(memory);
    lnet_free(NULL);
    EXPECT(lnet_alloc_bytes() == before && lnet_alloc_peak_bytes() >= before + 1000);
    EXPECT(lnet_alloc(&memory, INT64_MAX) == LNET_MEMORY_ERROR && memory == NULL);
    EXPECT(lnet_alloc(&memory, -1) == LNET_MEMORY_ERROR);
    lnet_alloc_fail_at(1);
    EXPECT(lnet_alloc(&memory, 8) == LNET_MEMORY_ERROR);
    EXPECT(strstr(lnet_message(), "8 bytes asked for") != NULL);
    EXPECT(lnet_alloc(&memory, 5 << 20) == LNET_OK && (uintptr_t)memory % (2 << 20) == 0);
    memset(memory, 1, 5 << 20);
    lnet_free(memory);
}

/* Large blocks serve later requests of about their size. */
static void test_kept_memory(void) {
    enum { LARGE = 64 << 20, LESS = LARGE - (LARGE >> 4), HALF = LARGE / 2 };
    void *first, *second, *third;
    int64_t before = lnet_alloc_bytes();
    EXPECT(lnet_alloc(&first, LARGE) == LNET_OK);
    lnet_free(first);
    EXPECT(lnet_alloc_bytes() == before);
    lnet_alloc_fail_at(1);
    EXPECT(lnet_alloc(&second, LARGE) == LNET_MEMORY_ERROR && second == NULL);
    EXPECT(lnet_alloc(&second, LESS) == LNET_OK && second == first);
    EXPECT(lnet_alloc_bytes() == before + LESS);
    memset(second, 1, LESS);
    EXPECT(lnet_alloc(&third, LESS) == LNET_OK && third != second);
    lnet_free(second);
    lnet_free(third);
    EXPECT(lnet_alloc(&first, HALF) == LNET_OK && first != second && first != third);
    EXPECT(lnet_alloc(&second, LARGE) == LNET_OK);
    lnet_free(first);
    lnet_free(second);
    lnet_alloc_trim();
    EXPECT(lnet_alloc_bytes() == before);
}

static void *allocate_often(void *wrong) {
    void *held[3] = {NULL};
    for (uint64_t i = 0; i < 300; i++) {
        int64_t bytes = (int64_t)(lnet_philox(1, i, 0).word[0] % 3 + 4) << 20;
        lnet_free(held[i % 3]);
        if (lnet_alloc(&held[i % 3], bytes) != LNET_OK) return NULL;
        uint64_t *ends[] = {held[i % 3], (uint64_t *)((char *)held[i % 3] + bytes) - 1};
        uint64_t mine = (uint64_t)(uintptr_t)held + i;
        *ends[0] = *ends[1] = mine;
        sched_yield();
        *(int *)wrong += *ends[0] != mine || *ends[1] != mine;
    }
    for (int i = 0; i < 3; i++) lnet_free(held[i]);
    return NULL;
}

static void test_memory_of_threads(void) {
    pthread_t threads[4];
    int wrong[4] = {0};
    int64_t before = lnet_alloc_bytes();
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, allocate_often, &wrong[i]);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    EXPECT(wrong[0] + wrong[1] + wrong[2] + wrong[3] == 0);
    EXPECT(lnet_alloc_bytes() == before);
    lnet_alloc_trim();
}

static int releases;
static void count_release(void *owner) {
    releases += *(int *)owner;
}

static void test_tensor(void) {
    char text[64];
    lnet_tensor a, b;
    EXPECT(lnet_tensor_new(&a, LNET_BFLOAT16, CPU, 2, (int64_t[]){3, 4}) == LNET_OK);
    EXPECT(lnet_tensor_count(&a) == 12 && lnet_tensor_contiguous(&a) && a.strides[0] == 4);
    EXPECT(strcmp(lnet_tensor_describe(&a, text, sizeof text), "bfloat16 (3, 4)") == 0);
    EXPECT(strlen(lnet_tensor_describe(&a, text, 12)) == 11);
    lnet_tensor_share(&b, &a);
    b.shape[0] = 2, b.strides[0] = 8;
    EXPECT(!lnet_tensor_contiguous(&b));
    lnet_tensor_release(&a);
    memset(b.data, 0, 8); /* still alive */
    lnet_tensor_release(&b);
    lnet_tensor_release(&b);
    int one = 1;
    float data[6];
    EXPECT(lnet_tensor_wrap(&a, data, LNET_FLOAT32, CPU, 1, (int64_t[]){6}, NULL, true,
                            count_release, &one) == LNET_OK);
    lnet_tensor_share(&b, &a);
    lnet_tensor_release(&a);
    EXPECT(releases == 0);
    lnet_tensor_release(&b);
    EXPECT(releases == 1);
    EXPECT(lnet_tensor_new(&a, LNET_INT64, CPU, 2, (int64_t[]){INT64_MAX / 4, 4}) ==
           LNET_SHAPE_ERROR);
    EXPECT(lnet_tensor_new(&a, LNET_INT64, CPU, 9, (int64_t[9]){0}) == LNET_SHAPE_ERROR);
}

/* Known answers of Random123, kat_vectors: philox4x32 with 10 rounds. */
static void test_philox(void) {
    lnet_random4 zero = lnet_philox(0, 0, 0), ones = lnet_philox(~0ull, ~0ull, ~0ull);
    lnet_random4 pi =
        lnet_philox(0x299f31d0a4093822ull, 0x85a308d3243f6a88ull, 0x0370734413198a2eull);
    EXPECT(zero.word[0] == 0x6627e8d5 && zero.word[1] == 0xe169c58d && zero.word[2] == 0xbc57ac4c &&
           zero.word[3] == 0x9b00dbd8);
    EXPECT(ones.word[0] == 0x408f276d && ones.word[1] == 0x41c83b0e && ones.word[2] == 0xa20bc7c6 &&
           ones.word[3] == 0x6d5451fd);
    EXPECT(pi.word[0] == 0xd16cfe09 && pi.word[1] == 0x94fdcceb && pi.word[2] == 0x5001e420 &&
           pi.word[3] == 0x24126ea1);
}

static lnet_status add_one(void *context, int64_t begin, int64_t end, int worker) {
    int *items = context;
    if (worker >= lnet_num_threads()) return lnet_fail(LNET_VALUE_ERROR, "worker %d", worker);
    for (int64_t i = begin; i < end; i++) items[i]++;
    return LNET_OK;
}

static lnet_status fail_late(void *context, int64_t begin, int64_t end, int worker) {
    (void)context, (void)end, (void)worker;
    return begin >= 300 ? lnet_fail(LNET_SHAPE_ERROR, "item %d", (int)begin) : LNET_OK;
}

static lnet_status nested(void *context, int64_t begin, int64_t end, int worker) {
    (void)worker;
    return lnet_parallel_for((end - begin) * 10, 3, add_one, (int *)context + begin * 10);
}

static int interrupt_now(void) {
    return 1;
}

static void *call_from_thread(void *items) {
    for (int i = 0; i < 200; i++) lnet_parallel_for(1000, 7, add_one, items);
    return NULL;
}

static void test_parallel(void) {
    static int items[2][1000];
    for (int threads = 1; threads <= 5; threads += 2) {
        memset(items, 0, sizeof items);
        EXPECT(lnet_set_num_threads(threads) == LNET_OK);
        EXPECT(lnet_parallel_for(1000, 7, add_one, items[0]) == LNET_OK);
        EXPECT(lnet_parallel_for(100, 9, nested, items[1]) == LNET_OK);
        int wrong = 0;
        for (int i = 0; i < 1000; i++) wrong += items[0][i] != 1 || items[1][i] != 1;
        EXPECT(wrong == 0);
        EXPECT(lnet_parallel_for(1000, 10, fail_late, NULL) == LNET_SHAPE_ERROR);
        EXPECT(strcmp(lnet_message(), "item 300") == 0);
        /* Only the calling thread asks: a short call may be over before its first turn. */
        lnet_set_interrupt_check(interrupt_now);
        lnet_status status = lnet_parallel_for(1000, 10, add_one, items[0]);
        EXPECT(status == LNET_INTERRUPTED || (status == LNET_OK && threads > 1));
        lnet_set_interrupt_check(NULL);
    }
    EXPECT(lnet_parallel_for(0, 1, fail_late, NULL) == LNET_OK);
    EXPECT(lnet_set_num_threads(0) == LNET_VALUE_ERROR);
    memset(items, 0, sizeof items);
    pthread_t other;
    pthread_create(&other, NULL, call_from_thread, items[0]);
    call_from_thread(items[1]);
    pthread_join(other, NULL);
    EXPECT(items[0][999] == 200 && items[1][999] == 200);
}

static lnet_status stay_below(void *context, int64_t begin, int64_t end, int worker) {
    (void)begin, (void)end;
    return worker < *(int *)context ? LNET_OK : lnet_fail(LNET_VALUE_ERROR, "worker %d", worker);
}

static atomic_bool stop_changing;
static void *change_threads(void *unused) {
    for (int n = 1; !atomic_load(&stop_changing); n = n % 8 + 1) lnet_set_num_threads(n);
    return unused;
}

/* What is true while another thread changes the thread count. */
static void while_threads_change(void (*test)(void)) {
    pthread_t other;
    int before = lnet_num_threads();
    atomic_store(&stop_changing, false);
    pthread_create(&other, NULL, change_threads, NULL);
    test();
    atomic_store(&stop_changing, true);
    pthread_join(other, NULL);
    lnet_set_num_threads(before);
}

static void test_workers(void) {
    int failures = 0;
    for (int i = 0; i < 2000; i++) {
        int workers = lnet_num_threads();
        failures += lnet_parallel_for_workers(20, 1, workers, stay_below, &workers) != LNET_OK;
    }
    EXPECT(failures == 0);
}

static void test_fork(void) {
    static int items[1000];
    EXPECT(lnet_parallel_for(1000, 7, add_one, items) == LNET_OK);
    pid_t child = fork();
    if (child == 0) {
        alarm(20); /* a child that waits for threads it does not have must not hang */
        _exit(lnet_parallel_for(1000, 7, add_one, items) == LNET_OK && items[999] == 2 ? 0 : 1);
    }
    int status;
    EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Attention over odd sizes, of some of the queries: finite, and the same for every allocation that
 * fails. */
static void attend(int64_t query_start, int64_t queries, bool causal) {
    enum { B = 2, N = 77, H = 4, HK = 2, D = 24 };
    lnet_tensor t[10];
    const int64_t wide[] = {B, queries, H, D}, narrow[] = {B, N, HK, D}, rows[] = {B, H, queries};
    enum { Q, K, V, OUT, LSE, DOUT, DQ, DK, DV };
    for (int i = 0; i < 9; i++) {
        bool kv = i == K || i == V || i == DK || i == DV;
        EXPECT(lnet_tensor_new(&t[i], LNET_FLOAT32, CPU, i == LSE ? 3 : 4,
                               i == LSE ? rows
                               : kv     ? narrow
                                        : wide) == LNET_OK);
        float *data = t[i].data;
        for (int64_t j = 0; j < lnet_tensor_count(&t[i]); j++)
            data[j] = (float)(int32_t)lnet_philox((uint64_t)i, (uint64_t)j, 0).word[0] * 0x1p-31f;
    }
    struct lnet_dilation dilation = {
        .segment_lengths = {(int64_t[]){16, 31, 100}, 3},
        .dilation_rates = {(int64_t[]){1, 3, 7}, 3},
        .causal = causal,
        .scale = 0.2,
        .dropout = 0.1,
        .seed = 5,
        .query_start = query_start,
    };
    struct lnet_dilated_attention_args forward = {&t[OUT], &t[LSE], &t[Q], &t[K], &t[V], dilation};
    struct lnet_dilated_attention_backward_args backward = {
        &t[DQ], &t[DK], &t[DV], &t[DOUT], &t[Q], &t[K], &t[V], &t[OUT], &t[LSE], dilation};
    EXPECT(lnet_dilated_attention(&forward, NULL) == LNET_OK);
    EXPECT(lnet_dilated_attention_backward(&backward, NULL) == LNET_OK);
    int64_t held = lnet_alloc_bytes();
    for (int n = 1; n <= 20; n++) {
        lnet_alloc_fail_at(n);
        lnet_status status = lnet_dilated_attention(&forward, NULL);
        EXPECT(status == LNET_OK || status == LNET_MEMORY_ERROR);
        lnet_alloc_fail_at(n);
        status = lnet_dilated_attention_backward(&backward, NULL);
        EXPECT(status == LNET_OK || status == LNET_MEMORY_ERROR);
        EXPECT(lnet_alloc_bytes() == held);
    }
    lnet_alloc_fail_at(0);
    EXPECT(lnet_dilated_attention(&forward, NULL) == LNET_OK);
    EXPECT(lnet_dilated_attention_backward(&backward, NULL) == LNET_OK);
    for (int i = 0; i < 9; i++) {
        const float *data = t[i].data;
        int wrong = 0;
        for (int64_t j = 0; j < lnet_tensor_count(&t[i]); j++) wrong += !isfinite(data[j]);
        EXPECT(wrong == 0);
        lnet_tensor_release(&t[i]);
    }
}

static void test_attention(void) {
    attend(0, 77, true);
    attend(30, 21, true);
    attend(30, 21, false);
}

int main(void) {
    if (lnet_backend_init() != LNET_OK || lnet_parallel_init() != LNET_OK) {
        printf("%s\n", lnet_message());
        return 1;
    }
    printf("cpu backend: %s\n", lnet_cpu_backend()->name);
    test_memory();
    test_kept_memory();
    test_memory_of_threads();
    test_tensor();
    test_philox();
    test_parallel();
    while_threads_change(test_workers);
    test_fork();
    test_attention();
    while_threads_change(test_attention);
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
