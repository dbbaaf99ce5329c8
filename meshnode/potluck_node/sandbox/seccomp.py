"""The system calls that code in a sandbox may make: two BPF programs, of which the stricter answer counts.

The allow-list follows the default profile of Moby (moby/profiles, seccomp/default.json) without its capability-bound
entries. What is not on it does not exist (ENOSYS), so that libraries fall back; what is known to be dangerous is not
permitted (EPERM), so that errors say so. Calls of another architecture end the process.
"""

from __future__ import annotations

import errno
import functools
import os
from typing import Any

from potluck.errors import SandboxError

# clone(2) flags that make namespaces: NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_CLONE_NEW = 0x7E020080
_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6; the network namespace is empty but for the loopback
# ioctl(2) requests that type into the terminal. The kernel reads 32 bits of them, so only these are compared.
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_UINT32 = 0xFFFFFFFF
# personality(2): Linux, with 2.6 version numbers, without address randomisation (debuggers), query.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, _UINT32)

_DENIED = """
 acct add_key bpf clock_adjtime clock_settime create_module delete_module fanotify_init finit_module fsconfig
 fsmount fsopen fspick get_kernel_syms init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp
 kexec_file_load kexec_load keyctl lookup_dcookie mount mount_setattr move_mount move_pages name_to_handle_at
 nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise process_vm_readv
 process_vm_writev ptrace query_module quotactl quotactl_fd reboot request_key setdomainname sethostname setns
 settimeofday stime swapoff swapon syslog umount umount2 unshare uselib userfaultfd vhangup vmsplice chroot
"""

_ALLOWED = """
 accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown
 clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3
 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
 eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark
 fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork
 fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake
 futimesat get_mempolicy get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid
 getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
 getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr
 inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents
 io_pgetevents io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
 landlock_restrict_self lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek
 lsetxattr lstat madvise map_shadow_stack mbind membarrier memfd_create mincore mkdir mkdirat mknod mknodat
 mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink
 mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat open openat
 openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl
 pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pwrite64 pwritev pwritev2 read readahead
 readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr rename renameat renameat2
 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
 rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
 sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity
 sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
 sendfile sendmmsg sendmsg sendto set_mempolicy set_mempolicy_home_node set_robust_list set_thread_area
 set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid
 setresuid setreuid setrlimit setsid setsockopt setuid setxattr shmat shmctl shmdt shmget shutdown
 sigaltstack signalfd signalfd4 socketpair splice stat statfs statx symlink symlinkat sync sync_file_range
 syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime
 timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime
 utimensat utimes vfork wait4 waitid waitpid write writev
"""


# Calls that make memory which belongs to no process, so that sampling processes does not find it.
HIDDEN_MEMORY = ("memfd_create", "memfd_secret", "shmget", "msgget")


@functools.cache
def programs(without: tuple[str, ...] = ()) -> tuple[bytes, ...]:
    """The compiled filters; the calls `without` do not exist either. Raises `SandboxError` when libseccomp is
    missing."""
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        raise SandboxError(
            "The sandbox's system call filter cannot be made.",
            why=str(error),
            fix="Install libseccomp: sudo apt install libseccomp2",
        ) from None
    return _export(_allow_list(pyseccomp, without)), _export(_exceptions(pyseccomp))


def _allow_list(lib: Any, without: tuple[str, ...]) -> Any:
    rules = lib.SyscallFilter(lib.ERRNO(errno.ENOSYS))
    # By default it is the thread that ends, and what is left of the process hangs.
    rules.set_attr(lib.Attr.ACT_BADARCH, lib.KILL_PROCESS)
    for name in set(_ALLOWED.split()) - set(without):
        _add(lib, rules, lib.ALLOW, name)
    for name in _DENIED.split():
        _add(lib, rules, lib.ERRNO(errno.EPERM), name)
    _add(lib, rules, lib.ALLOW, "clone", lib.Arg(0, lib.MASKED_EQ, _CLONE_NEW, 0))
    for family in _FAMILIES:
        _add(lib, rules, lib.ALLOW, "socket", lib.Arg(0, lib.MASKED_EQ, _UINT32, family))
    for value in _PERSONALITIES:
        _add(lib, rules, lib.ALLOW, "personality", lib.Arg(0, lib.MASKED_EQ, _UINT32, value))
    return rules


def _exceptions(lib: Any) -> Any:
    """libseccomp compares an argument once: excluding requests from an allowed call takes a second filter."""
    rules = lib.SyscallFilter(lib.ALLOW)
    rules.set_attr(lib.Attr.ACT_BADARCH, lib.KILL_PROCESS)
    for request in (_TIOCSTI, _TIOCLINUX):
        _add(lib, rules, lib.ERRNO(errno.EPERM), "ioctl", lib.Arg(1, lib.MASKED_EQ, _UINT32, request))
    return rules


def _add(lib: Any, rules: Any, action: int, name: str, *arguments: Any) -> None:
    """Calls that this machine's libseccomp or architecture does not know cannot be made either: default action."""
    try:
        number = lib.resolve_syscall(lib.Arch.NATIVE, name)
    except OSError:
        return
    if number >= 0:
        rules.add_rule(action, number, *arguments)


def _export(rules: Any) -> bytes:
    with os.fdopen(os.memfd_create("seccomp"), "w+b") as file:
        rules.export_bpf(file)
        file.seek(0)
        program: bytes = file.read()
    return program
