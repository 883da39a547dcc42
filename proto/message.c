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
#define ROW_COPY_DIGEST(name) to->name = from->name;
ROW_COPIER(function_spec)
ROW_COPIER(image_spec)

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

struct status image_spec_copy(struct arena *a, const struct image_spec *from,
                              struct image_spec *out)
{
    struct image_spec copy = {0};
    if (!copy_image_spec(a, from, &copy)) {
        return status_of(STATUS_NOMEM);
    }
    *out = copy;
    return status_ok();
}

/* ---- What agents say of GPUs and of canaries ---- */

/* Texts of an agent end on people's terminals. bytes: with the NUL. */
static const char *short_text(struct arena *a, const char *text, size_t bytes)
{
    size_t size = text == NULL ? 0 : strnlen(text, bytes - 1);
    char *copy = arena_alloc(a, size + 1);
    if (copy == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < size; i++) {
        copy[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    }
    copy[size] = '\0';
    return copy;
}

#define ROW_SHORT_U32(name) to->name = from->name;
#define ROW_SHORT_U64(name) to->name = from->name;
#define ROW_SHORT_BOOL(name) to->name = from->name;
#define ROW_SHORT_STR(name)                                                                        \
    to->name = short_text(a, from->name, GPU_TEXT_BYTES);                                          \
    if (to->name == NULL) {                                                                        \
        return false;                                                                              \
    }
#define ROW_SHORT_F(kind, name) ROW_SHORT_##kind(name)
#define ROW_SHORT_L(type, name)                                                                    \
    to->name##_count = from->name##_count < GPUS_MAX ? from->name##_count : GPUS_MAX;              \
    to->name = arena_zalloc(a, to->name##_count, sizeof to->name[0]);                              \
    if (to->name == NULL) {                                                                        \
        return false;                                                                              \
    }                                                                                              \
    for (size_t i = 0; i < to->name##_count; i++) {                                                \
        if (!short_##type(a, &from->name[i], &to->name[i])) {                                      \
            return false;                                                                          \
        }                                                                                          \
    }
#define ROW_SHORTENER(type)                                                                        \
    static bool short_##type(struct arena *a, const struct type *from, struct type *to)            \
    {                                                                                              \
        FIELDS_##type(ROW_SHORT_F, ROW_SHORT_L, ROW_SHORT_M) return true;                          \
    }
ROW_SHORTENER(gpu_report)
ROW_SHORTENER(gpu_inventory)

struct status gpu_inventory_copy(struct arena *a, const struct gpu_inventory *from,
                                 struct gpu_inventory *out)
{
    struct gpu_inventory copy = {0};
    if (!short_gpu_inventory(a, from, &copy)) {
        return status_of(STATUS_NOMEM);
    }
    *out = copy;
    return status_ok();
}

struct status isolation_results_copy(struct arena *a, const struct isolation_report *from,
                                     struct isolation_result **out, size_t *count)
{
    size_t kept = from->results_count < ISOLATION_RESULTS_MAX ? from->results_count
                                                              : (size_t)ISOLATION_RESULTS_MAX;
    struct isolation_result *copies = arena_zalloc(a, kept, sizeof *copies);
    for (size_t i = 0; copies != NULL && i < kept; i++) {
        const struct isolation_result *r = &from->results[i];
        copies[i] =
            (struct isolation_result){.check = short_text(a, r->check, ISOLATION_CHECK_BYTES),
                                      .verdict = r->verdict,
                                      .detail = short_text(a, r->detail, ISOLATION_DETAIL_BYTES)};
        if (copies[i].check == NULL || copies[i].detail == NULL) {
            return status_of(STATUS_NOMEM);
        }
    }
    if (copies == NULL) {
        return status_of(STATUS_NOMEM);
    }
    *out = copies;
    *count = kept;
    return status_ok();
}

const char *isolation_verdict_name(uint32_t verdict)
{
    static const char *const names[] = {[0] = "unknown",
                                        [ISOLATION_HELD] = "held",
                                        [ISOLATION_BREACHED] = "breached",
                                        [ISOLATION_NOT_APPLICABLE] = "not applicable",
                                        [ISOLATION_NOT_RUN] = "not run"};
    return verdict < sizeof names / sizeof names[0] ? names[verdict] : "unknown";
}

const char *gpu_state_name(uint32_t state)
{
    static const char *const names[] = {
        [GPU_STATE_NONE] = "none",          [GPU_STATE_OFF] = "off",
        [GPU_STATE_STARTING] = "starting",  [GPU_STATE_OK] = "ok",
        [GPU_STATE_FAILING] = "failing",    [GPU_STATE_SILENT] = "silent",
        [GPU_STATE_SIMULATED] = "simulated"};
    return state < sizeof names / sizeof names[0] ? names[state] : "unknown";
}

const char *gpu_health_name(uint32_t health)
{
    static const char *const names[] = {
        [GPU_HEALTH_OK] = "ok", [GPU_HEALTH_DEGRADED] = "degraded", [GPU_HEALTH_FAILED] = "failed"};
    return health < sizeof names / sizeof names[0] ? names[health] : "unknown";
}
