"""Which GPUs the nodes of this machine use: of two that lend the same one, the later lets the earlier have it.

Without that each would take the other's workers for programs of the owner, and give way. Blocking, below a
millisecond.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from potluck_node import common_files
from potluck_node.common_files import Told

log = logging.getLogger("potluck.gpus")

# Where every user may make files, on all common distributions, and nothing tidies up: the first that there is.
PLACES = ("run/lock", "dev/shm")
NAME = "potluck-gpus"
# 64 GPUs with their times are 4 KiB.
FILE_BYTES_MAX = 8 << 10
# A stranger's claim counts for so long though nothing of theirs runs on the GPU: as long as a large model may take to
# start there. Then it may be made up, to keep others' GPUs idle.
UNUSED_S = 600.0

_STICKY = 0o1007


@dataclass(frozen=True)
class Claim:
    """The node with this process and user has the GPU since then (Unix microseconds)."""

    name: str
    pid: int
    user: int
    since_us: int


def common_folder(root: Path = Path("/")) -> Path | None:
    """The same for all users of the machine; None where there is no place for one."""
    for place in PLACES:
        with suppress(OSError):
            if (root / place).stat().st_mode & _STICKY == _STICKY:
                return root / place / NAME
    return None


class GpuClaims:
    """What this node tells the others, and hears. `broken` says why it cannot."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._own = folder, -1
        self._name = f"{os.getuid()}-{secrets.token_hex(4)}"
        self._since_us: dict[str, int] = {}
        self._tried = False
        self.broken = "" if folder else "there is no folder that all users may write to"

    async def open(self) -> None:
        """From now on; once."""
        if self._folder is None or self._tried:
            return
        self._tried = True
        try:
            self._own = await common_files.open_own(self._folder, self._name)
            common_files.tidy(self._folder)
        except OSError as error:
            self.broken = f"{self._folder}: {error.strerror or error}"
            log.warning("other nodes on this machine are not told which GPUs are used here: %s", self.broken)

    def tell(self, uuids: Collection[str], now_us: int) -> None:
        """These are in use by us now."""
        if self._own < 0 or self._since_us.keys() == set(uuids):
            return
        self._since_us = {uuid: self._since_us.get(uuid, now_us) for uuid in sorted(uuids)}
        words = [str(os.getpid()), *(f"{uuid}={since_us}" for uuid, since_us in self._since_us.items())]
        text = " ".join(words).encode()[:FILE_BYTES_MAX].ljust(FILE_BYTES_MAX)
        with suppress(OSError):  # no room: then they are not told
            os.pwrite(self._own, text, 0)

    def others(self) -> dict[str, list[Claim]]:
        """By uuid, those of others that live, the earliest first."""
        return claims_in(self._folder, self._name) if self._folder and self._own >= 0 else {}

    def is_ours(self, uuid: str, other: Claim) -> bool:
        """Whether we had it before."""
        since_us = self._since_us.get(uuid)
        return since_us is not None and (since_us, self._name) < (other.since_us, other.name)

    def close(self) -> None:
        if self._own >= 0 and self._folder:
            (self._folder / self._name).unlink(missing_ok=True)
            os.close(self._own)
            self._own = -1


def claims_in(folder: Path, own: str = "", proc: Path = Path("/proc")) -> dict[str, list[Claim]]:
    """What the nodes tell that have a file there; what cannot be so is passed over."""
    found: dict[str, list[Claim]] = {}
    with suppress(OSError):
        for told in common_files.living(folder, own, FILE_BYTES_MAX):
            for uuid, claim in _read(told, proc):
                found.setdefault(uuid, []).append(claim)
    return {uuid: sorted(claims, key=lambda each: (each.since_us, each.name)) for uuid, claims in found.items()}


def _read(told: Told, proc: Path) -> Iterator[tuple[str, Claim]]:
    with suppress(OSError, ValueError):
        pid, *words = told.text.decode("ascii").split()
        # Who names a process of somebody else would have its programs pass for a node's workers.
        if (proc / str(int(pid))).stat().st_uid != told.user:
            return
        for word in words:
            uuid, _, since_us = word.rpartition("=")
            yield uuid, Claim(told.name, int(pid), told.user, int(since_us))


class Believed:
    """Which claims count: those of this user and of root do; a stranger's for as long as its programs are on the GPU,
    or for `UNUSED_S`."""

    def __init__(self, user: int) -> None:
        self._user = user
        self._unused_us: dict[tuple[str, str], int] = {}

    def of(
        self, claims: Mapping[str, list[Claim]], used: Mapping[str, Collection[int]], now_us: int
    ) -> dict[str, list[Claim]]:
        """`used` are, by uuid, the nodes (their pids) of which something runs there."""
        unused = {
            (claim.name, uuid)
            for uuid, each in claims.items()
            for claim in each
            if claim.user not in (self._user, 0) and claim.pid not in used.get(uuid, ())
        }
        self._unused_us = {key: self._unused_us.get(key, now_us) for key in unused}
        late_us = now_us - round(UNUSED_S * 1e6)
        return {
            uuid: [claim for claim in each if self._unused_us.get((claim.name, uuid), now_us) > late_us]
            for uuid, each in claims.items()
        }
