/* Process 1 of a gVisor sandbox: makes the runner's descriptors out of the three that runsc hands
 * in, and becomes the runner.
 *
 *     in:  0 the runner's channel, 1 the log, 2 the supervisor's ear (sandbox.h)
 *     out: 0 /dev/null, 1 and 2 the log, 3 the channel
 *
 * On 2 it says LAUNCHER_READY before it becomes the runner, and after that only why it could not.
 * Without arguments it has shown that the sandbox works, and exits 0.
 *
 * A static program of its own, since an image need not have our libc. */
#include "agent/gvisor/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { CHANNEL_FD = 3, EAR_FD = 4, EXIT_NOT_RUN = 127 };

extern char **environ;

static int not_run(const char *what)
{
    char text[256];
    int size = snprintf(text, sizeof text, "%c%.160s: %s", LAUNCHER_FAILED, what, strerror(errno));
    (void)!write(EAR_FD, text, (size_t)size);
    return EXIT_NOT_RUN;
}

int main(int argc, char **argv)
{
    /* The highest first, so that no step overwrites what a later one needs. */
    if (dup3(STDERR_FILENO, EAR_FD, O_CLOEXEC) < 0 || dup2(STDIN_FILENO, CHANNEL_FD) < 0 ||
        dup2(STDOUT_FILENO, STDERR_FILENO) < 0) {
        return not_run("descriptors");
    }
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0) {
        return not_run("/dev/null");
    }
    if (argc > 1 && access(argv[1], X_OK) != 0) {
        return not_run(argv[1]);
    }
    const char ready = LAUNCHER_READY;
    if (write(EAR_FD, &ready, 1) != 1) {
        return EXIT_NOT_RUN;
    }
    if (argc == 1) {
        return 0;
    }
    (void)execve(argv[1], argv + 1, environ);
    return not_run(argv[1]);
}
