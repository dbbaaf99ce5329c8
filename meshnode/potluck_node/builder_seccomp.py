"""A system call filter under which everyone seems to be root of many users.

Package managers give files to users, make device nodes and become other users. In a user namespace with one user that
fails, and images keep neither owners nor devices: so these calls do nothing and report success. The way Charliecloud
does it (https://hpc.github.io/charliecloud/ch-image.html#privilege-model, "root emulation with seccomp").
"""

from __future__ import annotations

import functools
import os
import stat
from typing import Any

from potluck_node.sandbox import seccomp

_FAKED = """
 chown fchown lchown fchownat setuid setgid setgroups setreuid setregid setresuid setresgid setfsuid setfsgid capset
"""
# Calls that make device nodes, and which argument says that they do.
_NODES = (("mknod", 1), ("mknodat", 2))


@functools.cache
def fake_root() -> bytes:
    """The compiled filter; allows everything else. Raises `SandboxError` when libseccomp is missing."""
    seccomp.programs()
    import pyseccomp

    return _program(pyseccomp)


def _program(lib: Any) -> bytes:
    rules = lib.SyscallFilter(lib.ALLOW)
    for name in _FAKED.split():
        rules.add_rule(lib.ERRNO(0), name)
    for name, position in _NODES:
        for kind in (stat.S_IFCHR, stat.S_IFBLK):
            rules.add_rule(lib.ERRNO(0), name, lib.Arg(position, lib.MASKED_EQ, 0o170000, kind))
    with os.fdopen(os.memfd_create("seccomp"), "w+b") as file:
        rules.export_bpf(file)
        file.seek(0)
        program: bytes = file.read()
    return program
