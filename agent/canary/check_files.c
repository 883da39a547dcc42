/* Files of the host and of another cell. */
#include "agent/canary/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { PATH_BYTES = 2 * CANARY_TEXT_BYTES, UP_MAX = 8, PIDS_SCANNED = 64 };

static bool has_file(struct check *c)
{
    if (c->targets->file[0] == '\0') {
        check_none(c, "the agent laid no file");
        return false;
    }
    return true;
}

void check_host_file(struct check *c)
{
    static const char *const before[] = {"", "..", "../../../../../../../..", "/../../../..", "/."};
    char path[PATH_BYTES];
    if (!has_file(c)) {
        return;
    }
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
        (void)snprintf(path, sizeof path, "%s%s", before[i], c->targets->file);
        if (check_read(c, path)) {
            return;
        }
    }
}

/* The bait below /proc/PID/LINK and so many "..", for the first processes there are and the agent.
 * True when it was read. */
static bool below_links(struct check *c, const char *link, int ups)
{
    char path[PATH_BYTES];
    for (int pid = 0; pid <= PIDS_SCANNED; pid++) {
        char name[16] = "self";
        int number = pid == PIDS_SCANNED ? c->targets->agent_pid : pid;
        if (number > 0) {
            (void)snprintf(name, sizeof name, "%d", number);
        }
        static const char up[] = "/../../../../../../../..";
        (void)snprintf(path, sizeof path, "/proc/%s/%s%.*s%s", name, link, 3 * ups, up,
                       c->targets->file);
        if (check_read(c, path)) {
            return true;
        }
    }
    return false;
}

void check_host_file_root(struct check *c)
{
    if (has_file(c)) {
        (void)below_links(c, "root", 0);
    }
}

void check_host_file_cwd(struct check *c)
{
    if (has_file(c)) {
        (void)below_links(c, "cwd", UP_MAX);
    }
}

void check_host_file_link(struct check *c)
{
    static const char *const before[] = {"", "/proc/self/root", "/proc/1/root",
                                         "/proc/1/cwd/../.."};
    char target[PATH_BYTES], link[64];
    if (!has_file(c)) {
        return;
    }
    (void)snprintf(link, sizeof link, "/tmp/skep-canary-link.%d", (int)getpid());
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
        (void)snprintf(target, sizeof target, "%s%s", before[i], c->targets->file);
        (void)unlink(link);
        if (symlink(target, link) != 0) {
            check_refused(c, "symlink");
            continue;
        }
        bool got = check_read(c, link);
        (void)unlink(link);
        if (got) {
            return;
        }
    }
}

void check_host_file_handle(struct check *c)
{
    struct {
        struct file_handle head;
        unsigned char bytes[MAX_HANDLE_SZ];
    } handle = {.head = {.handle_bytes = MAX_HANDLE_SZ}};
    int mount;
    int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        check_none(c, "/ cannot be opened");
        return;
    }
    if (name_to_handle_at(AT_FDCWD, "/proc", &handle.head, &mount, 0) != 0) {
        /* One that no file system has: the permission is asked first. */
        handle.head.handle_bytes = 8;
        handle.head.handle_type = 1;
    }
    (void)check_permission(c, "open_by_handle_at", open_by_handle_at(fd, &handle.head, O_RDONLY));
    (void)close(fd);
}

void check_leaked_descriptors(struct check *c)
{
    for (int fd = 0; fd < 64; fd++) {
        char link[32], text[64];
        if ((c->targets->descriptors & UINT64_C(1) << fd) == 0 || fd <= 3) {
            continue; /* 0 to 2 and the runner's channel are given */
        }
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, text, sizeof text - 1);
        text[n > 0 ? n : 0] = '\0';
        check_breached(c, "descriptor %d is open: %s", fd, text);
        return;
    }
    check_held(c, "none");
}

void check_root_writable(struct check *c)
{
    static const char *const folders[] = {"", "/usr", "/etc", "/app", "/opt/skep"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        char path[64];
        (void)snprintf(path, sizeof path, "%s/skep-canary.%d", folders[i], (int)getpid());
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd >= 0) {
            (void)close(fd);
            (void)unlink(path);
            check_breached(c, "%s can be made", path);
            return;
        }
        check_refused(c, path);
    }
}

void check_tmp_flags(struct check *c)
{
    static const char *const folders[] = {"/tmp", "/dev/shm"};
    const unsigned long wanted = ST_NOSUID | ST_NODEV | ST_NOEXEC;
    check_held(c, "none of them is there");
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        struct statvfs s;
        if (statvfs(folders[i], &s) != 0) {
            continue;
        }
        if ((s.f_flag & wanted) != wanted) {
            check_breached(c, "%s lacks%s%s%s", folders[i],
                           (s.f_flag & ST_NOSUID) != 0 ? "" : " nosuid",
                           (s.f_flag & ST_NODEV) != 0 ? "" : " nodev",
                           (s.f_flag & ST_NOEXEC) != 0 ? "" : " noexec");
            return;
        }
        check_held(c, "nosuid, nodev, noexec");
    }
}

void check_set_uid_files(struct check *c)
{
    static const char *const folders[] = {"/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/libexec"};
    check_held(c, "none");
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        DIR *dir = opendir(folders[i]);
        for (struct dirent *e = dir == NULL ? NULL : readdir(dir); e != NULL; e = readdir(dir)) {
            struct stat st;
            struct statvfs fs;
            char path[PATH_BYTES];
            (void)snprintf(path, sizeof path, "%s/%s", folders[i], e->d_name);
            if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
                (st.st_mode & (S_ISUID | S_ISGID)) != 0 && statvfs(path, &fs) == 0 &&
                (fs.f_flag & ST_NOSUID) == 0) {
                check_breached(c, "%.100s would be heeded", path);
                break;
            }
        }
        if (dir != NULL) {
            (void)closedir(dir);
        }
        if (c->outcome.verdict == CANARY_BREACHED) {
            return;
        }
    }
}

void check_other_file(struct check *c)
{
    static const char *const folders[] = {"/tmp", "/dev/shm"};
    if (c->targets->other_file[0] == '\0') {
        check_none(c, "there is no other cell");
        return;
    }
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        char path[PATH_BYTES];
        (void)snprintf(path, sizeof path, "%s/%s", folders[i], c->targets->other_file);
        if (check_read(c, path)) {
            return;
        }
    }
}
