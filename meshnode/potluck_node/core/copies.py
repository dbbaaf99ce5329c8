"""Which peers are to keep which volumes: enough of them, those first who have some of it already. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

# Who refused or failed is asked again after so long, microseconds; twice as long each time, up to an hour.
RETRY_US, RETRY_US_MAX = 10_000_000, 3_600_000_000
# Who keeps a copy forgets it this long after it was last asked to keep it, microseconds: the owner may be gone. Asked
# again far more often than that.
KEPT_FOR_US, CONFIRM_US = 30 * 24 * 3_600_000_000, 6 * 3_600_000_000


class Keep(NamedTuple):
    """Have a peer keep the newest version."""

    peer: str
    volume: str


class Drop(NamedTuple):
    """A peer need not keep it any more."""

    peer: str
    volume: str


@dataclass
class _Trouble:
    times: int = 0
    until_us: int = 0


@dataclass
class Copies:
    """`wanted` peers are to have the newest version of each volume."""

    wanted: int
    # Volume → peer → the version that it has.
    _have: dict[str, dict[str, int]] = field(default_factory=dict)
    _confirmed_us: dict[Keep, int] = field(default_factory=dict)
    _trouble: dict[Keep, _Trouble] = field(default_factory=dict)

    def kept(self, peer: str, volume: str, version: int, now_us: int) -> None:
        """The peer says that it has this version, whole."""
        self._have.setdefault(volume, {})[peer] = version
        self._confirmed_us[Keep(peer, volume)] = now_us
        self._trouble.pop(Keep(peer, volume), None)

    def heard(self, peer: str, have: Mapping[str, int], now_us: int) -> None:
        """The peer says all that it has."""
        for volume in self._have:
            self.dropped(peer, volume)
        for volume, version in have.items():
            self.kept(peer, volume, version, now_us)

    def failed(self, peer: str, volume: str, now_us: int) -> None:
        """It refused, or was lost meanwhile."""
        trouble = self._trouble.setdefault(Keep(peer, volume), _Trouble())
        trouble.until_us = now_us + min(RETRY_US << min(trouble.times, 16), RETRY_US_MAX)
        trouble.times += 1

    def dropped(self, peer: str, volume: str) -> None:
        self._have.get(volume, {}).pop(peer, None)

    def deleted(self, volumes: Collection[str]) -> list[Drop]:
        """These were deleted by their owner: who has them is told."""
        return [Drop(peer, volume) for volume in volumes for peer in self._have.pop(volume, {})]

    def sources(self, volume: str) -> list[str]:
        """Who may have it, the newest first."""
        have = self._have.get(volume, {})
        return sorted(have, key=lambda peer: -have[peer])

    def count(self, volume: str, version: int, up: Collection[str]) -> int:
        """How many peers that are up have this version."""
        return sum(have == version and peer in up for peer, have in self._have.get(volume, {}).items())

    def plan(self, volumes: Mapping[str, int], up: Sequence[str], now_us: int) -> list[Keep | Drop]:
        """What to ask of whom, given the newest version of each volume and the trusted peers that are up, the best
        first. Nobody is told to drop anything before enough others have it."""
        actions: list[Keep | Drop] = []
        for volume, version in volumes.items():
            have = self._have.get(volume, {})
            ranked = sorted(up, key=lambda peer: -have.get(peer, 0))
            able = [peer for peer in ranked if self._may_ask(Keep(peer, volume), now_us)]
            chosen = able[: self.wanted]
            actions += [Keep(peer, volume) for peer in chosen if self._is_due(peer, volume, version, now_us)]
            if sum(have.get(peer, 0) == version for peer in chosen) >= self.wanted:
                actions += [Drop(peer, volume) for peer in up if peer in have and peer not in chosen]
        return actions

    def _may_ask(self, keep: Keep, now_us: int) -> bool:
        trouble = self._trouble.get(keep)
        return trouble is None or trouble.until_us <= now_us

    def _is_due(self, peer: str, volume: str, version: int, now_us: int) -> bool:
        old = now_us - self._confirmed_us.get(Keep(peer, volume), 0) > CONFIRM_US
        return self._have.get(volume, {}).get(peer, 0) != version or old
