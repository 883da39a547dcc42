/* What tests run inside a cell: a static program, one action per run, named by its first argument.
 * */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* The tests write the numbers; a wrong one is 0. */
static long number(const char *text)
{
    return text != NULL ? strtol(text, NULL, 10) : 0;
}

static int do_hello(const char *argument)
{
    (void)argument;
    (void)!write(1, "hello\n", 6);
    return 0;
}

static int do_exit(const char *argument)
{
    return (int)number(argument);
}

static int do_segv(const char *argument)
{
    (void)argument;
    *(volatile int *)(uintptr_t)8 = 1;
    return 0;
}

static int do_spin(const char *argument)
{
    (void)argument;
    printf("spinning\n");
    fflush(stdout);
    for (volatile unsigned long i = 0;; i++) {
    }
    return 0;
}

static int do_hog(const char *argument)
{
    (void)argument;
    for (;;) {
        char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            printf("refused\n");
            return 3;
        }
        memset(p, 1, 1 << 20);
    }
}

/* The memory limit hits a child; process 1 only waits. */
static int do_hog_child(const char *argument)
{
    if (fork() == 0) {
        return do_hog(argument);
    }
    for (;;) {
        pause();
    }
    return 0;
}

/* Children fork too, as a bomb does. */
static int do_bomb(const char *argument)
{
    (void)argument;
    int refused = 0;
    for (int i = 0; i < 200; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            for (;;) {
                if (fork() < 0) {
                    pause();
                }
            }
        }
        refused += pid < 0 ? 1 : 0;
    }
    printf("refused %d\n", refused);
    return 0;
}

static int do_fill(const char *argument)
{
    char block[4096] = {1};
    size_t total = 0;
    int error = 0;
    for (int file = 0; error == 0; file++) {
        char path[64];
        snprintf(path, sizeof path, "%s/f%d", argument, file);
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        if (fd < 0) {
            error = errno;
            break;
        }
        for (int i = 0; i < 256 && error == 0; i++) {
            ssize_t n = write(fd, block, sizeof block);
            error = n < 0 ? errno : 0;
            total += n > 0 ? (size_t)n : 0;
        }
        close(fd);
    }
    printf("filled %zu: %s\n", total, strerror(error));
    return 0;
}

static int do_inodes(const char *argument)
{
    long made = 0;
    for (;; made++) {
        char path[64];
        snprintf(path, sizeof path, "%s/i%ld", argument, made);
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        if (fd < 0) {
            break;
        }
        close(fd);
    }
    printf("made %ld: %s\n", made, strerror(errno));
    return made < 100000 ? 0 : 1;
}

/* A file larger than the limit, which SIGXFSZ ends. */
static int do_big_file(const char *argument)
{
    (void)argument;
    int fd = open("/tmp/big", O_CREAT | O_WRONLY, 0600);
    return ftruncate(fd, 1LL << 40) == 0 ? 0 : 1;
}

static int do_print(const char *argument)
{
    static char block[65536];
    memset(block, 'x', sizeof block);
    for (size_t k = 63; k < sizeof block; k += 64) {
        block[k] = '\n';
    }
    long left = number(argument);
    while (left > 0) {
        ssize_t n = write(1, block, left < (long)sizeof block ? (size_t)left : sizeof block);
        if (n <= 0) {
            return 1;
        }
        left -= n;
    }
    (void)!write(1, "the end\n", 8);
    return 0;
}

static int do_fds(const char *argument)
{
    (void)argument;
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL) {
        return 1;
    }
    int own = dirfd(dir);
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.' && number(entry->d_name) != own) {
            char link[300];
            char target[256] = "";
            snprintf(link, sizeof link, "/proc/self/fd/%s", entry->d_name);
            (void)!readlink(link, target, sizeof target - 1);
            printf("fd %s %.6s\n", entry->d_name, target);
        }
    }
    return 0;
}

static int do_environment(const char *argument)
{
    (void)argument;
    for (char **e = environ; *e != NULL; e++) {
        printf("env %s\n", *e);
    }
    char name[128];
    char folder[256];
    gethostname(name, sizeof name);
    printf("host %s\nfolder %s\npid %d\nuid %d\ngid %d\ngroups %d\n", name,
           getcwd(folder, sizeof folder), getpid(), getuid(), getgid(), getgroups(0, NULL));
    sigset_t mask;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    printf("term %s pipe %s\n", sigismember(&mask, SIGTERM) ? "blocked" : "open",
           signal(SIGPIPE, SIG_DFL) == SIG_DFL ? "default" : "ignored");
    return 0;
}

static int do_connect(const char *argument)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number(argument))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int error = connect(fd, (struct sockaddr *)&to, sizeof to) == 0 ? 0 : errno;
    printf("host: %s\n", strerror(error));
    /* Its own loopback works. */
    struct sockaddr_in own = {.sin_family = AF_INET};
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof own;
    int server = socket(AF_INET, SOCK_STREAM, 0);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(server, (struct sockaddr *)&own, sizeof own) != 0 || listen(server, 1) != 0 ||
        getsockname(server, (struct sockaddr *)&own, &size) != 0) {
        printf("own: %s\n", strerror(errno));
        return 1;
    }
    error = connect(client, (struct sockaddr *)&own, size) == 0 ? 0 : errno;
    printf("own: %s\n", strerror(error));
    return 0;
}

/* What only the owner of a network namespace may do. */
static int do_netpower(const char *argument)
{
    (void)argument;
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    printf("raw %s\n", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) < 0 ? "no" : "yes");
    printf("packet %s\n", socket(AF_PACKET, SOCK_RAW, 0) < 0 ? "no" : "yes");
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(0x0a000001);
    memcpy(&request.ifr_addr, &address, sizeof address);
    printf("address %s\n", ioctl(fd, SIOCSIFADDR, &request) < 0 ? "no" : "yes");
    request.ifr_flags = 0;
    printf("down %s\n", ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? "no" : "yes");
    return 0;
}

static int do_stubborn(const char *argument)
{
    (void)argument;
    signal(SIGTERM, SIG_IGN);
    printf("deaf\n");
    fflush(stdout);
    for (;;) {
        pause();
    }
    return 0;
}

static void on_term(int number)
{
    (void)number;
    _exit(7);
}

static int do_polite(const char *argument)
{
    (void)argument;
    signal(SIGTERM, on_term);
    printf("listening\n");
    fflush(stdout);
    for (;;) {
        pause();
    }
    return 0;
}

/* Answers every packet of the runner channel with itself until the channel ends. */
static int do_echo(const char *argument)
{
    (void)argument;
    char packet[1024];
    for (;;) {
        ssize_t n = recv(3, packet, sizeof packet, 0);
        if (n <= 0) {
            return 9;
        }
        if (send(3, packet, (size_t)n, 0) != n) {
            return 8;
        }
    }
}

/* Grandchildren that outlive process 1's will. */
static int do_orphans(const char *argument)
{
    (void)argument;
    for (int i = 0; i < 3; i++) {
        if (fork() == 0) {
            setsid();
            signal(SIGTERM, SIG_IGN);
            for (;;) {
                pause();
            }
        }
    }
    return 0;
}

static int do_close_output(const char *argument)
{
    (void)argument;
    close(1);
    close(2);
    send(3, "x", 1, 0);
    for (;;) {
        pause();
    }
    return 0;
}

/* What the mounts of a cell allow and Landlock does not. */
static int do_write_proc(const char *argument)
{
    (void)argument;
    int fd = open("/proc/self/comm", O_WRONLY);
    printf("comm: %s\n", fd >= 0 && write(fd, "x", 1) == 1 ? "written" : strerror(errno));
    fd = open("/tmp/a", O_WRONLY | O_CREAT, 0600);
    printf("tmp: %s\n", fd >= 0 && write(fd, "x", 1) == 1 ? "written" : strerror(errno));
    mkdir("/tmp/b", 0700);
    printf("rename: %s\n", rename("/tmp/a", "/tmp/b/a") == 0 ? "done" : strerror(errno));
    fd = open("/dev/null", O_WRONLY | O_TRUNC);
    printf("null: %s\n", fd >= 0 && write(fd, "x", 1) == 1 ? "written" : strerror(errno));
    return 0;
}

/* Every name at the top of /proc that is no process, and what is in /. */
static int do_list_proc(const char *argument)
{
    (void)argument;
    DIR *dir = opendir("/proc");
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (e->d_name[0] != '.' && strspn(e->d_name, "0123456789") != strlen(e->d_name)) {
            printf("proc %s\n", e->d_name);
        }
    }
    printf("sys: %s\n", access("/sys", F_OK) == 0 ? "there" : strerror(errno));
    return 0;
}

static const struct {
    const char *name;
    int (*run)(const char *argument);
} actions[] = {
    {"hello", do_hello},
    {"exit", do_exit},
    {"segv", do_segv},
    {"spin", do_spin},
    {"hog", do_hog},
    {"hog_child", do_hog_child},
    {"bomb", do_bomb},
    {"fill", do_fill},
    {"inodes", do_inodes},
    {"big_file", do_big_file},
    {"print", do_print},
    {"fds", do_fds},
    {"environment", do_environment},
    {"connect", do_connect},
    {"netpower", do_netpower},
    {"stubborn", do_stubborn},
    {"polite", do_polite},
    {"echo", do_echo},
    {"orphans", do_orphans},
    {"close_output", do_close_output},
    {"write_proc", do_write_proc},
    {"list_proc", do_list_proc},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof actions / sizeof actions[0]; i++) {
        if (strcmp(argv[1], actions[i].name) == 0) {
            return actions[i].run(argc > 2 ? argv[2] : NULL);
        }
    }
    return 64;
}
