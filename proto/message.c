#include "proto/message.h"

#include "common/arena.h"

#include <string.h>

/* Deep copies, made from the rows like the structs themselves. */
#define ROW_COPY_U32(name) to->name = from->name;
#define ROW_COPY_U64(name) to->name = from->name;
#define ROW_COPY_STR(name)                                                                         \
    to->name = from->name == NULL ? "" : arena_text(a, from->name, strlen(from->name));            \
    if (to->name == NULL) {                                                                        \
        return false;                                                                              \
    }
#define ROW_COPY_BYTES(name)                                                                       \
    if (!copy_bytes(a, from->name, &to->name)) {                                                   \
        return false;                                                                              \
    }
#define ROW_COPY_F(kind, name) ROW_COPY_##kind(name)
#define ROW_COPY_L(type, name)                                                                     \
    to->name##_count = from->name##_count;                                                         \
    to->name = NULL;                                                                               \
    if (from->name##_count > 0) {                                                                  \
        to->name = arena_zalloc(a, from->name##_count, sizeof to->name[0]);                        \
        if (to->name == NULL) {                                                                    \
            return false;                                                                          \
        }                                                                                          \
        for (size_t i = 0; i < from->name##_count; i++) {                                          \
            if (!copy_##type(a, &from->name[i], &to->name[i])) {                                   \
                return false;                                                                      \
            }                                                                                      \
        }                                                                                          \
    }
#define ROW_COPIER(type)                                                                           \
    static bool copy_##type(struct arena *a, const struct type *from, struct type *to)             \
    {                                                                                              \
        FIELDS_##type(ROW_COPY_F, ROW_COPY_L, ROW_COPY_M) return true;                             \
    }

static bool copy_bytes(struct arena *a, struct bytes from, struct bytes *to)
{
    uint8_t *data = arena_alloc(a, from.size);
    if (data == NULL) {
        return false;
    }
    if (from.size > 0) {
        memcpy(data, from.data, from.size);
    }
    *to = bytes_of(data, from.size);
    return true;
}

ROW_COPIER(text)
ROW_COPIER(pair)
ROW_COPIER(schedule_spec)
ROW_COPIER(function_spec)

struct status function_spec_copy(struct arena *a, const struct function_spec *from,
                                 struct function_spec *out)
{
    struct function_spec copy = {0};
    if (!copy_function_spec(a, from, &copy)) {
        return status_of(STATUS_NOMEM);
    }
    *out = copy;
    return status_ok();
}
