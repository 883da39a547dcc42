#include "tests/bench/oci_peers.h"

#include "tests/lib/cell_once.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT(t) ((char *)(uintptr_t)(t))

static const char config[] =
    "{\"ociVersion\": \"1.0.2\","
    " \"process\": {\"terminal\": false, \"user\": {\"uid\": 65534, \"gid\": 65534},"
    "  \"args\": [\"/guest\"], \"env\": [], \"cwd\": \"/\", \"noNewPrivileges\": true,"
    "  \"capabilities\": {\"bounding\": [], \"effective\": [], \"permitted\": []}},"
    " \"root\": {\"path\": \"rootfs\", \"readonly\": true}, \"hostname\": \"cell\","
    " \"mounts\": [{\"destination\": \"/proc\", \"type\": \"proc\", \"source\": \"proc\"},"
    "  {\"destination\": \"/tmp\", \"type\": \"tmpfs\", \"source\": \"tmpfs\","
    "   \"options\": [\"nosuid\", \"nodev\", \"noexec\", \"size=8m\"]}],"
    " \"linux\": {\"namespaces\": [{\"type\": \"pid\"}, {\"type\": \"network\"},"
    "  {\"type\": \"ipc\"}, {\"type\": \"uts\"}, {\"type\": \"mount\"}]}}\n";

static void copy_guest(const char *guest, const char *path)
{
    struct stat st;
    int in = open(guest, O_RDONLY | O_CLOEXEC);
    int out = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
    cell_once_must(in >= 0 && out >= 0 && fstat(in, &st) == 0 &&
                       sendfile(out, in, NULL, (size_t)st.st_size) == st.st_size,
                   path);
    (void)close(in);
    (void)close(out);
}

static void args_add(struct oci_peers *p, int peer, const char *program, char *const *options)
{
    size_t n = 0;
    if (access(program, X_OK) != 0) {
        return;
    }
    p->args[peer][n++] = TEXT(program);
    p->args[peer][n++] = TEXT("--root");
    p->args[peer][n++] = p->state;
    for (; *options != NULL; options++) {
        p->args[peer][n++] = *options;
    }
    p->args[peer][n++] = TEXT("run");
    p->args[peer][n++] = TEXT("--bundle");
    p->args[peer][n++] = p->folder;
    p->args[peer][n++] = p->id;
}

void oci_peers_open(struct oci_peers *p, const char *guest)
{
    static const char *const folders[] = {"rootfs", "rootfs/dev", "rootfs/proc", "rootfs/tmp",
                                          "state"};
    char path[OCI_TEXT_BYTES + 32];
    memset(p, 0, sizeof *p);
    (void)snprintf(p->folder, sizeof p->folder, "/tmp/skep-oci-XXXXXX");
    cell_once_must(mkdtemp(p->folder) != NULL && chmod(p->folder, 0755) == 0, p->folder);
    (void)snprintf(p->state, sizeof p->state, "%.100s/state", p->folder);
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", p->folder, folders[i]);
        cell_once_must(mkdir(path, 0755) == 0, path);
    }
    (void)snprintf(path, sizeof path, "%s/rootfs/guest", p->folder);
    copy_guest(guest, path);
    (void)snprintf(path, sizeof path, "%s/config.json", p->folder);
    FILE *f = fopen(path, "we");
    cell_once_must(f != NULL && fputs(config, f) >= 0 && fclose(f) == 0, path);
    char *const crun[] = {TEXT("--cgroup-manager=disabled"), NULL};
    char *const runc[] = {NULL};
    char *const runsc[] = {TEXT("--ignore-cgroups"), TEXT("--network=none"),
                           TEXT("--platform=ptrace"), NULL};
    args_add(p, OCI_CRUN, "/usr/bin/crun", crun);
    args_add(p, OCI_RUNC, "/usr/sbin/runc", runc);
    args_add(p, OCI_RUNSC, "/usr/bin/runsc", runsc);
    (void)umount2("/sys/fs/cgroup/unified", MNT_DETACH);
}

char *const *oci_peers_args(struct oci_peers *p, int peer, unsigned serial)
{
    (void)snprintf(p->id, sizeof p->id, "skep-bench-%d-%d-%u", (int)getpid(), peer, serial);
    return p->args[peer];
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void oci_peers_close(struct oci_peers *p)
{
    (void)nftw(p->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}
