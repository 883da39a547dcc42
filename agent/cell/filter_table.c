/* The filter, made from the table of system calls: native ones run, quiet ones are answered by the
 * filter, and all others become a notification to the sentry, which does them or refuses them. Only
 * register arguments are judged here: what a pointer points to can change after the look (a racing
 * thread got through 12,400 times in 50,000). */
#include "agent/cell/filter_table.h"

#include "agent/cell/syscall_table.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <linux/sched.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

static const unsigned long clone_flags_refused[] = {
    CLONE_NEWNS,   CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
    CLONE_NEWUSER, CLONE_NEWPID,    CLONE_NEWNET,
};

static const unsigned long ioctls_allowed[] = {TCGETS,  TIOCGWINSZ, FIONREAD, FIONBIO,
                                               FIOCLEX, FIONCLEX,   FIOASYNC};

static const int prctls_allowed[] = {
    PR_SET_NAME,
    PR_GET_NAME,
    PR_SET_PDEATHSIG,
    PR_GET_PDEATHSIG,
    PR_GET_DUMPABLE,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_GET_NO_NEW_PRIVS,
    PR_SET_VMA,
    PR_SET_TIMERSLACK,
    PR_GET_TIMERSLACK,
    PR_GET_SECCOMP,
    PR_SET_THP_DISABLE,
    PR_GET_THP_DISABLE,
    PR_CAPBSET_READ,
    PR_GET_SECUREBITS,
    PR_SET_CHILD_SUBREAPER,
    PR_GET_CHILD_SUBREAPER,
    PR_GET_KEEPCAPS,
};

/* personality(0xffffffff) only asks. */
static const unsigned long personalities_allowed[] = {0, 0xffffffffUL};

struct build {
    scmp_filter_ctx context;
    struct errmsg *msg;
};

static struct status rule(struct build *b, uint32_t action, const char *name, unsigned count,
                          const struct scmp_arg_cmp *arguments)
{
    int number = seccomp_syscall_resolve_name(name);
    if (number == __NR_SCMP_ERROR) {
        return status_fail(b->msg, STATUS_INVALID, "libseccomp does not know %s", name);
    }
    int error = seccomp_rule_add_array(b->context, action, number, count, arguments);
    /* EACCES: the action is the default one, so there is nothing to add. */
    if (error != 0 && error != -EACCES) {
        return status_fail(b->msg, STATUS_INTERNAL, "rule for %s: %s", name, strerror(-error));
    }
    return status_ok();
}

static struct status rule_if(struct build *b, uint32_t action, const char *name,
                             struct scmp_arg_cmp argument)
{
    return rule(b, action, name, 1, &argument);
}

static struct status plain_rules(struct build *b)
{
    size_t count = 0;
    const struct syscall_row *rows = syscall_rows(&count);
    for (size_t i = 0; i < count; i++) {
        if (rows[i].class == SYSCALL_NATIVE) {
            TRY(rule(b, SCMP_ACT_ALLOW, rows[i].name, 0, NULL));
        } else if (rows[i].class == SYSCALL_QUIET) {
            TRY(rule(b, SCMP_ACT_ERRNO((unsigned)rows[i].error), rows[i].name, 0, NULL));
        }
    }
    return status_ok();
}

/* A clone without any namespace flag. */
static struct status clone_rules(struct build *b)
{
    unsigned long all = 0;
    for (size_t i = 0; i < sizeof clone_flags_refused / sizeof clone_flags_refused[0]; i++) {
        all |= clone_flags_refused[i];
    }
    return rule_if(b, SCMP_ACT_ALLOW, "clone", SCMP_A0(SCMP_CMP_MASKED_EQ, all, 0));
}

/* Unix, and TCP and UDP over IPv4 and IPv6: no raw sockets, no SCTP, no module loaded on demand. */
static struct status socket_rules(struct build *b)
{
    static const int families[] = {AF_INET, AF_INET6};
    static const unsigned long protocols[] = {0, 6, 17}; /* any, TCP, UDP */
    TRY(rule_if(b, SCMP_ACT_ALLOW, "socket", SCMP_A0(SCMP_CMP_EQ, AF_UNIX)));
    TRY(rule_if(b, SCMP_ACT_ALLOW, "socketpair", SCMP_A0(SCMP_CMP_EQ, AF_UNIX)));
    for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
        for (size_t p = 0; p < sizeof protocols / sizeof protocols[0]; p++) {
            struct scmp_arg_cmp both[] = {
                SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[f]),
                SCMP_A2(SCMP_CMP_EQ, protocols[p]),
            };
            TRY(rule(b, SCMP_ACT_ALLOW, "socket", 2, both));
        }
    }
    return status_ok();
}

/* Forms of mediated calls that name nothing: of a descriptor (fstat as glibc makes it; if a path is
 * given after all, the kernel looks it up below the cell's root, and only tells about it), of a
 * connected socket, of the time of an open file. */
static struct status descriptor_rules(struct build *b)
{
    TRY(rule_if(b, SCMP_ACT_ALLOW, "newfstatat", SCMP_A3(SCMP_CMP_EQ, AT_EMPTY_PATH)));
    TRY(rule_if(b, SCMP_ACT_ALLOW, "statx", SCMP_A2(SCMP_CMP_EQ, AT_EMPTY_PATH)));
    TRY(rule_if(b, SCMP_ACT_ALLOW, "utimensat", SCMP_A1(SCMP_CMP_EQ, 0)));
    return rule_if(b, SCMP_ACT_ALLOW, "sendto", SCMP_A4(SCMP_CMP_EQ, 0));
}

/* O_PATH names a place and opens nothing; a notification cannot put such a descriptor into the
 * process, and what is opened from it later is asked for again. */
static struct status place_rules(struct build *b)
{
    const scmp_datum_t flag = O_PATH;
    TRY(rule_if(b, SCMP_ACT_ALLOW, "open", SCMP_A1(SCMP_CMP_MASKED_EQ, flag, flag)));
    return rule_if(b, SCMP_ACT_ALLOW, "openat", SCMP_A2(SCMP_CMP_MASKED_EQ, flag, flag));
}

static struct status argument_rules(struct build *b)
{
    TRY(clone_rules(b));
    TRY(socket_rules(b));
    TRY(descriptor_rules(b));
    TRY(place_rules(b));
    for (size_t i = 0; i < sizeof ioctls_allowed / sizeof ioctls_allowed[0]; i++) {
        TRY(rule_if(b, SCMP_ACT_ALLOW, "ioctl", SCMP_A1(SCMP_CMP_EQ, ioctls_allowed[i])));
    }
    for (size_t i = 0; i < sizeof prctls_allowed / sizeof prctls_allowed[0]; i++) {
        TRY(rule_if(b, SCMP_ACT_ALLOW, "prctl",
                    SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)prctls_allowed[i])));
    }
    for (size_t i = 0; i < sizeof personalities_allowed / sizeof personalities_allowed[0]; i++) {
        TRY(rule_if(b, SCMP_ACT_ALLOW, "personality",
                    SCMP_A0(SCMP_CMP_EQ, personalities_allowed[i])));
    }
    return status_ok();
}

struct status filter_export(int fd, struct errmsg *msg)
{
    struct build b = {.context = seccomp_init(SCMP_ACT_NOTIFY), .msg = msg};
    if (b.context == NULL) {
        return status_fail(msg, STATUS_NOMEM, "seccomp_init");
    }
    /* A binary tree: 70 us instead of 200 to install, and shorter paths in every call. */
    struct status s = status_ok();
    if (seccomp_attr_set(b.context, SCMP_FLTATR_CTL_OPTIMIZE, 2) != 0) {
        s = status_fail(msg, STATUS_INTERNAL, "libseccomp refuses optimize level 2");
    }
    /* Calls of another architecture (int 0x80, x32) have other numbers: only an attack makes them.
     * */
    if (seccomp_attr_set(b.context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) != 0) {
        s = status_fail(msg, STATUS_INTERNAL, "libseccomp refuses to kill");
    }
    if (status_is_ok(s)) {
        s = plain_rules(&b);
    }
    if (status_is_ok(s)) {
        s = argument_rules(&b);
    }
    if (status_is_ok(s)) {
        int error = seccomp_export_bpf(b.context, fd);
        if (error != 0) {
            s = status_fail(msg, STATUS_INTERNAL, "export: %s", strerror(-error));
        }
    }
    seccomp_release(b.context);
    return s;
}
