"""A minimal Debian, made by mmdebstrap as root of a user namespace of its own.

mmdebstrap fetches and checks Debian's signed packages with the host's apt and runs their install scripts in a chroot.
It sees the host's files read-only, without homes; it writes into one folder.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from potluck_images.errors import ImageBuildError
from potluck_images.process import Ended

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_INSTALL = "sudo apt install mmdebstrap debian-archive-keyring"

# As Docker's "slim" images: nobody reads manuals in a sandbox. The image keeps these settings for later packages.
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")

_CAPABILITIES = ("--uid", "0", "--gid", "0", "--cap-add", "ALL")
_PASSED_ON = ("PATH", "http_proxy", "https_proxy", "no_proxy")


def command(bwrap: str, suite: str, packages: tuple[str, ...], folder: Path, scratch: Path, seccomp: int) -> list[str]:
    """What to run as a user without rights. Raises `ImageBuildError` when something is not installed."""
    if shutil.which("mmdebstrap") is None or not KEYRING.exists():
        raise ImageBuildError(
            "debian_slim() needs mmdebstrap and Debian's keys, which are not installed here.", fix=_INSTALL
        )
    return [*_sandbox(bwrap, folder, scratch, seccomp), "--", "mmdebstrap", *_options(packages), suite, "/mnt/debian"]


def _sandbox(bwrap: str, folder: Path, scratch: Path, seccomp: int) -> list[str]:
    words = [bwrap, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
    words += ["--new-session", *_CAPABILITIES, "--ro-bind", "/", "/", "--tmpfs", "/root", "--tmpfs", "/home"]
    words += ["--tmpfs", "/mnt", "--bind", str(folder), "/mnt/debian", "--bind", str(scratch), "/tmp"]
    words += ["--proc", "/proc", "--dev", "/dev", "--add-seccomp-fd", str(seccomp), "--clearenv"]
    for name in _PASSED_ON:
        if name in os.environ:
            words += ["--setenv", name, os.environ[name]]
    return [*words, "--setenv", "SOURCE_DATE_EPOCH", "315532800", "--setenv", "TMPDIR", "/tmp"]


def _options(packages: tuple[str, ...]) -> list[str]:
    words = ["--mode=root", "--variant=minbase", f"--include={','.join(packages)}", f"--keyring={KEYRING}"]
    # A namespace with one user can mount neither devpts nor sysfs; /dev is lent by the sandbox.
    words += ["--skip=chroot/mount/dev,chroot/mount/sys,output/dev", '--extract-hook=mount --rbind /dev "$1/dev"']
    # Nobody needs the files to survive a crash: waiting for the disk takes half of the time.
    words.append("--dpkgopt=force-unsafe-io")
    words += ['--customize-hook=umount --lazy "$1/dev"', '--aptopt=APT::Sandbox::User "root"']
    return words + [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]


def check(ended: Ended) -> None:
    """Raises `ImageBuildError` when mmdebstrap failed."""
    if ended.status:
        raise ImageBuildError(
            "mmdebstrap could not make a Debian.",
            why="\n".join(ended.lines),
            fix="Check that this machine reaches a Debian mirror (`apt-get update`).",
        )
