#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/security/cell/bait.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/capability.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static void write_file(const char *folder, const char *name, const char *content)
{
    char path[BAIT_PATH_BYTES * 2];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), strlen(content));
    (void)close(fd);
}

static void copy_program(const char *folder, const char *name, const char *source, mode_t mode)
{
    char path[BAIT_PATH_BYTES * 2];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    int in = open(source, O_RDONLY | O_CLOEXEC);
    int out = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
    assert_true(in >= 0 && out >= 0 && fstat(in, &st) == 0);
    assert_int_equal(sendfile(out, in, NULL, (size_t)st.st_size), st.st_size);
    assert_int_equal(fchmod(out, mode), 0);
    (void)close(in);
    (void)close(out);
}

__attribute__((format(printf, 3, 4))) static void link_make(const char *folder, const char *name,
                                                            const char *format, ...)
{
    char path[BAIT_PATH_BYTES * 2];
    char target[BAIT_PATH_BYTES * 2];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(target, sizeof target, format, args);
    va_end(args);
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(symlink(target, path), 0);
}

static void folder_make(const char *folder, const char *name)
{
    char path[BAIT_PATH_BYTES * 2];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(mkdir(path, 0755), 0);
}

/* A program that may change owners, whoever runs it. */
static void capability_give(const char *folder, const char *name)
{
    char path[BAIT_PATH_BYTES * 2];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    struct vfs_cap_data data = {
        .magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE,
        .data = {{.permitted = 1U << CAP_CHOWN}},
    };
    /* A file system without attributes: the row then says that this machine has none. */
    (void)setxattr(path, "security.capability", &data, XATTR_CAPS_SZ_2, 0);
}

static void app_make(struct bait_world *b, const char *guest)
{
    static const char *const files[] = {"unlinked", "changed", "moved"};
    write_file(b->app, "allowed", "allowed\n");
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        write_file(b->app, files[i], "code\n");
    }
    folder_make(b->app, "removed");
    copy_program(b->app, "guest", guest, 0755);
    copy_program(b->app, "uid", guest, 04755);
    copy_program(b->app, "cap", guest, 0755);
    capability_give(b->app, "cap");
    link_make(b->app, "out", "%s/secret", b->folder);
    link_make(b->app, "up", "../../../../../..%s/secret", b->folder);
    link_make(b->app, "proc", "/proc/self/root%s/secret", b->folder);
    link_make(b->app, "folder", "%s", b->folder);
}

static int tcp_listen(long *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static int abstract_listen(long key)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int size = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "skep-escape-%ld", key);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)size + 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(fd, 16), 0);
    return fd;
}

static void ipc_make(struct bait_world *b)
{
    char name[64];
    (void)snprintf(name, sizeof name, "/skep-bait-%ld", b->key);
    b->shm = shmget((key_t)b->key, 4096, IPC_CREAT | 0600);
    b->sem = semget((key_t)b->key, 1, IPC_CREAT | 0600);
    b->msg = msgget((key_t)b->key, IPC_CREAT | 0600);
    assert_true(b->shm >= 0 && b->sem >= 0 && b->msg >= 0);
    mqd_t queue = mq_open(name, O_CREAT | O_RDONLY, 0600, NULL);
    if (queue != (mqd_t)-1) { /* ENOSYS: the row says so. */
        (void)mq_close(queue);
    }
}

/* Number i of the environment, which exists in two forms. */
static void env_set(struct bait_world *b, size_t i, const char *name, const char *inside,
                    const char *outside)
{
    assert_true(asprintf(&b->inside[i], "%s=%s", name, inside) > 0);
    assert_true(asprintf(&b->outside[i], "%s=%s", name, outside) > 0);
}

static void env_set_number(struct bait_world *b, size_t i, const char *name, long value)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%ld", value);
    env_set(b, i, name, text, text);
}

/* Started before its own number is in the environment; it does not need it. */
static void process_start(struct bait_world *b, const char *guest)
{
    int ends[2];
    char byte = 0;
    char *const args[] = {(char *)(uintptr_t)guest, (char *)(uintptr_t) "bait", NULL};
    posix_spawn_file_actions_t actions;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    assert_int_equal(posix_spawn(&b->pid, guest, &actions, NULL, args, b->outside), 0);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(ends[1]);
    b->pipe_fd = ends[0];
    assert_int_equal(read(ends[0], &byte, 1), 1); /* It listens. */
}

void bait_open(struct bait_world *b, const char *guest)
{
    memset(b, 0, sizeof *b);
    char top[] = "/tmp/skep-escape-XXXXXX";
    long port = 0;
    assert_non_null(mkdtemp(top));
    assert_int_equal(chmod(top, 0755), 0);
    (void)snprintf(b->folder, sizeof b->folder, "%s", top);
    (void)snprintf(b->app, sizeof b->app, "%s/app", top);
    (void)snprintf(b->tmp, sizeof b->tmp, "%s/tmp", top);
    folder_make(top, "app");
    folder_make(top, "tmp");
    b->key = getpid();
    write_file(top, "secret", "secret\n");
    write_file(top, "chowned", "x");
    link_make(top, "link", "secret");
    copy_program(top, "program", guest, 0755);
    app_make(b, guest);
    b->tcp_fd = tcp_listen(&port);
    b->abstract_fd = abstract_listen(b->key);
    ipc_make(b);
    env_set(b, 0, "BAIT_FOLDER", b->folder, b->folder);
    env_set(b, 1, "BAIT_APP", "/app", b->app);
    env_set(b, 2, "BAIT_TMP", "/tmp", b->tmp);
    env_set_number(b, 3, "BAIT_PORT", port);
    env_set_number(b, 4, "BAIT_KEY", b->key);
    process_start(b, guest);
    env_set_number(b, 5, "BAIT_PID", b->pid);
}

void bait_check(const struct bait_world *b)
{
    char content[16] = "";
    char path[BAIT_PATH_BYTES + 16];
    assert_int_equal(kill(b->pid, 0), 0);
    (void)snprintf(path, sizeof path, "%s/secret", b->folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, content, sizeof content), 7);
    assert_string_equal(content, "secret\n");
    (void)close(fd);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void bait_close(struct bait_world *b)
{
    char name[64];
    (void)kill(b->pid, SIGKILL);
    (void)waitpid(b->pid, NULL, 0);
    (void)close(b->pipe_fd);
    (void)close(b->tcp_fd);
    (void)close(b->abstract_fd);
    (void)shmctl(b->shm, IPC_RMID, NULL);
    (void)semctl(b->sem, 0, IPC_RMID);
    (void)msgctl(b->msg, IPC_RMID, NULL);
    (void)snprintf(name, sizeof name, "/skep-bait-%ld", b->key);
    (void)mq_unlink(name);
    for (size_t i = 0; i < BAIT_ENV_COUNT; i++) {
        free(b->inside[i]);
        free(b->outside[i]);
    }
    assert_int_equal(nftw(b->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}
