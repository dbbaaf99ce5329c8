"""What every sandbox keeps from the code inside: the host, the kernel, and its own node. As `check_sandbox`."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
from tests.conformance.check_sandbox import Opener, call, end_of, goes_on, inside_double, one_worker, post, worker_of

cloudpickle.register_pickle_by_value(sys.modules[__name__])

# -- the host stays hidden


def inside_look(paths: list[str]) -> dict[str, list[str] | str]:
    seen: dict[str, list[str] | str] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            seen[path] = os.listdir(path) if os.path.isdir(path) else Path(path).read_text()
    return seen


def inside_connect(port: int) -> int:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port))


def inside_identity() -> dict[str, Any]:
    return {
        "uid": os.getuid(),
        "host": os.uname().nodename,
        "marker": os.environ.get("POTLUCK_SANDBOX"),
        "environment": dict(os.environ),
        "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
        "interfaces": [line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]],
    }


async def check_host_is_hidden(opener: Opener) -> None:
    secret = Path.home() / ".profile"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        async with one_worker(opener) as (_, worker):
            paths = [str(secret), "/etc/shadow", "/home", "/var", "/boot", str(Path.home() / ".ssh")]
            paths += ["/sys/block", "/sys/devices/pci0000:00", "/sys/class/net"]
            seen = (await call(worker, inside_look, paths)).value
            assert {path: found for path, found in seen.items() if found} == {}
            assert (await call(worker, inside_connect, listener.getsockname()[1])).value == errno.ECONNREFUSED
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            raise AssertionError(f"the sandbox reached the host: {listener.accept()}")


async def check_identity(opener: Opener) -> None:
    os.environ["POTLUCK_TEST_SECRET"] = "of the host"
    async with one_worker(opener, env={"GIVEN": "1"}) as (_, worker):
        who = (await call(worker, inside_identity)).value
    assert who["uid"] != 0
    assert (who["host"], who["marker"], who["environment"]["GIVEN"]) == ("potluck", "1", "1")
    assert "POTLUCK_TEST_SECRET" not in who["environment"]
    assert max(who["processes"]) < 20, "processes of the host are visible"
    assert who["interfaces"] == ["lo"]


def inside_privileges() -> dict[str, str]:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: fields[name].strip() for name in ("CapInh", "CapPrm", "CapEff")}


def inside_write(paths: list[str]) -> list[str]:
    """Which of the folders can be written."""
    done = []
    for path in paths:
        with contextlib.suppress(OSError):
            Path(path, "new").write_text("x")
            done.append(path)
    return done


async def check_privileges(opener: Opener) -> None:
    async with one_worker(opener) as (_, worker):
        have = (await call(worker, inside_privileges)).value
        assert set(have.values()) == {"0" * 16}
        closed = ["/", "/usr", "/bin", "/etc", "/dev", "/run", "/proc/sys/kernel", sys.prefix]
        assert (await call(worker, inside_write, [*closed, "/tmp", "/dev/shm"])).value == ["/tmp", "/dev/shm"]


def inside_system_calls(numbers: dict[str, int]) -> dict[str, int]:
    """The error of each call, made with harmless arguments; 0 where it succeeds."""
    libc = ctypes.CDLL(None, use_errno=True)
    errors = {}
    for name, number in numbers.items():
        ctypes.set_errno(0)
        done = libc.syscall(number, *([ctypes.c_long(0)] * 6))
        errors[name] = 0 if done >= 0 else ctypes.get_errno()
    return errors


def inside_special_calls(numbers: dict[str, int]) -> dict[str, int]:
    """Calls that are allowed in general, with arguments that are not."""
    libc = ctypes.CDLL(None, use_errno=True)
    cases = {
        "clone newuser": (numbers["clone"], 0x10000000 | signal.SIGCHLD, 0, 0),
        "ioctl TIOCSTI": (numbers["ioctl"], 0, 0x5412, 0),
        "ioctl TIOCSTI, upper bits": (numbers["ioctl"], 0, 0x1_0000_5412, 0),
        "socket packet": (numbers["socket"], 17, 3, 0),
        "socket netlink": (numbers["socket"], 16, 3, 0),
        "socket vsock": (numbers["socket"], 40, 1, 0),
        "personality": (numbers["personality"], 0x0400000, 0, 0),
    }
    errors = {}
    for name, (number, *arguments) in cases.items():
        ctypes.set_errno(0)
        done = libc.syscall(number, *map(ctypes.c_long, arguments))
        errors[name] = 0 if done >= 0 else ctypes.get_errno()
    return errors


DANGEROUS = """
 mount umount2 pivot_root chroot ptrace process_vm_readv process_vm_writev keyctl add_key request_key bpf
 perf_event_open io_uring_setup userfaultfd kexec_load init_module finit_module delete_module unshare setns clone3
 clock_settime reboot swapon acct quotactl open_by_handle_at name_to_handle_at fsopen move_mount open_tree pidfd_getfd
 kcmp syslog settimeofday fanotify_init
"""


async def check_dangerous_calls(opener: Opener, number_of: Callable[[str], int]) -> None:
    async with one_worker(opener) as (_, worker):
        numbers = {name: number_of(name) for name in DANGEROUS.split()}
        errors = (await call(worker, inside_system_calls, numbers)).value
        assert {name: error for name, error in errors.items() if error not in (errno.EPERM, errno.ENOSYS)} == {}
        special = {name: number_of(name) for name in ("clone", "ioctl", "socket", "personality")}
        errors = (await call(worker, inside_special_calls, special)).value
        assert {name: error for name, error in errors.items() if error not in (errno.EPERM, errno.ENOSYS)} == {}


# -- what is inside is not trusted


def inside_write_garbage(data: bytes) -> None:
    for descriptor in range(3, 100):
        with contextlib.suppress(OSError):
            os.write(descriptor, data)
    time.sleep(1000)


async def check_garbage_ends_the_worker(opener: Opener) -> None:
    garbage = {"a frame too large": b"\xff" * 64, "not a message": b"\0\0\0\3abc" * 20}
    async with one_worker(opener) as (zygote, other):
        for number, (what, data) in enumerate(garbage.items()):
            worker = await worker_of(zygote, f"garbage-{number}")
            await post(worker, inside_write_garbage, data)
            end = await end_of(worker)
            assert "broke the protocol" in end.reason, (what, end.reason)
        assert (await call(other, inside_double, 3)).value == 6
        await goes_on(zygote)


def inside_close_everything() -> None:
    os.closerange(3, 1000)
    time.sleep(1000)


async def check_closed_descriptors_end_the_worker(opener: Opener) -> None:
    async with one_worker(opener) as (zygote, worker):
        await post(worker, inside_close_everything)
        assert (await end_of(worker)).status == -signal.SIGKILL
        await goes_on(zygote)


def inside_signal_zygote() -> None:
    for number in range(1, 32):
        os.kill(1, number)


def inside_read_zygote() -> list[int]:
    """The error of reading the memory of process 1."""
    try:
        Path("/proc/1/mem").read_bytes()
    except OSError as error:
        return [error.errno or 0]
    return []


async def check_zygote_survives(opener: Opener) -> None:
    async with one_worker(opener) as (zygote, worker):
        await call(worker, inside_signal_zygote)
        await goes_on(zygote)


def inside_kernel_status() -> dict[str, str]:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: fields[name].strip() for name in ("CapAmb", "NoNewPrivs", "Seccomp")}


async def check_kernel_is_filtered(opener: Opener) -> None:
    async with one_worker(opener) as (_, worker):
        assert (await call(worker, inside_kernel_status)).value == {
            "CapAmb": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2",
        }  # fmt: skip
        assert (await call(worker, inside_read_zygote)).value in ([errno.EACCES], [errno.EPERM])


# Those of sandboxes whose code calls the host's own kernel, and whose first process that kernel protects.
KERNEL_CHECKS = [check_dangerous_calls, check_kernel_is_filtered, check_zygote_survives]
CHECKS = [
    value for name, value in sorted(globals().items()) if name.startswith("check_") and value not in KERNEL_CHECKS
]
