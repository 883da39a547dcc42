/* Loops of system calls; prints `name value ns`, the time of one turn. Static, so that it runs
 * anywhere. `syscall_bench_guest ROUNDS` */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void print(const char *name, double begin, long rounds)
{
    printf("%s %.0f ns\n", name, (now_ns() - begin) / (double)rounds);
    (void)fflush(stdout);
}

static int file_loops(const char *path, long rounds)
{
    char block[64];
    double begin = now_ns();
    for (long i = 0; i < rounds; i++) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, block, sizeof block) < 0 || close(fd) != 0) {
            perror(path);
            return 1;
        }
    }
    print("open_read_close", begin, rounds);
    begin = now_ns();
    for (long i = 0; i < rounds; i++) {
        struct stat st;
        if (stat(path, &st) != 0) {
            perror(path);
            return 1;
        }
    }
    print("stat", begin, rounds);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    begin = now_ns();
    for (long i = 0; i < rounds; i++) {
        (void)!pread(fd, block, sizeof block, 0);
    }
    print("pread", begin, rounds);
    (void)close(fd);
    return 0;
}

static int ping_pong(long rounds)
{
    int there[2];
    int back[2];
    char byte = 'x';
    if (pipe(there) != 0 || pipe(back) != 0) {
        return 1;
    }
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(there[1]);
        while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1) {
        }
        _exit(0);
    }
    (void)close(there[0]);
    double begin = now_ns();
    for (long i = 0; i < rounds; i++) {
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) {
            return 1;
        }
    }
    print("pipe_ping_pong", begin, rounds);
    (void)close(there[1]);
    (void)waitpid(pid, NULL, 0);
    return 0;
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
    if (rounds <= 0) {
        (void)fprintf(stderr, "usage: syscall_bench_guest ROUNDS\n");
        return 2;
    }
    double begin = now_ns();
    for (long i = 0; i < rounds; i++) {
        (void)syscall(SYS_getppid);
    }
    print("getppid", begin, rounds);
    char path[64];
    (void)snprintf(path, sizeof path, "/tmp/skep-bench-file-%d", (int)getpid());
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    (void)!write(fd, path, sizeof path);
    (void)close(fd);
    int result = file_loops(path, rounds) != 0 || ping_pong(rounds) != 0 ? 1 : 0;
    (void)unlink(path);
    return result;
}
