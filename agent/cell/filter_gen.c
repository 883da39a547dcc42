/* Runs at build time: writes filter_program.c, the cell's seccomp program as a constant.
 *
 *     cell_filter_gen OUTPUT */
#include "agent/cell/filter_table.h"
#include "common/cleanup.h"

#include <linux/filter.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { INSTRUCTIONS_MAX = 4096 }; /* BPF_MAXINSNS */

int main(int argc, char **argv)
{
    static struct sock_filter program[INSTRUCTIONS_MAX];
    if (argc != 2) {
        (void)fprintf(stderr, "usage: cell_filter_gen OUTPUT\n");
        return 2;
    }
    AUTO_CLOSE int fd = memfd_create("filter", MFD_CLOEXEC);
    struct errmsg msg = {""};
    if (fd < 0 || !status_is_ok(filter_export(fd, &msg))) {
        (void)fprintf(stderr, "cell_filter_gen: %s\n", msg.text);
        return 1;
    }
    ssize_t size = pread(fd, program, sizeof program, 0);
    size_t count = size > 0 ? (size_t)size / sizeof program[0] : 0;
    AUTO_FILE FILE *out = fopen(argv[1], "we");
    if (out == NULL || count == 0 || count == INSTRUCTIONS_MAX) {
        (void)fprintf(stderr, "cell_filter_gen: cannot write %zu instructions to %s\n", count,
                      argv[1]);
        return 1;
    }
    (void)fprintf(out,
                  "/* Made by cell_filter_gen from agent/cell/filter_table.c. */\n"
                  "#include \"agent/cell/filter.h\"\n\n"
                  "const unsigned short filter_program_size = %zu;\n"
                  "const struct sock_filter filter_program[] = {\n",
                  count);
    for (size_t i = 0; i < count; i++) {
        (void)fprintf(out, "    {0x%02x, %u, %u, 0x%08x},\n", program[i].code, program[i].jt,
                      program[i].jf, program[i].k);
    }
    (void)fprintf(out, "};\n");
    return ferror(out) != 0 || fflush(out) != 0 ? 1 : 0;
}
