"""Looks at this machine as a node would, and says what it can do, what it cannot, and what would help.

`python -m potluck_node.doctor` prints the findings as JSON; `potluck doctor` shows them. Each look is a real trial
where there is one: what is merely installed may still not work.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import trio

from potluck import paths
from potluck.errors import Error, SandboxError
from potluck.wire.doctor import Finding
from potluck_images.lazy_support import why_not
from potluck_node.debian import KEYRING
from potluck_node.devices.local import LocalDevices
from potluck_node.gpu_claims import NAME, claims_in, common_folder
from potluck_node.sandbox import cgroups, overlay
from potluck_node.sandbox.detect import detect
from potluck_node.sandbox.unprivileged import DROP

# The store keeps a few images of some GiB; with less than this free, starts fail for want of room.
FREE_GIB_MIN = 10

# An image tree, a store and some hundred sockets are open at once.
OPEN_FILES_MIN = 4096

# landlock(7): number of the call, the same on every architecture, and the flag that asks for the version.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_VERSION = 444, 1


def look() -> list[Finding]:
    """Everything, in the order in which it matters."""
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _user, _sandboxes, _strict, _limits, _landlock, _gpus, _lazy, _roots, _builds, _network, _room
    )  # fmt: skip
    return [finding for each in looks for finding in each()]


def _user() -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Finding(
            "user",
            "weak",
            "The node would run as root.",
            "Sandboxes become another user first; the node itself needs no rights that root has.",
            "Run it as an ordinary user: su - <user> -c 'potluck up'",
        )
    else:
        yield Finding("user", "good", "The node runs as an ordinary user.")


def _drop() -> tuple[str, ...]:
    return DROP if os.geteuid() == 0 else ()


def _sandboxes() -> Iterator[Finding]:
    try:
        machine = detect(_drop())
    except SandboxError as error:
        yield Finding("sandbox bwrap", "missing", _words(error), "This node runs nobody's functions.", error.fix)
    else:
        yield Finding("sandbox bwrap", "good", f"bubblewrap {machine.version} makes namespaces and filters calls.")


def _strict() -> Iterator[Finding]:
    from potluck_node.sandbox.gvisor_detect import find

    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return
    try:
        found = find(_drop(), bwrap)
    except SandboxError as error:
        means = "Functions that ask for the strict sandbox go to other nodes."
        yield Finding("sandbox gvisor", "weak", _words(error), means, error.fix)
    else:
        yield Finding("sandbox gvisor", "good", f"{found} runs inside bubblewrap.")


def _limits() -> Iterator[Finding]:
    groups = cgroups.detect()
    lacking = [name for name in cgroups.CONTROLLERS if name not in groups.folders]
    fix = "systemd-run --user --scope -p Delegate=yes potluck up --foreground" if lacking else ""
    means = "Only your own functions run here, unless the setting without_limits says otherwise."
    yield Finding(
        "limits", "weak" if lacking else "good", f"{groups.describe()}.", means if groups.lacking() else "", fix
    )


def _landlock() -> Iterator[Finding]:
    version = ctypes.CDLL(None).syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    says = f"The kernel has Landlock, version {version}." if version > 0 else "The kernel has no Landlock."
    yield Finding("landlock", "good", says, "Sandboxes do not need it: they see no file of the host.")


def _gpus() -> Iterator[Finding]:
    inventory = trio.run(LocalDevices().inventory)
    for device in inventory.devices:
        says = f"{device.model}, {device.memory_mib} MiB, driver {device.driver or 'unknown'}"
        if device.fault:
            yield Finding("gpu", "missing", f"{says}: {device.fault}.", "It is not offered.")
        else:
            yield Finding("gpu", "good", f"{says}.")
    for text in inventory.findings:
        yield Finding("gpu", "good" if inventory.devices else "weak", text)
    if inventory.devices:
        yield from _shared_gpus({device.uuid: device.model for device in inventory.devices}, common_folder())


def _shared_gpus(models: Mapping[str, str], folder: Path | None) -> Iterator[Finding]:
    """What the nodes of this machine tell each other of its GPUs."""
    place = folder if folder and folder.is_dir() else folder and folder.parent
    if folder is None or not os.access(str(place), os.W_OK):
        means = "Of two that lend the same GPU, each takes the other's functions for programs of the owner."
        where = folder or Path("/run/lock") / NAME
        says = f"Nodes of this machine cannot tell each other which GPUs they use: {where} cannot be written."
        yield Finding("gpu", "weak", says, means, f"sudo install -d -m 1777 {where.parent} {where}")
        return
    for uuid, claims in claims_in(folder).items():
        for claim in claims if uuid in models else ():
            says = f"{models[uuid]} ({uuid}) is in use by the node with process {claim.pid} (user {claim.user})."
            yield Finding("gpu", "good", says, "Other nodes on this machine do not lend it meanwhile.")


def _lazy() -> Iterator[Finding]:
    missing = why_not()
    if missing:
        means = "Images are fetched whole before a function starts."
        yield Finding("lazy images", "weak", f"Images cannot be mounted: {missing}.", means, _command_in(missing))
    else:
        yield Finding("lazy images", "good", "Large images can be mounted, and are fetched as they are read.")


def _command_in(text: str) -> str:
    """The first command of a sentence such as "x is missing (apt install x; pip install y)"."""
    inside = text.partition("(")[2].rpartition(")")[0].split(";")[0].strip()
    return f"sudo {inside}" if inside.startswith("apt ") else inside


def _roots() -> Iterator[Finding]:
    trouble = overlay.trial(_home())
    if trouble:
        means = "Images with commands cannot be built here, and sandboxes write to /tmp alone."
        fix = "Use Linux 5.11 or newer, and a data folder on a file system such as ext4 or xfs."
        yield Finding("overlays", "weak", f"An overlay cannot be mounted: {trouble}.", means, fix)
    else:
        yield Finding("overlays", "good", "Build steps, and sandboxes, can write to a root of their own.")


def _builds() -> Iterator[Finding]:
    from potluck_images.pip_install import find_uv

    try:
        find_uv()
    except Error as error:
        yield Finding("builds", "missing", _words(error), "Images with packages cannot be built here.", error.fix)
    else:
        yield Finding("builds", "good", "uv installs Python packages.")
    if shutil.which("mmdebstrap") and KEYRING.exists():
        yield Finding("debian", "good", "mmdebstrap makes Debian bases.")
    else:
        fix = "sudo apt install mmdebstrap debian-archive-keyring"
        yield Finding("debian", "weak", "mmdebstrap is missing.", "Image.debian_slim() cannot be built here.", fix)


def _network() -> Iterator[Finding]:
    if shutil.which("pasta"):
        yield Finding("network", "good", "pasta gives build steps a network of their own.")
    else:
        means = "Build steps share this machine's network, and nothing can be built for others."
        yield Finding("network", "weak", "pasta is missing.", means, "sudo apt install passt")


def _home() -> Path:
    """The data folder, or the one in which it will be made."""
    home = paths.home()
    return next(folder for folder in (home, *home.parents) if folder.exists())


def _room() -> Iterator[Finding]:
    free_gib = shutil.disk_usage(_home()).free >> 30
    fix = "potluck config --help shows how to choose another folder (POTLUCK_HOME)." if free_gib < FREE_GIB_MIN else ""
    yield Finding("disk", "weak" if fix else "good", f"{free_gib} GiB are free in {paths.home()}.", fix=fix)
    yield from _open_files()
    if importlib.util.find_spec("textual") is None:
        means = "`potluck tui` cannot show the node."
        yield Finding("terminal", "weak", "textual is missing.", means, "pip install 'potluck[tui]'")


def _open_files() -> Iterator[Finding]:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES_MIN:
        says = f"A process may open {hard} files; nodes with many peers need {OPEN_FILES_MIN}."
        yield Finding(
            "open files", "weak", says, fix="echo '* hard nofile 65536' | sudo tee /etc/security/limits.d/90.conf"
        )


def _words(error: Error) -> str:
    return f"{error.what} {error.why}".strip()


def main() -> None:
    """Print the findings as JSON."""
    sys.stdout.write(msgspec.json.encode(look()).decode() + "\n")


if __name__ == "__main__":
    main()
