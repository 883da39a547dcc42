/* Prints docs/syscalls.md from the table of system calls. A test compares it with the file:
 *
 *     build/release/bin/syscall_list > docs/syscalls.md */
#include "agent/cell/syscall_table.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { LINE_BYTES_MAX = 120 };

static void print_class(enum syscall_class class, const char *what)
{
    size_t count = 0;
    const struct syscall_row *rows = syscall_rows(&count);
    printf("\n## %s\n\n%s\n\n", syscall_class_name(class), what);
    size_t column = 0;
    for (size_t i = 0; i < count; i++) {
        if (rows[i].class != class) {
            continue;
        }
        char text[64] = "";
        if (class != SYSCALL_NATIVE && class != SYSCALL_MEDIATED) {
            (void)snprintf(text, sizeof text, " (%s)",
                           rows[i].error == 0 ? "0" : strerrorname_np(rows[i].error));
        }
        size_t width = strlen(rows[i].name) + strlen(text) + 4;
        bool fits = column + width <= LINE_BYTES_MAX;
        printf("%s`%s`%s", column == 0 ? "" : fits ? "  " : "\n", rows[i].name, text);
        column = fits ? column + width : width;
    }
    printf("\n");
}

int main(void)
{
    printf(
        "# System calls of a cell\n\nMade from `agent/cell/syscall_table.c` by `syscall_list`; a "
        "test compares them. [security](security.md) says what the classes are for.\n");
    print_class(SYSCALL_NATIVE,
                "Done by the kernel as they are: on descriptors that the cell holds, "
                "memory, time, signals and processes inside the cell.");
    print_class(SYSCALL_CHECKED,
                "Done by the kernel when the arguments in registers are on a list "
                "(`agent/cell/filter_table.c`), refused with the error in parentheses otherwise.");
    print_class(
        SYSCALL_MEDIATED,
        "Done by the sentry on the cell's behalf, on copies of the arguments, as the cell's "
        "user, below the cell's root. Native are `newfstatat` and `statx` of a descriptor "
        "(AT_EMPTY_PATH alone), `utimensat` of a descriptor (no path) and `sendto` without an "
        "address; and `open` and `openat` with O_PATH, which only name a place.");
    print_class(SYSCALL_REFUSED,
                "Refused by the sentry with the error in parentheses. The first time "
                "in a cell is told in its log. What is in no list is refused with "
                "ENOSYS in the same way.");
    print_class(SYSCALL_QUIET, "Answered by the filter without being done, and without a word.");
    return 0;
}
