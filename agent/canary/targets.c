/* What the checks reach for, and the bait of another cell. */
#include "agent/canary/canary.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { KIND_TEXT, KIND_UNSIGNED, KIND_INT, KIND_U64, KIND_ADDRESS };

static const struct {
    const char *key;
    int kind;
    size_t offset;
} keys[] = {
    {"file", KIND_TEXT, offsetof(struct canary_targets, file)},
    {"socket", KIND_TEXT, offsetof(struct canary_targets, socket)},
    {"port", KIND_UNSIGNED, offsetof(struct canary_targets, port)},
    {"agent_pid", KIND_INT, offsetof(struct canary_targets, agent_pid)},
    {"agent_memory", KIND_U64, offsetof(struct canary_targets, agent_memory)},
    {"shm", KIND_INT, offsetof(struct canary_targets, shm)},
    {"key", KIND_INT, offsetof(struct canary_targets, key)},
    {"other_pid", KIND_INT, offsetof(struct canary_targets, other_pid)},
    {"other_file", KIND_TEXT, offsetof(struct canary_targets, other_file)},
    {"other_socket", KIND_TEXT, offsetof(struct canary_targets, other_socket)},
    {"other_port", KIND_UNSIGNED, offsetof(struct canary_targets, other_port)},
    {"address", KIND_ADDRESS, 0},
};

static bool value_take(struct canary_targets *t, size_t row, const char *value)
{
    void *to = (char *)t + keys[row].offset;
    char *end = NULL;
    errno = 0;
    if (keys[row].kind == KIND_ADDRESS) {
        if (t->addresses_count == CANARY_ADDRESSES_MAX) {
            return true; /* more are of no more use */
        }
        to = t->addresses[t->addresses_count++];
    }
    if (keys[row].kind == KIND_TEXT || keys[row].kind == KIND_ADDRESS) {
        int n = snprintf(to, CANARY_TEXT_BYTES, "%s", value);
        return n >= 0 && n < CANARY_TEXT_BYTES;
    }
    if (keys[row].kind == KIND_U64) {
        *(uint64_t *)to = strtoull(value, &end, 10);
        return errno == 0 && *end == '\0';
    }
    long number = strtol(value, &end, 10);
    if (errno != 0 || *end != '\0' || number < INT32_MIN || number > INT32_MAX) {
        return false;
    }
    *(int *)to = (int)number;
    return true;
}

static bool line_take(struct canary_targets *t, char *line)
{
    char *equals = strchr(line, '=');
    if (equals == NULL) {
        return false;
    }
    *equals = '\0';
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (strcmp(keys[i].key, line) == 0) {
            return value_take(t, i, equals + 1);
        }
    }
    return true;
}

bool canary_targets_read(const char *text, size_t size, struct canary_targets *out)
{
    struct canary_targets t = {.shm = -1};
    char line[2 * CANARY_TEXT_BYTES];
    while (size > 0) {
        const char *end = memchr(text, '\n', size);
        size_t length = end == NULL ? size : (size_t)(end - text);
        if (length >= sizeof line) {
            return false;
        }
        memcpy(line, text, length);
        line[length] = '\0';
        if (!line_take(&t, line)) {
            return false;
        }
        length += end != NULL;
        text += length;
        size -= length;
    }
    *out = t;
    return true;
}

uint64_t canary_descriptors(void)
{
    uint64_t open_ones = 0;
    for (int fd = 0; fd < 64; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) {
            open_ones |= UINT64_C(1) << fd;
        }
    }
    return open_ones;
}

/* ---- The other cell ---- */

static bool lay_file(const char *folder, const char *name, const char *nonce)
{
    char path[2 * CANARY_TEXT_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        return false;
    }
    bool written = write(fd, nonce, strlen(nonce)) == (ssize_t)strlen(nonce);
    (void)close(fd);
    return written;
}

static bool lay_socket(const char *name)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    size_t size = strlen(name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || size + 1 > sizeof at.sun_path) {
        return false;
    }
    memcpy(at.sun_path + 1, name, size);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + size);
    return bind(fd, (const struct sockaddr *)&at, length) == 0 && listen(fd, 4) == 0;
}

static bool lay_port(unsigned port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && bind(fd, (const struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 4) == 0;
}

/* The sockets stay open: they are the bait. */
bool canary_bait_lay(const char *text)
{
    char file[CANARY_TEXT_BYTES], name[CANARY_TEXT_BYTES], nonce[CANARY_TEXT_BYTES];
    unsigned port;
    if (sscanf(text, "%255s %255s %u %255s", file, name, &port, nonce) != 4) {
        return false;
    }
    (void)lay_file("/dev/shm", file, nonce); /* a cell need not have it */
    return lay_file("/tmp", file, nonce) && lay_socket(name) && lay_port(port);
}
