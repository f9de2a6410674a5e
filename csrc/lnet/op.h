/* How an op describes itself, so that one caller serves them all.
 *
 * An op `foo` is an argument struct `lnet_foo_args` (csrc/ops/foo.h), a function that checks what
 * is particular to it and a table of the struct's fields in the order of a call's arguments:
 * outputs, saved, const inputs, sizes (csrc/ops/foo.c):
 *
 *     static lnet_status check_foo(const char *op, const struct lnet_foo_args *args) {...}
 *     LNET_DEFINE_OP(foo, LNET_FIELD(out), LNET_FIELD(x), LNET_FIELD(eps));
 *
 * From these LNET_DEFINE_OP makes lnet_foo(args, stream), which checks and then calls the backend
 * of the tensors' device. The kind of a field follows from its C type. */
#ifndef LNET_OP_H
#define LNET_OP_H

#include "lnet/backend.h"
#include "lnet/status.h"
#include "lnet/tensor.h"

typedef enum lnet_field_kind {
    LNET_FIELD_OUTPUT, /* lnet_tensor *, written or updated */
    LNET_FIELD_INPUT,  /* const lnet_tensor * */
    LNET_FIELD_INT64,
    LNET_FIELD_UINT64,
    LNET_FIELD_DOUBLE,
    LNET_FIELD_BOOL,
    LNET_FIELD_LIST, /* lnet_int64_list */
} lnet_field_kind;

typedef struct lnet_int64_list {
    const int64_t *items;
    int64_t count;
} lnet_int64_list;

typedef struct lnet_field {
    const char *name;
    lnet_field_kind kind;
    bool optional; /* a tensor that may be NULL, or what is false or 0 where it is left out */
    size_t offset;
} lnet_field;

typedef struct lnet_op {
    const char *name;
    const lnet_field *fields;
    int field_count;
    size_t args_size;
    lnet_status (*check)(const void *args);
    lnet_status (*launch)(const lnet_backend *backend, const void *args, lnet_stream *stream);
} lnet_op;

/* Checks the arguments. Of every op it asks that its tensors lie on one device and are contiguous,
 * and that its outputs are writable. */
lnet_status lnet_check(const lnet_op *op, const void *args);

/* Checks the arguments and calls the backend. */
lnet_status lnet_run(const lnet_op *op, const void *args, lnet_stream *stream);

/* The failure of an op that only GPUs have, called with tensors on the CPU. */
lnet_status lnet_no_kernel(const char *op);

/* clang-format off */
#define LNET_FIELD_KIND(member)                                                                    \
    _Generic(((lnet_args *)0)->member,                                                             \
        lnet_tensor *: LNET_FIELD_OUTPUT, const lnet_tensor *: LNET_FIELD_INPUT,                   \
        int64_t: LNET_FIELD_INT64, uint64_t: LNET_FIELD_UINT64, double: LNET_FIELD_DOUBLE,         \
        bool: LNET_FIELD_BOOL, lnet_int64_list: LNET_FIELD_LIST)
/* clang-format on */
#define LNET_FIELD_(name, member, optional)                                                        \
    { name, LNET_FIELD_KIND(member), optional, offsetof(lnet_args, member) }
#define LNET_FIELD(member) LNET_FIELD_(#member, member, false)
#define LNET_OPTIONAL(member) LNET_FIELD_(#member, member, true)
/* A field of a struct `group` inside the argument struct, called by its own name alone. */
#define LNET_FIELD_OF(group, member) LNET_FIELD_(#member, group.member, false)
#define LNET_OPTIONAL_OF(group, member) LNET_FIELD_(#member, group.member, true)

/* Defines lnet_foo and lnet_op_foo; inside it `lnet_args` is the type of the argument struct. The
 * declaration at the end takes the semicolon. */
#define LNET_DEFINE_OP(op, ...)                                                                    \
    static lnet_status check_args_##op(const void *args) {                                         \
        return check_##op(#op, args);                                                              \
    }                                                                                              \
    static lnet_status launch_##op(const lnet_backend *backend, const void *args,                  \
                                   lnet_stream *stream) {                                          \
        return backend->op != NULL ? backend->op(args, stream) : lnet_no_kernel(#op);              \
    }                                                                                              \
    const lnet_op *lnet_op_##op(void) {                                                            \
        typedef struct lnet_##op##_args lnet_args;                                                 \
        static const lnet_field fields[] = {__VA_ARGS__};                                          \
        static const lnet_op self = {                                                              \
            .name = #op,                                                                           \
            .fields = fields,                                                                      \
            .field_count = sizeof fields / sizeof *fields,                                         \
            .args_size = sizeof(lnet_args),                                                        \
            .check = check_args_##op,                                                              \
            .launch = launch_##op,                                                                 \
        };                                                                                         \
        return &self;                                                                              \
    }                                                                                              \
    lnet_status lnet_##op(const struct lnet_##op##_args *args, lnet_stream *stream) {              \
        return lnet_run(lnet_op_##op(), args, stream);                                             \
    }                                                                                              \
    const lnet_op *lnet_op_##op(void)

/* lnet_foo and lnet_op_foo of every op. */
#define LNET_OP(name)                                                                              \
    const lnet_op *lnet_op_##name(void);                                                           \
    lnet_status lnet_##name(const struct lnet_##name##_args *args, lnet_stream *stream);
#include "lnet/ops.def"

/* What describes each op, ended by NULL. */
extern const lnet_op *(*const lnet_ops[])(void);

#endif
