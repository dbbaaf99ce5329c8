"""The network of build steps: a namespace of their own, from which what listens on this machine's loopback
cannot be reached, nor on the address that the namespace takes from it.

passt's `pasta` (https://passt.top) moves packets between it and the machine's network, without any right.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from potluck_images.errors import ImageBuildError
from potluck_node.builder_limits import LIMITS
from potluck_node.sandbox import entry
from potluck_node.sandbox.unprivileged import STAGE

# No way to the machine's loopback: no gateway that stands for it, no port in either direction.
_PASTA = ("pasta", "--quiet", "--config-net", "--no-map-gw", "-t", "none", "-u", "none", "-T", "none", "-U", "none")
# A node that is killed takes pasta with it, and that takes its step: bubblewrap dies with its parent.
_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
# Trying it takes a tenth of a second.
_TRY_TIMEOUT_S = 20.0

_TUN = Path("/dev/net/tun")
_RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
_INSTALL = "sudo apt install passt"


class StepNetwork:
    """`drop` is how a node that is root becomes an unprivileged user."""

    def __init__(self, drop: Sequence[str], for_others: bool) -> None:
        self._drop, self._for_others = drop, for_others
        self._why: str | None = None

    def before(self) -> tuple[list[str], list[tuple[Path, Path]]]:
        """What to put before a command that gets the network, and what to mount for it as root.

        Raises `ImageBuildError` when a step of a stranger would be in the machine's own network.
        """
        if self._why is None:
            self._why = self._why_not()
        if not self._why:
            return [*_WITH_PARENT, *_PASTA, "--"], self._mounts()
        if self._for_others:
            raise ImageBuildError(
                "This node cannot keep build steps of others away from its own services.",
                why=self._why,
                fix=f"On that node: {_INSTALL}. Or build on your own node.",
            )
        return [], []

    def resolver(self) -> Path | None:
        """The file that tells a step its name servers."""
        if self._why:
            return _RESOLVERS[0] if _RESOLVERS[0].exists() else None
        return next((path for path in _RESOLVERS if path.exists() and not _is_local(path)), None)

    def _why_not(self) -> str:
        """Why pasta does not do here, or ""."""
        if shutil.which("pasta") is None:
            return "pasta is not installed"
        for name in _PROXIES:
            if _is_loopback(urlsplit(os.environ.get(name, "")).hostname or ""):
                return f"the proxy in {name} is on this machine's loopback"
        if not self.resolver():
            return "the name server is on this machine's loopback"
        return self._try()

    def _try(self) -> str:
        try:
            command = [*entry.command(LIMITS, None, self._mounts(), self._drop), *_PASTA, "--", "true"]
            with tempfile.TemporaryFile("w+") as said:
                trial = subprocess.Popen(command, cwd="/", stdout=said, stderr=said, start_new_session=True)
                status = _ended(trial)
                said.seek(0)
                return f"pasta does not work: {said.read().strip()}" if status else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"pasta does not work: {error}"

    def _mounts(self) -> list[tuple[Path, Path]]:
        """In containers, the device of tunnels is often root's alone: a copy for everyone, seen by the step's pasta."""
        if not self._drop or not _TUN.exists() or _TUN.stat().st_mode & stat.S_IWOTH:
            return []
        place = STAGE / "tun"
        STAGE.mkdir(parents=True, exist_ok=True)
        STAGE.chmod(0o755)
        if not place.exists():
            os.mknod(place, stat.S_IFCHR | 0o600, _TUN.stat().st_rdev)
            place.chmod(0o666)
        return [(place, _TUN)]


def _ended(trial: subprocess.Popen[bytes]) -> int:
    """Its exit status. A pasta that fails can leave a child behind, which waits for ever: its group is killed."""
    try:
        return trial.wait(_TRY_TIMEOUT_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(trial.pid, signal.SIGKILL)
        trial.wait()


def _is_local(resolver: Path) -> bool:
    """Whether no name server is beyond the loopback."""
    lines = (line.split() for line in resolver.read_text(errors="replace").splitlines())
    servers = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return all(map(_is_loopback, servers))


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"
