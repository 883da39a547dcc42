/* What runs the attempts: `escape_guest inside`, `outside`, `solo NAME`, `solo_outside NAME`,
 * `list`, and two helpers that attempts exec: `uid` and `wait`. One line each attempt:
 *
 *     NAME: got out
 *     NAME: refused (REASON)
 *     NAME: stalled
 *     NAME: not shown (REASON)      outside only
 */
#include "tests/security/cell/escape.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Slow machines and sanitized sentries are no stalls; outside only a stall that is wanted is one.
 */
enum { STALL_SECONDS = 60, STALL_SECONDS_OUTSIDE = 10 };
enum { TEXT_BUFFERS = 4, OUT_CODE = 0, LACK_CODE = 250, SETUP_CODE = 251 };

struct bait bait;
char bait_secret[BAIT_SECRET_BYTES] = "secret\n";

static const struct attempt *const lists[] = {attempts_calls, attempts_paths, attempts_reach,
                                              attempts_sentry};

long refused(int error)
{
    errno = error;
    return -1;
}

long passed(long result, int errno1, int errno2)
{
    return result >= 0 || errno == errno1 || errno == errno2 ? 0 : -1;
}

const char *text(const char *format, ...)
{
    static char buffers[TEXT_BUFFERS][512];
    static unsigned next;
    char *out = buffers[next++ % TEXT_BUFFERS];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(out, sizeof buffers[0], format, args);
    va_end(args);
    return out;
}

long try_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd >= 0) {
        (void)close(fd);
        return 0;
    }
    return -1;
}

long in_child(long (*call)(const void *), const void *argument)
{
    pid_t pid = fork();
    if (pid < 0) {
        return -1;
    }
    if (pid == 0) {
        long result = call(argument);
        _exit(result >= 0 ? 0 : errno);
    }
    int status = 0;
    (void)waitpid(pid, &status, 0);
    if (!WIFEXITED(status)) {
        return refused(EINTR);
    }
    return WEXITSTATUS(status) == 0 ? 0 : refused(WEXITSTATUS(status));
}

static bool is_lacking(int error)
{
    static const int errors[] = {ENOSYS,       ENOENT,          ENODEV,          ENXIO, EBUSY,
                                 EAFNOSUPPORT, EPROTONOSUPPORT, ESOCKTNOSUPPORT, EINTR, EOPNOTSUPP,
                                 EIO};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (errors[i] == error) {
            return true;
        }
    }
    return false;
}

/* As the machine's root, but with nothing that an attempt could break; the bait's descriptor 7 is
 * what CVE-2024-21626 leaked. */
static void go_outside(const struct attempt *a)
{
    unsigned flags = (a->flags & KEEP_NET) != 0 ? 0 : CLONE_NEWNET;
    if ((a->flags & KEEP_NS) == 0 && (unshare((int)(flags | CLONE_NEWNS | CLONE_NEWUTS)) != 0 ||
                                      mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)) {
        _exit(SETUP_CODE);
    }
    int fd = open(bait.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || dup2(fd, 7) != 7) {
        _exit(SETUP_CODE);
    }
    if ((a->flags & AS_USER) != 0 &&
        (setgroups(0, NULL) != 0 || setgid(65534) != 0 || setuid(65534) != 0)) {
        _exit(SETUP_CODE);
    }
}

static int run_one(const struct attempt *a, bool outside)
{
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (outside) {
        go_outside(a);
    }
    errno = 0;
    long result = a->run(a);
    int error = errno;
    if (result >= 0) {
        return OUT_CODE;
    }
    bool denied = error == EPERM || error == EACCES;
    if (outside && (((a->flags & MAY_LACK) != 0 && is_lacking(error)) ||
                    ((a->flags & MAY_DENY) != 0 && denied))) {
        return LACK_CODE;
    }
    return error > 0 && error < LACK_CODE ? error : LACK_CODE - 1;
}

/* Kills the attempt's processes and takes all that is left of them: they are our children, this
 * process being their init or subreaper. */
static void sweep(pid_t pid)
{
    (void)kill(-pid, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0) {
    }
}

/* The status of the child, or -1 when it had to be killed; its children go with it. */
static int wait_child(pid_t pid, const sigset_t *child_signal, long seconds)
{
    struct timespec begin;
    int status = -1;
    (void)clock_gettime(CLOCK_MONOTONIC, &begin);
    for (;;) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            sweep(pid);
            return status;
        }
        struct timespec now;
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - begin.tv_sec > seconds) {
            sweep(pid);
            return -1;
        }
        struct timespec wait = {.tv_nsec = 100000000};
        (void)sigtimedwait(child_signal, NULL, &wait);
    }
}

static void say(const struct attempt *a, const char *format, ...)
{
    char line[256];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    printf("%s: %s\n", a->name, line);
    (void)fflush(stdout);
}

static void attempt_make(const struct attempt *a, bool outside)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    if (outside && (a->flags & (HARMFUL | ONLY_HERE)) != 0) {
        say(a, "not shown (%s)", a->why);
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        _exit(run_one(a, outside));
    }
    if (pid < 0) {
        say(a, "could not be tried (%s)", strerror(errno));
        return;
    }
    int status = wait_child(pid, &set, outside ? STALL_SECONDS_OUTSIDE : STALL_SECONDS);
    if (status == -1) {
        say(a, "stalled");
    } else if (WIFSIGNALED(status)) {
        say(a, "refused (signal %d)", WTERMSIG(status));
    } else if (WEXITSTATUS(status) == OUT_CODE) {
        say(a, "got out");
    } else if (outside && WEXITSTATUS(status) == LACK_CODE) {
        say(a, "not shown (not on this machine)");
    } else if (outside && WEXITSTATUS(status) == SETUP_CODE) {
        say(a, "could not be tried (no namespaces)");
    } else {
        say(a, "refused (%s)", strerror(WEXITSTATUS(status)));
    }
}

static int make_all(bool outside, bool solo, const char *name)
{
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (size_t l = 0; l < sizeof lists / sizeof lists[0]; l++) {
        for (const struct attempt *a = lists[l]; a->name != NULL; a++) {
            if (((a->flags & SOLO) != 0) == solo && (name == NULL || strcmp(a->name, name) == 0)) {
                attempt_make(a, outside);
            }
        }
    }
    printf("all tried\n");
    return 0;
}

static int list_all(void)
{
    for (size_t l = 0; l < sizeof lists / sizeof lists[0]; l++) {
        for (const struct attempt *a = lists[l]; a->name != NULL; a++) {
            printf("%s|%s|%s|%s\n", a->name, a->reference,
                   (a->flags & SOLO) != 0   ? "solo"
                   : (a->flags & SAME) != 0 ? "same"
                                            : "-",
                   a->why != NULL ? a->why : "");
        }
    }
    return 0;
}

/* Hands a descriptor of the bait folder to whoever connects (SCM_RIGHTS). */
static void serve(int listener)
{
    for (;;) {
        int peer = accept(listener, NULL, NULL);
        int folder = open(bait.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        char byte = 'x';
        char control[CMSG_SPACE(sizeof(int))] = {0};
        struct iovec data = {.iov_base = &byte, .iov_len = 1};
        struct msghdr message = {.msg_iov = &data,
                                 .msg_iovlen = 1,
                                 .msg_control = control,
                                 .msg_controllen = sizeof control};
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &folder, sizeof folder);
        (void)sendmsg(peer, &message, MSG_NOSIGNAL);
        (void)close(folder);
        (void)close(peer);
    }
}

/* A process that lies open: what attempts reach for. Ends with its parent, and says when it
 * listens. */
static int be_bait(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)prctl(PR_SET_NAME, "escape_bait");
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", bait.folder);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (chdir(bait.folder) != 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(fd, 16) != 0 || write(1, bait_secret, 1) != 1) {
        return 1;
    }
    serve(fd);
    return 0;
}

static long number(const char *name)
{
    const char *value = getenv(name);
    return value != NULL ? strtol(value, NULL, 10) : 0;
}

static const char *word(const char *name)
{
    const char *value = getenv(name);
    return value != NULL ? value : "/nonexistent";
}

int main(int argc, char **argv)
{
    bait = (struct bait){
        .folder = word("BAIT_FOLDER"),
        .app = word("BAIT_APP"),
        .tmp = word("BAIT_TMP"),
        .pid = number("BAIT_PID"),
        .port = number("BAIT_PORT"),
        .key = number("BAIT_KEY"),
    };
    const char *verb = argc > 1 ? argv[1] : "";
    const char *name = argc > 2 ? argv[2] : NULL;
    if (strcmp(verb, "inside") == 0 || strcmp(verb, "outside") == 0) {
        return make_all(verb[0] == 'o', false, name);
    }
    if (strcmp(verb, "solo") == 0 || strcmp(verb, "solo_outside") == 0) {
        return make_all(strchr(verb, '_') != NULL, true, name);
    }
    if (strcmp(verb, "list") == 0) {
        return list_all();
    }
    if (strcmp(verb, "bait") == 0) {
        return be_bait();
    }
    if (strcmp(verb, "uid") == 0) { /* Exec'd by attempts: 0 when it has root's power. */
        return geteuid() == 0 ? 0 : EPERM;
    }
    if (strcmp(verb, "cap") == 0) { /* Exec'd: 0 when it may change owners (cap_chown). */
        return chown(word("BAIT_CHOWN"), 1, 1) == 0 ? 0 : errno;
    }
    if (strcmp(verb, "wait") == 0) {
        (void)!write(1, "w", 1);
        (void)pause();
    }
    return 64;
}
