#include "agent/runners/runner_args.h"

#include "common/check.h"
#include "common/mem.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char *const python_head[] = {
    RUNNER_PYTHON, "-I", "-B", RUNNER_FILES_FOLDER "/skep_runner.py", RUNNER_APP_FOLDER,
};
static const char *const command_head[] = {RUNNER_FILES_FOLDER "/skep-command-runner", "--"};

enum {
    PYTHON_HEAD_COUNT = sizeof python_head / sizeof python_head[0],
    COMMAND_HEAD_COUNT = sizeof command_head / sizeof command_head[0],
};

void runner_args_close(struct runner_args *args)
{
    for (size_t i = 0; i < args->count; i++) {
        mem_free(args->items[i]);
    }
    mem_free(args->items);
    *args = (struct runner_args){0};
}

static struct status args_add(struct runner_args *args, const char *word, struct errmsg *msg)
{
    CHECK(args->count < RUNNER_ARGS_MAX);
    char *copy = mem_strdup(word);
    if (copy == NULL) {
        return status_fail(msg, STATUS_NOMEM, "no memory for arguments");
    }
    args->items[args->count++] = copy;
    return status_ok();
}

static bool text_empty(const char *text)
{
    return text == NULL || text[0] == '\0';
}

/* A path relative to the code that stays inside it. */
static bool path_inside(const char *path, size_t size)
{
    if (size == 0 || path[0] == '/') {
        return false;
    }
    size_t start = 0;
    for (size_t i = 0; i <= size; i++) {
        if (i == size || path[i] == '/') {
            if (i - start == 2 && path[start] == '.' && path[start + 1] == '.') {
                return false;
            }
            start = i + 1;
        }
    }
    return true;
}

static bool is_word(const char *text)
{
    if (!isalpha((unsigned char)text[0]) && text[0] != '_') {
        return false;
    }
    while (isalnum((unsigned char)*text) || *text == '_' || *text == '.') {
        text++;
    }
    return *text == '\0' && text[-1] != '.';
}

static struct status check_python(const char *handler, struct errmsg *msg)
{
    const char *colon = strrchr(handler, ':');
    size_t size = colon == NULL ? 0 : (size_t)(colon - handler);
    if (size < 4 || memcmp(colon - 3, ".py", 3) != 0 || !is_word(colon + 1)) {
        return status_fail(msg, STATUS_INVALID, "handler: not FILE.py:FUNCTION");
    }
    if (!path_inside(handler, size)) {
        return status_fail(msg, STATUS_INVALID, "handler: the file is not inside the code");
    }
    return status_ok();
}

static struct status check_c(const char *handler, struct errmsg *msg)
{
    size_t size = strlen(handler);
    if (!path_inside(handler, size) || handler[size - 1] == '/') {
        return status_fail(msg, STATUS_INVALID, "handler: the program is not inside the code");
    }
    return status_ok();
}

static struct status check_command(const struct runner_recipe *r, struct errmsg *msg)
{
    if (!text_empty(r->handler)) {
        return status_fail(msg, STATUS_INVALID, "handler: a command has none");
    }
    if (r->command_count == 0 || text_empty(r->command[0])) {
        return status_fail(msg, STATUS_INVALID, "command: missing");
    }
    if (r->command_count > RUNNER_ARGS_MAX - COMMAND_HEAD_COUNT) {
        return status_fail(msg, STATUS_LIMIT, "command: %zu words are over the limit of %d",
                           r->command_count, RUNNER_ARGS_MAX - COMMAND_HEAD_COUNT);
    }
    for (size_t i = 0; i < r->command_count; i++) {
        if (strlen(r->command[i]) >= RUNNER_ARG_BYTES_MAX) {
            return status_fail(msg, STATUS_LIMIT, "command: word %zu is over the limit of %d bytes",
                               i + 1, RUNNER_ARG_BYTES_MAX - 1);
        }
    }
    return status_ok();
}

static struct status check_handler(const struct runner_recipe *r, struct errmsg *msg)
{
    if (r->command_count > 0) {
        return status_fail(msg, STATUS_INVALID, "command: not with runtime %s", r->runtime);
    }
    if (text_empty(r->handler)) {
        return status_fail(msg, STATUS_INVALID, "handler: missing");
    }
    /* What stands before it in the path of a C program needs room too. */
    if (strlen(r->handler) + sizeof RUNNER_APP_FOLDER "/" > RUNNER_ARG_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "handler: over the limit of %d bytes",
                           RUNNER_ARG_BYTES_MAX - (int)sizeof RUNNER_APP_FOLDER "/");
    }
    return strcmp(r->runtime, "c") == 0 ? check_c(r->handler, msg) : check_python(r->handler, msg);
}

static struct status fill_c(const char *handler, struct runner_args *args, struct errmsg *msg)
{
    while (handler[0] == '.' && handler[1] == '/') {
        handler += 2;
    }
    char path[RUNNER_ARG_BYTES_MAX];
    int size = snprintf(path, sizeof path, RUNNER_APP_FOLDER "/%s", handler);
    CHECK(size > 0);
    CHECK((size_t)size < sizeof path);
    return args_add(args, path, msg);
}

static struct status fill(const struct runner_recipe *r, struct runner_args *args,
                          struct errmsg *msg)
{
    if (strcmp(r->runtime, "c") == 0) {
        return fill_c(r->handler, args, msg);
    }
    if (strcmp(r->runtime, "python") == 0) {
        for (size_t i = 0; i < PYTHON_HEAD_COUNT; i++) {
            TRY(args_add(args, python_head[i], msg));
        }
        return args_add(args, r->handler, msg);
    }
    for (size_t i = 0; i < COMMAND_HEAD_COUNT; i++) {
        TRY(args_add(args, command_head[i], msg));
    }
    for (size_t i = 0; i < r->command_count; i++) {
        TRY(args_add(args, r->command[i], msg));
    }
    return status_ok();
}

struct status runner_args_make(const struct runner_recipe *recipe, struct runner_args *out,
                               struct errmsg *msg)
{
    const char *runtime = recipe->runtime == NULL ? "" : recipe->runtime;
    if (strcmp(runtime, "command") == 0) {
        TRY(check_command(recipe, msg));
    } else if (strcmp(runtime, "c") == 0 || strcmp(runtime, "python") == 0) {
        TRY(check_handler(recipe, msg));
    } else {
        return status_fail(msg, STATUS_INVALID, "runtime: not python, c or command: \"%.32s\"",
                           runtime);
    }
    struct runner_args args = {.items = mem_zalloc(RUNNER_ARGS_MAX + 1, sizeof *args.items)};
    if (args.items == NULL) {
        return status_fail(msg, STATUS_NOMEM, "no memory for arguments");
    }
    struct status s = fill(recipe, &args, msg);
    if (!status_is_ok(s)) {
        runner_args_close(&args);
        return s;
    }
    *out = args;
    return status_ok();
}
