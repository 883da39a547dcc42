/* What the sentry reads of a process of its cell, and writes into it: memory, descriptors, the
 * working directory, the umask.
 *
 * The process may be hostile and change while it is looked at: everything is copied once and judged
 * only in the copy. Numbers of processes are those that the sentry sees (of the machine); the
 * cell's own numbers appear only where a path is translated (where.h).
 *
 * Thread: the sentry's only one. Functions answer 0 or a positive count, or a negative errno that
 * may be handed to the process as it is. */
#ifndef AGENT_CELL_SENTRY_GUEST_H
#define AGENT_CELL_SENTRY_GUEST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { GUEST_PATH_BYTES = 4096, GUEST_MAGIC_BYTES = 64 };

struct guest {
    int proc_fd; /* the machine's /proc */
    pid_t tid;   /* the thread that made the call */
};

/* Copies size bytes; -EFAULT unless all are there. */
int guest_read(const struct guest *g, uint64_t address, void *out, size_t size);
int guest_write(const struct guest *g, uint64_t address, const void *data, size_t size);
/* Copies a path with its NUL into out[GUEST_PATH_BYTES]: its length; -EFAULT, -ENAMETOOLONG. */
int guest_read_path(const struct guest *g, uint64_t address, char *out);

/* Opens /proc/TID/NAME (cwd, exe, fd/7) of the machine's /proc, following it: a descriptor. */
int guest_open_own(const struct guest *g, const char *name, int flags);
/* "TID/NAME": the path of it below proc_fd. */
void guest_own_path(const struct guest *g, const char *name, char out[GUEST_MAGIC_BYTES]);
/* A duplicate of the descriptor fd of the process. */
int guest_take_fd(const struct guest *g, int fd);

struct guest_facts {
    unsigned umask;
    pid_t process;                     /* of the machine: the thread's process */
    pid_t inner_process, inner_thread; /* as the cell numbers them */
};
/* From /proc/TID/status. -ESRCH when it has ended. */
int guest_facts_read(const struct guest *g, struct guest_facts *out);
/* The same from the file's text; -EINVAL when a line is missing. */
int guest_facts_parse(const char *text, struct guest_facts *out);

#endif
