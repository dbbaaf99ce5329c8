"""Every hostile program: what must come of it, and the one protection without which it gets through."""

from __future__ import annotations

import errno
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.hostile import weakened as weak
from tests.hostile.decoys import NOTE, Decoys
from tests.hostile.harness import LIMITS, Case, came_back, either, ended, lived, raised, returned

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.wire.worker import WorkerLog
from potluck_node.sandbox import worker as worker_module

FILTERED = {errno.EPERM, errno.ENOSYS}

OUT_OF_MEMORY = ended("out of memory: limit")
# A namespace or the kernel's rules on users refuse it.
REFUSED = returned(lambda errors: 0 not in (errors.values() if isinstance(errors, dict) else (errors,)))
# The filter of system calls answers, and the kernel never learns of it.
UNHEARD = returned(lambda errors: set(errors.values() if isinstance(errors, dict) else (errors,)) <= FILTERED)
NOTHING = returned(lambda found: not found)
BROKE_THE_PROTOCOL = ended("broke the protocol")


def unheard(*calls: str) -> Case:
    """In gVisor the sandbox's own kernel answers, as it likes: the decoys and the bystander tell the rest."""
    return Case(UNHEARD, weak.allowing(*calls), gvisor=either(came_back, ended("signal")))


def bomb(most: int, **loosened: int) -> Case:
    return Case(
        returned(lambda count: 0 <= count <= most),
        weak.loosened(**loosened),
        gvisor=either(returned(lambda count: count <= most), ended("")),
    )


def memory_bomb(hidden: bool = False) -> Case:
    """Where no control group counts memory, the calls that hide it do not exist."""
    contained = either(OUT_OF_MEMORY, raised("[Errno 38]"), raised("[Errno 1]")) if hidden else OUT_OF_MEMORY
    weakness = replace(weak.loosened(memory_mib=512), needs="memory" if hidden else "")
    return Case(contained, weakness, reached=returned(lambda mib: mib == 340))


def shown(target: Callable[[Decoys], dict[str, Any]] = lambda decoys: {}, contained: Any = NOTHING) -> Case:
    return Case(contained, weak.shown(), target=target)


RESOURCES = {
    "fork_bomb": bomb(60, pids=200),
    "thread_bomb": bomb(60, pids=200),
    "memory_bomb": memory_bomb(),
    "memfd_bomb": memory_bomb(hidden=True),
    "shared_memory_bomb": memory_bomb(hidden=True),
    "inode_bomb": Case(
        either(OUT_OF_MEMORY, returned(lambda made: made < 0)),
        weak.loosened(memory_mib=512),
        limits={"memory_mib": 96},
        needs="memory",
    ),
    "scratch_bomb": Case(
        returned(lambda mib: mib["/tmp"] <= 32 and sum(mib.values()) <= 64), weak.loosened(scratch_mib=64)
    ),
    "large_file": Case(
        returned(lambda errors: set(errors.values()) <= {errno.EFBIG, *FILTERED}),
        weak.loosened(file_mib=100),
        target=lambda decoys: {"mib": 64},
        limits={"file_mib": 32},
    ),
    "descriptor_hoard": Case(
        returned(lambda counts: counts["open"] <= 256 and counts["in flight"] <= 512),
        weak.loosened(open_files=1024),
        gvisor=returned(lambda counts: counts["open"] <= 256),  # in flight is memory of its own kernel
    ),
    "limit_raise": Case(REFUSED, weak.soft_limits()),
    "oom_evasion": Case(
        REFUSED,
        "Only a right over the host's user namespace lowers the score, and no sandbox can have one.",
        gvisor=came_back,
    ),
    "eternal": Case(
        lived, "The node's kill is the protection: until it comes, the program runs, which is checked.", endless=True
    ),
}

_TMP = ["--size", str(LIMITS.tmp_mib << 20), "--perms", "1777", "--tmpfs", "/tmp"]
OTHERS = {
    "kill_everybody": Case(
        returned(lambda processes: 1 in processes),
        weak.changed("being process 1", ["--as-pid-1"], lambda decoys: []),
        gvisor=either(came_back, ended("")),
        reached=ended("its sandbox ended"),
    ),
    "signal_host": Case(REFUSED, weak.sharing("pid"), target=lambda decoys: {"pid": decoys.victim.pid}),
    "process_search": Case(
        returned(lambda seen: seen["found"] == [] and seen["highest"] < 200),
        weak.changed("a /proc of its own", ["--proc", "/proc"], lambda decoys: ["--bind", "/proc", "/proc"]),
        target=lambda decoys: {"token": decoys.token},
    ),
    "zygote_robbery": Case(REFUSED, weak.readable_zygote(), gvisor=came_back),
    "neighbours_scratch": Case(
        NOTHING,
        weak.changed(
            "a /tmp of its own",
            _TMP,
            lambda decoys: ["--bind", str(decoys.writable), "/tmp"],
        ),
        target=lambda decoys: {"name": NOTE},
    ),
    "host_shared_memory": Case(
        REFUSED, replace(weak.sharing("ipc"), needs="memory"), target=lambda decoys: {"key": decoys.shm_key}
    ),
}

FILES = {
    "read_home": shown(lambda decoys: {"token": decoys.token}),
    "read_keys": shown(lambda decoys: {"paths": [str(decoys.home / "node.key"), "/home/node.key"]}),
    "host_sockets": shown(
        lambda decoys: {
            "paths": [f"{folder}/{name}.sock" for folder in (decoys.home, "/home") for name in ("docker", "control")]
        },
        REFUSED,
    ),
    "host_search": Case(
        returned(lambda seen: seen == {"found": [], "abstract sockets": 0}),
        weak.shown(),
        gvisor=returned(lambda seen: set(seen["found"]) <= {"/sys/class"}),  # of its own kernel
    ),
    # bubblewrap's mount table names the image's folder (docs/security.md); nothing else of the host may be in it.
    "mount_table": shown(contained=returned(lambda table: "potluck-decoys-" not in table)),
    "image_write": Case(REFUSED, weak.writable_root()),
    "link_tricks": Case(REFUSED, weak.writable_root()),
    "device_search": Case(
        NOTHING,
        weak.changed(
            "devices that everybody has",
            ["--dev", "/dev"],
            lambda decoys: ["--dev", "/dev", "--dev-bind", "/dev/full", "/dev/mem"],
        ),
        gvisor=returned(lambda found: set(found) <= {"fuse", "net"}),  # of its own kernel
    ),
    "device_nodes": Case(REFUSED, "The kernel makes devices for nobody but root of the host's user namespace."),
    "proc_writes": Case(
        REFUSED, "Its files belong to the host's root, are read-only and are none of the code's: three layers."
    ),
    "sys_writes": Case(
        REFUSED,
        weak.changed(
            "an empty /sys",
            ["--proc", "/proc"],
            lambda decoys: ["--proc", "/proc", "--bind", str(decoys.writable), "/sys"],
        ),
    ),
    "set_user_id": Case(
        returned(lambda users: set(users) <= {1000}),
        "Mounts are nosuid, new rights are forbidden, owners unknown: three layers.",
    ),
}

KERNEL = {
    "ptrace": unheard("ptrace"),
    "process_memory": unheard("process_vm_readv"),
    "mount_calls": unheard("mount"),
    "mount_files": unheard("open_tree"),
    "namespace_escape": unheard("unshare"),
    "keyrings": unheard("keyctl"),
    "io_uring": unheard("io_uring_setup"),
    "bpf": unheard("bpf"),
    "perf_events": unheard("perf_event_open"),
    "userfaultfd": unheard("userfaultfd"),
    "file_handles": unheard("name_to_handle_at"),
    "kernel_admin": unheard("quotactl"),
    "clock": unheard("clock_settime"),
    "become_root": Case(
        returned(lambda errors: errors.pop("capabilities") == 0 and 0 not in errors.values()),
        weak.changed("no capabilities", ["--new-session"], lambda decoys: ["--new-session", "--cap-add", "CAP_SETUID"]),
        reached=returned(lambda errors: errors["capabilities"] != 0),
    ),
    "hostname": Case(REFUSED, "The filter, missing rights and a name of its own: three layers.", gvisor=came_back),
    "terminal": Case(
        returned(lambda errors: errors["type"] == errors["paste"] == errno.EPERM and errors["controlling"]),
        weak.without_exceptions(),
        gvisor=came_back,
    ),
    "raw_sockets": Case(REFUSED, weak.allowing_family(16), gvisor=came_back),
    "vsock": Case(UNHEARD, weak.allowing_family(40), gvisor=REFUSED),
    "personality": Case(UNHEARD, weak.allowing_personality(0x40000), gvisor=came_back),
    "other_abi": Case(
        ended("signal 31"), weak.without_abi_check(), gvisor=either(came_back, ended("signal")), reached=came_back
    ),
}

NETWORK = {
    "network_search": Case(
        returned(lambda got: not any(got.values())),
        weak.aimed(weak.sharing("net"), lambda decoys: {"peers": [("127.0.0.1", decoys.port)]}),
    ),
    "loopback_scan": Case(NOTHING, weak.sharing("net"), target=lambda decoys: {"port": decoys.port}),
    "abstract_sockets": Case(REFUSED, weak.sharing("net"), target=lambda decoys: {"name": decoys.abstract}),
}


def _trusting(body: bytes, kind: Any) -> Any:
    try:
        return wire.decode(body, kind)
    except RemoteProtocolError:
        return WorkerLog(1, 1, b"")


def unchecked_message() -> Case:
    unchecking = types.SimpleNamespace(**{**vars(wire), "decode": _trusting})
    weakness = weak.unchecked("the check of messages", worker_module, "wire", unchecking)
    return Case(BROKE_THE_PROTOCOL, weakness, reached=lived, endless=True)


PROTOCOL = {
    "protocol_forgery": Case(
        BROKE_THE_PROTOCOL,
        weak.unchecked("the limit of a frame", worker_module, "FRAME_BYTES_MAX", 1 << 40),
        reached=lived,
        endless=True,
    ),
    "half_frame": Case(lived, "The node waits, and kills it when its time is over; both are checked.", endless=True),
    "nested_message": unchecked_message(),
    "huge_announcement": unchecked_message(),
    "forged_log": Case(
        BROKE_THE_PROTOCOL,
        weak.unchecked("the check of logs", worker_module, "_check", lambda message: None),
        reached=lived,
        endless=True,
    ),
    "hostile_result": Case(
        ended("exit 66"), "It runs where it was made; `test_results` shows that it would run elsewhere."
    ),
    "pickle_bomb": Case(lambda outcome: not isinstance(outcome, Exception), "As above."),
}

CASES: dict[str, Case] = RESOURCES | OTHERS | FILES | KERNEL | NETWORK | PROTOCOL
