/* Runs one program in a cell and prints what it said: the base of the compatibility suite, the
 * system call fuzzer and people who want to see what a cell does.
 *
 *     cell_exec [OPTIONS] PROGRAM [ARGUMENT...]
 *
 *     -c PROGRAM         skep-cell, default the one beside this build
 *     -m SOURCE:TARGET   binds SOURCE read-only at TARGET; again for more
 *     -e KEY=VALUE       an environment variable; again for more
 *     -r FOLDER          the root, default the machine's /usr
 *     -w FOLDER          the working directory inside
 *     -M MIB  -T MIB  -P COUNT  -F COUNT   memory, /tmp, processes, descriptors
 *     -C MILLIS          the CPU limit
 *     -s SECONDS         killed when it takes longer, default 60
 *     -q                 no control group (also when not root)
 *
 * Exit code: what the program's was, 128 + the signal that ended it, 124 when it took too long,
 * 125 when the cell could not be built or ended by a limit (standard error says why). */
#include "tests/lib/cell_once.h"

#include "common/cleanup.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_LATE = 124, EXIT_CELL = 125, SECONDS_DEFAULT = 60, MIB = 1 << 20 };

struct options {
    const char *program;
    char *env[CELL_ENV_MAX];
    size_t env_count;
    unsigned long seconds;
    bool no_group;
};

static void usage(void)
{
    (void)fprintf(stderr, "usage: cell_exec [-c SKEP-CELL] [-m SOURCE:TARGET]... [-e KEY=VALUE]... "
                          "[-r ROOT] [-w FOLDER] [-M MIB] [-T MIB] [-P COUNT] [-F COUNT] "
                          "[-C MILLIS] [-s SECONDS] [-q] PROGRAM [ARGUMENT...]\n");
    exit(EXIT_CELL);
}

static unsigned long number(const char *text, unsigned long max)
{
    char *end = NULL;
    unsigned long value = strtoul(text, &end, 10);
    if (end == text || *end != '\0' || value == 0 || value > max) {
        usage();
    }
    return value;
}

static void add_mount(struct cell_once *c, const char *text)
{
    char source[CELL_STRING_BYTES_MAX];
    const char *colon = strchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof source) {
        usage();
        return;
    }
    (void)snprintf(source, sizeof source, "%.*s", (int)(colon - text), text);
    cell_once_mount(c, source, colon + 1);
}

static void limit_set(struct cell_once *c, int letter, const char *text)
{
    switch (letter) {
    case 'M':
        c->spec.memory_bytes = (uint64_t)number(text, 1 << 20) * MIB;
        break;
    case 'T':
        c->spec.tmp_bytes = (uint64_t)number(text, 1 << 20) * MIB;
        break;
    case 'P':
        c->spec.pids_max = (uint32_t)number(text, 1 << 20);
        break;
    case 'F':
        c->spec.files_max = (uint32_t)number(text, 1 << 20);
        break;
    default:
        c->spec.cpu_millis = (uint32_t)number(text, 1 << 20);
        break;
    }
}

static void options_read(int argc, char **argv, struct cell_once *c, struct options *o)
{
    int letter = 0;
    while ((letter = getopt(argc, argv, "+c:m:e:r:w:M:T:P:F:C:s:q")) != -1) {
        switch (letter) {
        case 'c':
            o->program = optarg;
            break;
        case 'm':
            add_mount(c, optarg);
            break;
        case 'e':
            if (o->env_count == CELL_ENV_MAX) {
                usage();
            }
            o->env[o->env_count++] = optarg;
            break;
        case 'r':
            (void)snprintf(c->spec.root, sizeof c->spec.root, "%s", optarg);
            break;
        case 'w':
            (void)snprintf(c->spec.workdir, sizeof c->spec.workdir, "%s", optarg);
            break;
        case 's':
            o->seconds = number(optarg, 86400);
            break;
        case 'q':
            o->no_group = true;
            break;
        case '?':
            usage();
            break;
        default:
            limit_set(c, letter, optarg);
            break;
        }
    }
    if (optind == argc || argc - optind > CELL_ARGS_MAX) {
        usage();
    }
}

static int code_of(const struct cell_once *c)
{
    const struct cell_event *e = &c->end_event;
    if (c->ended && e->end == CELL_END_EXIT) {
        return e->detail;
    }
    if (c->ended && e->end == CELL_END_SIGNAL) {
        return 128 + e->detail;
    }
    (void)fprintf(stderr, "cell_exec: %s: %s\n",
                  c->ended ? cell_end_name((enum cell_end)e->end) : "no report",
                  c->ended ? e->message : "skep-cell was killed");
    return EXIT_CELL;
}

int main(int argc, char **argv)
{
    static struct cell_once c;
    static struct options o = {.program = CELL_PROGRAM, .seconds = SECONDS_DEFAULT};
    char group[64];
    (void)snprintf(group, sizeof group, "skep-exec-%d", (int)getpid());
    cell_once_open(&c, group, 0);
    c.spec.log_bytes = CELL_ONCE_LOG_BYTES_MAX;
    options_read(argc, argv, &c, &o);
    if (o.no_group) {
        c.spec.cgroup[0] = '\0';
    }
    c.spec.args = argv + optind;
    c.spec.args_count = (size_t)(argc - optind);
    c.spec.env = o.env;
    c.spec.env_count = o.env_count;
    cell_once_prepare(&c);
    cell_once_start(&c, o.program);
    int code = EXIT_LATE;
    if (cell_once_wait(&c, (int)o.seconds * 1000)) {
        code = code_of(&c);
    } else {
        cell_once_kill(&c);
        (void)cell_once_wait(&c, 60000);
        (void)fprintf(stderr, "cell_exec: killed after %lu s\n", o.seconds);
    }
    cell_once_print_log(&c, STDOUT_FILENO);
    cell_once_close(&c);
    return code;
}
