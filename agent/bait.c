#include "agent/bait.h"

#include "common/hash.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { SHM_BYTES = 4096, PORT_MIN = 20000, PORT_COUNT = 10000 };

static void path_of(const char *data, char out[BAIT_TEXT_BYTES])
{
    uint64_t h = hash_fnv1a(HASH_FNV1A, data, strlen(data));
    (void)snprintf(out, BAIT_TEXT_BYTES, "/tmp/skep-bait-%016llx", (unsigned long long)h);
}

static bool random_hex(char out[BAIT_NONCE_BYTES + 1])
{
    uint8_t bytes[BAIT_NONCE_BYTES / 2];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) {
        return false;
    }
    for (size_t i = 0; i < sizeof bytes; i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    }
    return true;
}

/* For everybody to read, whatever the umask; an older one is replaced, a link is never followed. */
static void file_lay(struct bait *b, const char *data)
{
    char path[BAIT_TEXT_BYTES];
    path_of(data, path);
    (void)unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        return;
    }
    bool written =
        write(fd, b->nonce, BAIT_NONCE_BYTES) == BAIT_NONCE_BYTES && fchmod(fd, 0644) == 0;
    (void)close(fd);
    if (written) {
        (void)snprintf(b->file, sizeof b->file, "%s", path);
    } else {
        (void)unlink(path);
    }
}

static void socket_lay(struct bait *b, const char *name)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return;
    }
    (void)snprintf(b->socket, sizeof b->socket, "skep-bait-%s", name);
    memcpy(at.sun_path + 1, b->socket, strlen(b->socket));
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(b->socket));
    if (bind(fd, (const struct sockaddr *)&at, size) != 0 || listen(fd, 4) != 0) {
        b->socket[0] = '\0';
        (void)close(fd);
        return;
    }
    b->socket_fd = fd;
}

static void port_lay(struct bait *b)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return;
    }
    if (bind(fd, (const struct sockaddr *)&at, size) != 0 || listen(fd, 4) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &size) != 0) {
        (void)close(fd);
        return;
    }
    b->port_fd = fd;
    b->port = ntohs(at.sin_port);
}

/* Marked as removed at once: Linux lets it be attached for as long as somebody is, and nothing
 * stays when that one is killed. */
static void shm_lay(struct bait *b)
{
    int id = shmget(IPC_PRIVATE, SHM_BYTES, IPC_CREAT | 0666);
    if (id < 0) {
        return;
    }
    void *at = shmat(id, NULL, 0);
    (void)shmctl(id, IPC_RMID, NULL);
    if ((intptr_t)at == -1) {
        return;
    }
    memcpy(at, b->nonce, BAIT_NONCE_BYTES + 1);
    b->shm = id;
    b->shm_at = at;
}

/* In the user's keyring, for everybody to read. */
static void key_lay(struct bait *b, const char *name)
{
    char description[BAIT_TEXT_BYTES];
    (void)snprintf(description, sizeof description, "skep-bait-%s", name);
    long key = syscall(SYS_add_key, "user", description, b->nonce, (size_t)BAIT_NONCE_BYTES,
                       KEY_SPEC_USER_KEYRING);
    if (key <= 0) {
        return;
    }
    (void)syscall(SYS_keyctl, KEYCTL_SET_TIMEOUT, key, BAIT_KEY_SECONDS);
    (void)syscall(SYS_keyctl, KEYCTL_SETPERM, key, 0x3f1f1f1fUL);
    b->key = (int32_t)key;
}

struct status bait_lay(struct bait *b, const char *data, struct errmsg *msg)
{
    char name[BAIT_NONCE_BYTES + 1], other[BAIT_NONCE_BYTES + 1];
    uint16_t number;
    *b = (struct bait){.socket_fd = -1, .port_fd = -1, .shm = -1};
    if (!random_hex(b->nonce) || !random_hex(b->other_nonce) || !random_hex(name) ||
        !random_hex(other) || getrandom(&number, sizeof number, 0) != sizeof number) {
        return status_fail(msg, STATUS_IO, "no random numbers: %s", strerror(errno));
    }
    (void)snprintf(b->other_name, sizeof b->other_name, "skep-bait-%s", other);
    b->other_port = PORT_MIN + number % PORT_COUNT;
    file_lay(b, data);
    socket_lay(b, name);
    port_lay(b);
    shm_lay(b);
    key_lay(b, name);
    return status_ok();
}

void bait_take(struct bait *b)
{
    if (b->file[0] != '\0') {
        (void)unlink(b->file);
    }
    if (b->socket_fd >= 0) {
        (void)close(b->socket_fd);
    }
    if (b->port_fd >= 0) {
        (void)close(b->port_fd);
    }
    if (b->shm_at != NULL) {
        (void)shmdt(b->shm_at);
    }
    if (b->key != 0) {
        (void)syscall(SYS_keyctl, KEYCTL_UNLINK, b->key, KEY_SPEC_USER_KEYRING);
    }
    *b = (struct bait){.socket_fd = -1, .port_fd = -1, .shm = -1};
}

void bait_sweep(const char *data)
{
    char path[BAIT_TEXT_BYTES];
    path_of(data, path);
    (void)unlink(path);
}

struct status bait_targets(const struct bait *b, int other_pid, struct buffer *out)
{
    TRY(buffer_printf(out, "file=%s\nsocket=%s\nport=%u\nagent_pid=%d\nagent_memory=%llu\n",
                      b->file, b->socket, b->port, (int)getpid(),
                      (unsigned long long)(uintptr_t)b->nonce));
    TRY(buffer_printf(out, "shm=%d\nkey=%d\nother_pid=%d\n", b->shm, b->key, other_pid));
    return buffer_printf(out, "other_file=%s\nother_socket=%s\nother_port=%u\n", b->other_name,
                         b->other_name, b->other_port);
}

void bait_of_other(const struct bait *b, char out[4 * BAIT_TEXT_BYTES])
{
    (void)snprintf(out, (size_t)4 * BAIT_TEXT_BYTES, "%s %s %u %s", b->other_name, b->other_name,
                   b->other_port, b->other_nonce);
}
