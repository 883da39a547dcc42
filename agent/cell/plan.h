/* Decides, without doing anything, how a cell is built: turns its specification and a few facts
 * about the machine into a list of steps, which walls.h executes in order and checks one by one.
 *
 * The order carries the safety: sources are opened while the process still has the caller's file
 * rights, then it becomes the cell's user, then the root is built from what was opened, then the
 * old root is let go, and only then do capabilities and system calls fall away.
 *
 * Thread: any; no shared state, no I/O. */
#ifndef AGENT_CELL_PLAN_H
#define AGENT_CELL_PLAN_H

#include "agent/cell/cell.h"

enum {
    PLAN_STEPS_MAX = 2048,
    PLAN_ENTRIES_MAX = 256,
    PLAN_DEVICES_MAX = 8 + CELL_DEVICES_MAX,
    PLAN_TREES_MAX = PLAN_ENTRIES_MAX + CELL_MOUNTS_MAX + PLAN_DEVICES_MAX,
    PLAN_TEXT_BYTES_MAX = 256 << 10,
    CELL_INSIDE_UID = 1000,
    CELL_SHM_BYTES_MAX = 64 << 20,
    CELL_FILES_DEFAULT = 1024,
};

/* One row a kind: name (also the text in messages). */
#define STEP_KINDS(X)                                                                              \
    X(UNSHARE_CGROUP, "cgroup namespace")                                                          \
    X(PRIVATE_MOUNTS, "private mounts")                                                            \
    X(OPEN_TREE, "open_tree")                                                                      \
    X(IDENTITY, "become the cell's user")                                                          \
    X(KEYRING, "session keyring")                                                                  \
    X(NEW_ROOT, "new root")                                                                        \
    X(PIVOT, "pivot_root")                                                                         \
    X(DIR, "mkdir")                                                                                \
    X(LINK, "symlink")                                                                             \
    X(FILE, "write file")                                                                          \
    X(ATTACH, "mount")                                                                             \
    X(TMPFS, "mount tmpfs")                                                                        \
    X(PROC, "mount proc")                                                                          \
    X(DROP_OLD_ROOT, "detach old root")                                                            \
    X(ROOT_READONLY, "read-only root")                                                             \
    X(LOOPBACK, "loopback up")                                                                     \
    X(HOSTNAME, "hostname")                                                                        \
    X(WORKDIR, "working directory")                                                                \
    X(STDIO, "standard descriptors")                                                               \
    X(RLIMIT, "resource limit")                                                                    \
    X(SECUREBITS, "securebits")                                                                    \
    X(BOUNDING, "bounding set")                                                                    \
    X(CAPABILITIES, "capabilities")                                                                \
    X(NO_NEW_PRIVILEGES, "no_new_privs")                                                           \
    X(PARENT_DEATH, "parent death signal")                                                         \
    X(LANDLOCK, "landlock")                                                                        \
    X(FILTER, "seccomp filter")                                                                    \
    X(EXEC, "exec")

enum step_kind {
#define STEP_ENUM_ROW(name, text) STEP_##name,
    STEP_KINDS(STEP_ENUM_ROW)
#undef STEP_ENUM_ROW
        STEP_KINDS_COUNT_,
};

/* What a step's fields mean depends on its kind; unused ones are zero. Texts are borrowed from the
 * specification, the facts or the plan. */
struct step {
    enum step_kind kind;
    /* what is made or mounted, inside the cell; of OPEN_TREE: the source outside */
    const char *path;
    const char *text; /* link target, file content, tmpfs options, host name */
    uint32_t tree;    /* OPEN_TREE fills this slot, ATTACH empties it */
    uint32_t flags;   /* enum step_flags */
    int resource;     /* RLIMIT */
    uint64_t value;   /* RLIMIT: soft and hard */
};

enum step_flags {
    STEP_OPTIONAL = 1,     /* OPEN_TREE: a missing source is no error; its ATTACH is skipped then */
    STEP_ALLOW_EXEC = 2,   /* the mount may hold programs */
    STEP_ALLOW_DEVICE = 4, /* the mount is a device node */
    STEP_TARGET_FILE = 8,  /* ATTACH: the mount point is a file, not a folder */
};

/* One name in the cell's root, as the scan of the image (or of the machine) found it. */
enum entry_kind { ENTRY_DIR, ENTRY_FILE, ENTRY_LINK, ENTRY_MADE_DIR };
struct root_entry {
    enum entry_kind kind;
    bool optional;
    char *path;   /* inside the cell */
    char *source; /* outside; of a link: what it points to; NULL for MADE_DIR */
};

/* What the plan must know of the machine. */
struct plan_facts {
    const struct root_entry *entries; /* parents first */
    size_t entries_count;
    /* One flag a mount of the specification: its source is not a folder. */
    bool mount_is_file[CELL_MOUNTS_MAX];
    bool has_cgroup;
    bool has_netns; /* made ahead: its loopback is up */
};

struct plan {
    struct step *steps;
    size_t count;
    size_t trees_count;
    char *text; /* what the steps borrow and nobody else owns */
    size_t text_size;
};

/* LIMIT when a maximum above is reached; NOMEM. *out is written only on success. The plan borrows
 * from spec and facts until plan_close. */
NODISCARD struct status plan_build(const struct cell_spec *spec, const struct plan_facts *facts,
                                   struct plan *out, struct errmsg *msg);
/* Safe on zeroed memory and twice. */
void plan_close(struct plan *p);

/* "pivot_root". */
const char *step_name(enum step_kind kind);

#endif
