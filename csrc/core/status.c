#include "lnet/status.h"

#include <stdio.h>

static _Thread_local char message[512];

lnet_status lnet_fail(lnet_status code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return code;
}

const char *lnet_message(void) {
    return message;
}
