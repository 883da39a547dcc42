#include "agent/gpu/nvml.h"

#include "common/clock.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct symbol {
    const char *name, *before;
    size_t offset;
};

static const struct symbol symbols[] = {
#define NVML_SYMBOL(member, symbol, before, arguments)                                             \
    {symbol, before, offsetof(struct nvml, member)},
    NVML_FUNCTIONS(NVML_SYMBOL)
#undef NVML_SYMBOL
};

static void symbols_find(struct nvml *n)
{
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *found = dlsym(n->library, symbols[i].name);
        if (found == NULL && symbols[i].before != NULL) {
            found = dlsym(n->library, symbols[i].before);
        }
        /* POSIX makes this legal where ISO C does not. */
        memcpy((uint8_t *)n + symbols[i].offset, &found, sizeof found);
    }
}

static void functions_forget(struct nvml *n)
{
#define NVML_FORGET(member, symbol, before, arguments) n->member = NULL;
    NVML_FUNCTIONS(NVML_FORGET)
#undef NVML_FORGET
    n->library = NULL;
}

struct status nvml_open(struct nvml *n, const char *path, struct errmsg *msg)
{
    functions_forget(n);
    nvml_begin(n);
    n->library = dlopen(path != NULL ? path : NVML_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    (void)nvml_end(n, 0);
    if (n->library == NULL) {
        const char *why = dlerror();
        return status_fail(msg, STATUS_NOT_FOUND, "%s", why != NULL ? why : "cannot be loaded");
    }
    symbols_find(n);
    if (n->init == NULL || n->shutdown == NULL || n->count == NULL || n->by_index == NULL) {
        nvml_close(n);
        return status_fail(msg, STATUS_UNSUPPORTED, "%s is too old, or is no NVML",
                           path != NULL ? path : NVML_LIBRARY);
    }
    return status_ok();
}

void nvml_close(struct nvml *n)
{
    if (n->library != NULL) {
        nvml_begin(n);
        (void)dlclose(n->library);
        (void)nvml_end(n, 0);
    }
    functions_forget(n);
}

void nvml_begin(struct nvml *n)
{
    uint64_t now_us = clock_now_us(clock_real());
    atomic_store(&n->call_us, now_us != 0 ? now_us : 1);
}

int nvml_end(struct nvml *n, int code)
{
    atomic_store(&n->call_us, 0);
    return code;
}

uint64_t nvml_silent_us(struct nvml *n, uint64_t now_us)
{
    uint64_t since_us = atomic_load(&n->call_us);
    return since_us == 0 || since_us > now_us ? 0 : now_us - since_us;
}

const char *nvml_code_text(int code, char out[static 32])
{
    static const struct {
        int code;
        const char *text;
    } texts[] = {
        {NVML_UNINITIALIZED, "the library was shut down"},
        {NVML_NO_PERMISSION, "permission denied"},
        {NVML_DRIVER_NOT_LOADED, "the driver is not loaded"},
        {NVML_TIMEOUT, "timeout"},
        {NVML_LIBRARY_NOT_FOUND, "a library of the driver is missing"},
        {NVML_FUNCTION_NOT_FOUND, "the library lacks a function"},
        {NVML_GPU_IS_LOST, "the GPU is lost: it has fallen off the bus"},
        {NVML_RESET_REQUIRED, "the GPU needs a reset"},
        {NVML_LIB_RM_VERSION_MISMATCH, "library and loaded driver are of different versions"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i].code == code) {
            return texts[i].text;
        }
    }
    (void)snprintf(out, 32, "error %d", code);
    return out;
}

void nvml_text_clean(char *text, size_t size)
{
    text[size - 1] = '\0';
    size_t length = strlen(text), first = 0;
    while (length > 0 && text[length - 1] == ' ') {
        length--;
    }
    while (first < length && text[first] == ' ') {
        first++;
    }
    for (size_t i = first; i < length; i++) {
        char c = text[i];
        text[i - first] = c;
        if (c < ' ' || c > '~') {
            text[i - first] = '?';
        }
    }
    text[length - first] = '\0';
}
