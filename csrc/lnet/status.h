/* Status codes and the message that goes with a failure.
 *
 * A function that can fail returns lnet_status. Where the numbers are known it calls lnet_fail(),
 * which keeps the message for the calling thread; callers pass the code up unchanged. */
#ifndef LNET_STATUS_H
#define LNET_STATUS_H

#include <stdarg.h>

typedef enum lnet_status {
    LNET_OK = 0,
    LNET_SHAPE_ERROR,
    LNET_DTYPE_ERROR,
    LNET_DEVICE_ERROR,
    LNET_VALUE_ERROR,
    LNET_MEMORY_ERROR,
    LNET_INTERRUPTED, /* the user asked to stop (Ctrl-C); no message */
} lnet_status;

#ifdef __cplusplus
extern "C" {
#endif

/* Keeps the printf-formatted message for this thread and returns `code`. */
lnet_status lnet_fail(lnet_status code, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* The message of this thread's last failure; valid until its next one. */
const char *lnet_message(void);

#ifdef __cplusplus
}
#endif

#define LNET_TRY(expression)                                                                       \
    do {                                                                                           \
        status = (expression);                                                                     \
        if (status != LNET_OK) goto fail;                                                          \
    } while (0)

#endif
