/* The finished seccomp program, run by a small interpreter of classic BPF (as much of it as
 * libseccomp writes): what it answers to calls that no test may really make. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/cell/filter.h"
#include "agent/cell/sentry/calls.h"
#include "agent/cell/syscall_table.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/bpf_common.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#else
#define ARCH AUDIT_ARCH_AARCH64
#endif

static bool jumps(const struct sock_filter *i, uint32_t a)
{
    switch (BPF_OP(i->code)) {
    case BPF_JEQ:
        return a == i->k;
    case BPF_JGT:
        return a > i->k;
    case BPF_JGE:
        return a >= i->k;
    case BPF_JSET:
        return (a & i->k) != 0;
    default:
        fail_msg("unknown jump %x", i->code);
        return false;
    }
}

static uint32_t run(const struct seccomp_data *data)
{
    uint32_t a = 0;
    for (size_t at = 0; at < filter_program_size; at++) {
        const struct sock_filter *i = &filter_program[at];
        switch (BPF_CLASS(i->code)) {
        case BPF_LD:
            assert_true(i->k + sizeof a <= sizeof *data);
            memcpy(&a, (const char *)data + i->k, sizeof a);
            break;
        case BPF_ALU:
            assert_int_equal(BPF_OP(i->code), BPF_AND);
            a &= i->k;
            break;
        case BPF_JMP:
            if (BPF_OP(i->code) == BPF_JA) {
                at += i->k;
            } else {
                at += jumps(i, a) ? i->jt : i->jf;
            }
            break;
        case BPF_RET:
            return i->k;
        default:
            fail_msg("unknown instruction %x", i->code);
        }
    }
    fail_msg("the program ran past its end");
    return 0;
}

static uint32_t ask(long number, uint64_t a0, uint64_t a1, uint64_t a2)
{
    struct seccomp_data data = {.nr = (int)number, .arch = ARCH, .args = {a0, a1, a2}};
    return run(&data);
}

#define ALLOWED SECCOMP_RET_ALLOW
#define ANSWERED(error) (SECCOMP_RET_ERRNO | (uint32_t)(error))
#define TO_SENTRY SECCOMP_RET_USER_NOTIF

static void assert_refused(long number, int error)
{
    const struct syscall_row *row = syscall_find((int)number);
    assert_non_null(row);
    assert_int_equal(row->error, error);
    assert_true(row->class == SYSCALL_REFUSED || row->class == SYSCALL_CHECKED);
    assert_null(call_handler((int)number));
}

static void ordinary_calls_are_allowed(void **state)
{
    (void)state;
    static const long calls[] = {SYS_read,    SYS_write,        SYS_fstat,      SYS_mmap,
                                 SYS_futex,   SYS_execve,       SYS_exit_group, SYS_sendmsg,
                                 SYS_recvmsg, SYS_rt_sigreturn, SYS_getrandom,  SYS_clock_gettime};
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        assert_int_equal(ask(calls[i], 0, 0, 0), ALLOWED);
    }
}

static void dangerous_calls_are_refused(void **state)
{
    (void)state;
    static const long calls[] = {
        SYS_mount,   SYS_umount2,   SYS_unshare,     SYS_setns,       SYS_ptrace,
        SYS_bpf,     SYS_keyctl,    SYS_chroot,      SYS_init_module, SYS_perf_event_open,
        SYS_fsopen,  SYS_open_tree, SYS_reboot,      SYS_userfaultfd, SYS_process_vm_writev,
        SYS_seccomp, SYS_setgroups, SYS_pidfd_getfd,
    };
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        assert_int_equal(ask(calls[i], 0, 0, 0), TO_SENTRY);
        assert_refused(calls[i], EPERM);
    }
}

static void calls_with_an_older_way_do_not_exist(void **state)
{
    (void)state;
    assert_int_equal(ask(SYS_clone3, 0, 0, 0), ANSWERED(ENOSYS));
    assert_int_equal(ask(SYS_io_uring_setup, 0, 0, 0), TO_SENTRY);
    assert_refused(SYS_io_uring_setup, ENOSYS);
}

/* Also those that the kernel will only have tomorrow. */
static void unknown_calls_do_not_exist(void **state)
{
    (void)state;
    for (long number = 470; number < 2000; number++) {
        assert_int_equal(ask(number, 0, 0, 0), TO_SENTRY);
        assert_null(call_handler((int)number));
        assert_null(syscall_find((int)number));
    }
}

/* Whatever names something is done by the sentry, and only that. */
static void mediated_calls_have_a_handler(void **state)
{
    (void)state;
    size_t count = 0;
    const struct syscall_row *rows = syscall_rows(&count);
    for (size_t i = 0; i < count; i++) {
        bool mediated = rows[i].class == SYSCALL_MEDIATED;
        assert_int_equal(mediated, call_handler(rows[i].number) != NULL);
        if (mediated && rows[i].number != SYS_sendto) { /* with an address: the test below */
            assert_int_equal(ask(rows[i].number, 1, 1, 1), TO_SENTRY);
        }
        assert_ptr_equal(syscall_find(rows[i].number), &rows[i]); /* each has one row */
    }
}

/* fstat, and the data of a connected socket, cost nothing extra. */
static void calls_on_descriptors_are_native(void **state)
{
    (void)state;
    struct seccomp_data data = {.nr = SYS_newfstatat, .arch = ARCH, .args = {3, 1, 1, 0x1000}};
    assert_int_equal(run(&data), ALLOWED);
    data.args[3] = 0;
    assert_int_equal(run(&data), TO_SENTRY);
    data = (struct seccomp_data){.nr = SYS_sendto, .arch = ARCH, .args = {3, 1, 1, 0, 0, 0}};
    assert_int_equal(run(&data), ALLOWED);
    data.args[4] = UINT64_C(1) << 32;
    assert_int_equal(run(&data), TO_SENTRY);
}

static void clone_may_make_threads_and_no_namespaces(void **state)
{
    (void)state;
    assert_int_equal(ask(SYS_clone, 17, 0, 0), ALLOWED);
    assert_int_equal(ask(SYS_clone,
                         CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                             CLONE_SYSVSEM | CLONE_SETTLS,
                         0, 0),
                     ALLOWED);
    static const uint64_t flags[] = {CLONE_NEWNS,   CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
                                     CLONE_NEWUSER, CLONE_NEWPID,    CLONE_NEWNET};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        assert_int_equal(ask(SYS_clone, flags[i] | 17, 0, 0), TO_SENTRY);
        assert_int_equal(ask(SYS_clone, flags[i] | CLONE_VM | (1ULL << 40), 0, 0), TO_SENTRY);
    }
}

static void sockets_are_unix_tcp_and_udp(void **state)
{
    (void)state;
    assert_int_equal(ask(SYS_socket, AF_UNIX, SOCK_STREAM, 0), ALLOWED);
    assert_int_equal(ask(SYS_socket, AF_INET, SOCK_STREAM, 6), ALLOWED);
    assert_int_equal(ask(SYS_socket, AF_INET6, SOCK_DGRAM, 17), ALLOWED);
    assert_int_equal(ask(SYS_socket, AF_INET, SOCK_STREAM, 132), TO_SENTRY);
    for (uint64_t family = 0; family < 64; family++) {
        if (family != AF_UNIX && family != AF_INET && family != AF_INET6) {
            assert_int_equal(ask(SYS_socket, family, SOCK_STREAM, 0), TO_SENTRY);
        }
    }
    assert_int_equal(ask(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0), ALLOWED);
    assert_int_equal(ask(SYS_socketpair, AF_INET, SOCK_STREAM, 0), TO_SENTRY);
}

/* The kernel looks at 32 bits of an ioctl's number: no upper bit may turn a refused one into an
 * allowed. */
static void terminals_cannot_be_typed_into(void **state)
{
    (void)state;
    assert_int_equal(ask(SYS_ioctl, 0, TCGETS, 0), ALLOWED);
    assert_int_equal(ask(SYS_ioctl, 0, FIONREAD, 0), ALLOWED);
    assert_int_not_equal(ask(SYS_ioctl, 0, TIOCSTI, 0), ALLOWED);
    assert_int_not_equal(ask(SYS_ioctl, 0, (1ULL << 32) | TIOCSTI, 0), ALLOWED);
    assert_int_not_equal(ask(SYS_ioctl, 0, 0x541c, 0), ALLOWED);
}

static void personality_stays(void **state)
{
    (void)state;
    assert_int_equal(ask(SYS_personality, 0, 0, 0), ALLOWED);
    assert_int_equal(ask(SYS_personality, 0xffffffff, 0, 0), ALLOWED);
    assert_int_not_equal(ask(SYS_personality, 0x0040000, 0, 0), ALLOWED);
}

static void flushing_every_disk_succeeds_without_doing_it(void **state)
{
    (void)state;
    assert_int_equal(ask(SYS_sync, 0, 0, 0), ANSWERED(0));
    assert_int_equal(ask(SYS_syncfs, 0, 0, 0), ANSWERED(0));
}

static void another_architecture_is_killed(void **state)
{
    (void)state;
    struct seccomp_data data = {.nr = SYS_read, .arch = AUDIT_ARCH_I386};
    assert_int_equal(run(&data), SECCOMP_RET_KILL_PROCESS);
#if defined(__x86_64__)
    assert_int_equal(ask(0x40000000 + SYS_read, 0, 0, 0), SECCOMP_RET_KILL_PROCESS);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ordinary_calls_are_allowed),
        cmocka_unit_test(dangerous_calls_are_refused),
        cmocka_unit_test(calls_with_an_older_way_do_not_exist),
        cmocka_unit_test(unknown_calls_do_not_exist),
        cmocka_unit_test(mediated_calls_have_a_handler),
        cmocka_unit_test(calls_on_descriptors_are_native),
        cmocka_unit_test(clone_may_make_threads_and_no_namespaces),
        cmocka_unit_test(sockets_are_unix_tcp_and_udp),
        cmocka_unit_test(terminals_cannot_be_typed_into),
        cmocka_unit_test(personality_stays),
        cmocka_unit_test(flushing_every_disk_succeeds_without_doing_it),
        cmocka_unit_test(another_architecture_is_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
