/* The system calls of a cell, each with its class. The filter (filter_table.c), the sentry and the
 * table in docs/syscalls.md are made from these rows.
 *
 * Thread: any; constant. */
#ifndef AGENT_CELL_SYSCALL_TABLE_H
#define AGENT_CELL_SYSCALL_TABLE_H

#include <stddef.h>

enum syscall_class {
    SYSCALL_NATIVE,   /* runs in the kernel as it is */
    SYSCALL_CHECKED,  /* native when its register arguments are on a list, else refused */
    SYSCALL_MEDIATED, /* done by the sentry on the cell's behalf */
    SYSCALL_REFUSED,  /* answered with an error; the first time is told in the cell's log */
    SYSCALL_QUIET,    /* answered without being done and without a word: 0 or an error */
    SYSCALL_CLASSES_COUNT_,
};

struct syscall_row {
    const char *name;
    int number;
    enum syscall_class class;
    int error; /* an errno: REFUSED, CHECKED, QUIET; what is in no row is refused with ENOSYS */
};

const struct syscall_row *syscall_rows(size_t *count);
/* NULL for a call that has no row. */
const struct syscall_row *syscall_find(int number);
/* "native" */
const char *syscall_class_name(enum syscall_class class);

#endif
