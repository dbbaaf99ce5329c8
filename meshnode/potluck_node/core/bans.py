"""Peers that failed, and for how long they are avoided. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# A peer that failed is avoided 2 s, then twice as long each time, at most 2 min.
BAN_FIRST_US, BAN_MAX_US = 2_000_000, 120_000_000


@dataclass(slots=True)
class _Ban:
    until_us: int = 0
    strikes: int = 0


class Bans:
    """A success wipes them out."""

    def __init__(self) -> None:
        self._bans: dict[str, _Ban] = {}

    def strike(self, peer: str, now_us: int, least_us: int = 0) -> int:
        """It failed; returns for how long it is avoided, `least_us` at the least."""
        ban = self._bans.setdefault(peer, _Ban())
        length = max(least_us, min(BAN_MAX_US, BAN_FIRST_US << min(ban.strikes, 10)))
        ban.strikes += 1
        ban.until_us = now_us + length
        return length

    def forgive(self, peer: str) -> None:
        """It did what it should."""
        self._bans.pop(peer, None)

    def left_us(self, peer: str, now_us: int) -> int:
        """How long it is still avoided."""
        ban = self._bans.get(peer)
        return max(0, ban.until_us - now_us) if ban else 0

    def strikes(self, peer: str) -> int:
        """How often it failed in a row."""
        ban = self._bans.get(peer)
        return ban.strikes if ban else 0
