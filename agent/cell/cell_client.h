/* The agent's side of a cell: start it, connect to it, command it, hear its events, and judge
 * whether the skep-cell of a folder still lives. No loop in here: the descriptors are the caller's
 * to poll.
 *
 * Life: (cell_start | cell_client_connect) -> cell_client_next... -> cell_client_close. A lost or
 * replaced connection is an end (CELL_MESSAGE_CLOSED); connect again for as long as the process
 * lives.
 *
 * Thread: the owner's. */
#ifndef AGENT_CELL_CELL_CLIENT_H
#define AGENT_CELL_CELL_CLIENT_H

#include "agent/cell/cell.h"

#include <sys/types.h>

/* A connection to one skep-cell. */
struct cell_client {
    int fd; /* non-blocking; poll it for reading, then call cell_client_next until NONE */
    bool open;
};

enum cell_message_kind {
    CELL_MESSAGE_NONE,   /* no packet is waiting */
    CELL_MESSAGE_HELLO,  /* channel_fd is the runner channel: CLOEXEC, the caller owns it */
    CELL_MESSAGE_EVENT,  /* event is set */
    CELL_MESSAGE_CLOSED, /* skep-cell ended or serves another agent now */
};

struct cell_message {
    enum cell_message_kind kind;
    int channel_fd;
    struct cell_event event;
};

/* A process started by cell_start. */
struct cell_process {
    pid_t pid;
    int pidfd; /* readable when skep-cell has ended; then waitid(P_PIDFD, pidfd, ...) reaps it */
};

/* Starts `program FOLDER 3` in a session of its own, with standard input and output on /dev/null
 * and standard error on log_fd, and fills *client with a connection that exists from the start:
 * HELLO, STARTED and EXITED arrive there without waiting for cell.sock. The child is the caller's
 * to reap (waitid on the pidfd; it is not libuv's). NOT_FOUND, NOMEM, LIMIT, IO. */
NODISCARD struct status cell_start(const char *program, const char *folder, int log_fd,
                                   struct cell_process *process, struct cell_client *client,
                                   struct errmsg *msg);

/* Connects to FOLDER/cell.sock, also where the path is longer than sun_path. NOT_FOUND when there
 * is no such socket, UNAVAILABLE when nobody listens. HELLO follows by cell_client_next. */
NODISCARD struct status cell_client_connect(const char *folder, struct cell_client *client,
                                            struct errmsg *msg);

/* The next message, without blocking. CORRUPT for a packet that is none of ours: close then. */
NODISCARD struct status cell_client_next(struct cell_client *client, struct cell_message *out,
                                         struct errmsg *msg);

/* Sends CELL_STOP or CELL_KILL. UNAVAILABLE when the connection has ended. */
NODISCARD struct status cell_client_send(struct cell_client *client, enum cell_packet packet,
                                         struct errmsg *msg);

/* Safe on zeroed memory and twice. The cell goes on. */
void cell_client_close(struct cell_client *client);

/* What cell.pid holds. */
struct cell_pid {
    pid_t pid;
    uint64_t start_time; /* clock ticks after boot: field 22 of /proc/PID/stat */
};

/* Reads FOLDER/cell.pid. NOT_FOUND, IO, INVALID. */
NODISCARD struct status cell_pid_read(const char *folder, struct cell_pid *out, struct errmsg *msg);
/* True while that very process (not a later one with the same number) lives; a zombie does not. */
bool cell_pid_is_alive(const struct cell_pid *pid);
/* A pidfd for that very process. NOT_FOUND when it has ended. */
NODISCARD struct status cell_pid_open(const struct cell_pid *pid, int *pidfd, struct errmsg *msg);
/* "PID STARTTIME": decodes the text of cell.pid. INVALID. */
NODISCARD struct status cell_pid_decode(struct bytes text, struct cell_pid *out,
                                        struct errmsg *msg);

/* Reads FOLDER/exit.json. NOT_FOUND while the cell runs or when it was killed from outside. */
NODISCARD struct status cell_exit_read(const char *folder, struct cell_event *out,
                                       struct errmsg *msg);

#endif
