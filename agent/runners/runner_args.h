/* The argument vector of process 1 of a cell, from what the manifest says. Pure.
 *
 *     python    /usr/bin/python3 -I -B /opt/skep/skep_runner.py /app HANDLER
 *     c         /app/HANDLER
 *     command   /opt/skep/skep-command-runner -- COMMAND...
 *
 * The code is at RUNNER_APP_FOLDER (also the working folder), the runners are at
 * RUNNER_FILES_FOLDER, both read-only. Python runs isolated (-I: no PYTHON* variables, no user
 * site, no implicit folder in sys.path; the runner itself adds /app, then what PYTHONPATH names)
 * and writes no byte code. A command's first word with a slash in it is relative to /app; without
 * one it is looked for in PATH.
 *
 * Thread: any; no shared state. */
#ifndef AGENT_RUNNERS_RUNNER_ARGS_H
#define AGENT_RUNNERS_RUNNER_ARGS_H

#include "common/status.h"

#define RUNNER_APP_FOLDER "/app"
#define RUNNER_FILES_FOLDER "/opt/skep"
#define RUNNER_PYTHON "/usr/bin/python3"

/* As the cell's limits (agent/cell/cell.h): words, and bytes of one with its NUL. */
enum { RUNNER_ARGS_MAX = 64, RUNNER_ARG_BYTES_MAX = 4096 };

struct runner_args {
    char **items; /* a NULL follows the last */
    size_t count;
};

/* What a manifest says about how to start its code. */
struct runner_recipe {
    const char *runtime; /* "python", "c" or "command" */
    const char *
        handler; /* python: FILE.py:FUNCTION; c: a path below the code; NULL or empty for command */
    const char *const *command; /* command: its words; NULL for the others */
    size_t command_count;
};

/* INVALID, naming the key, for an unknown runtime, a missing or superfluous handler or command, a
 * handler that is not FILE.py:FUNCTION (python), or a path that is absolute or leaves the code by
 * "..". LIMIT for too many or too long words. NOMEM. *out is written only on success;
 * runner_args_close frees it. */
NODISCARD struct status runner_args_make(const struct runner_recipe *recipe,
                                         struct runner_args *out, struct errmsg *msg);
/* Safe on zeroed memory and twice. */
void runner_args_close(struct runner_args *args);

#endif
