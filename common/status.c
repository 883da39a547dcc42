#include "common/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *status_name(enum status_code code)
{
    switch (code) {
#define STATUS_NAME_ROW(name, number, text)                                                        \
    case STATUS_##name:                                                                            \
        return #name;
        STATUS_CODES(STATUS_NAME_ROW)
#undef STATUS_NAME_ROW
    case STATUS_CODE_MAX_:
        break;
    }
    return "INTERNAL";
}

const char *status_text(enum status_code code)
{
    switch (code) {
#define STATUS_TEXT_ROW(name, number, text)                                                        \
    case STATUS_##name:                                                                            \
        return text;
        STATUS_CODES(STATUS_TEXT_ROW)
#undef STATUS_TEXT_ROW
    case STATUS_CODE_MAX_:
        break;
    }
    return "internal error";
}

enum status_code status_from_wire(unsigned number)
{
    return number < STATUS_CODE_MAX_ ? (enum status_code)number : STATUS_INTERNAL;
}

struct status status_fail(struct errmsg *msg, enum status_code code, const char *format, ...)
{
    if (msg != NULL) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(msg->text, sizeof msg->text, format, args);
        va_end(args);
    }
    return status_of(code);
}

struct status status_prefix(struct errmsg *msg, struct status s, const char *format, ...)
{
    if (msg == NULL || status_is_ok(s)) {
        return s;
    }
    char tail[ERRMSG_BYTES_MAX];
    memcpy(tail, msg->text, sizeof tail);
    va_list args;
    va_start(args, format);
    int used = vsnprintf(msg->text, sizeof msg->text, format, args);
    va_end(args);
    if (used < 0 || (size_t)used >= sizeof msg->text) {
        return s;
    }
    const char *rest = tail[0] != '\0' ? tail : status_text(s.code);
    (void)snprintf(msg->text + used, sizeof msg->text - (size_t)used, ": %s", rest);
    return s;
}

enum status_code status_from_errno(int error)
{
    switch (error) {
    case 0:
        return STATUS_OK;
    case ENOENT:
        return STATUS_NOT_FOUND;
    case EEXIST:
        return STATUS_EXISTS;
    case ENOMEM:
        return STATUS_NOMEM;
    case EACCES:
    case EPERM:
        return STATUS_DENIED;
    case ENAMETOOLONG:
    case EINVAL:
    case ELOOP:
        return STATUS_INVALID;
    case ECONNREFUSED:
    case ECONNRESET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EPIPE:
        return STATUS_UNAVAILABLE;
    case ETIMEDOUT:
        return STATUS_TIMEOUT;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
        return STATUS_LIMIT;
    case ENOSYS:
    case EOPNOTSUPP:
        return STATUS_UNSUPPORTED;
    default:
        return STATUS_IO;
    }
}
