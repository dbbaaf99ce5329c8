"""Chunk sync: decides which chunks to ask from whom. Sans-IO: events in, actions out, no clock of its own.

The rules: a chunk is asked from one peer at a time; a peer that answers quickly gets a wider window; chunks that some
peer lacks are asked first from those that may have them; a peer that lies is dropped for good, one that dies or falls
silent until it joins again; at the end, idle peers take over what slow ones still owe.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from potluck_images.chunk import Chunk, check_frame
from potluck_images.errors import CorruptDataError

# Chunks asked from one peer and not answered yet. The wire takes 256 in one message; at 64 KiB each these fill a link
# of 1 Gbit/s and 100 ms. A new peer starts narrow, so that one that is slow or lacks everything holds up little.
WINDOW_START = 4
WINDOW_MAX = 256

# A peer that owes chunks and has sent none for this long is as good as gone.
SILENCE_US_MAX = 10_000_000

# Once nothing is left to ask, an idle peer takes over chunks that another has owed for this long.
TAKE_OVER_AFTER_US = 2_000_000

# A peer that lacked chunks and owes nothing is asked for them again after this long, while others still send: it may be
# fetching the same image, and be further by now.
LACKS_FOR_US = 1_000_000

# The log of rare chunks is made anew when it is so many times as long as it need be.
_LOG_FACTOR, _LOG_MIN = 4, 1024

# So many chunks in a row stay together when a pull's order is its own: about a mebibyte, which a disk reads at once.
RUN = 16


@dataclass(frozen=True, slots=True)
class PeerJoined:
    peer: str


@dataclass(frozen=True, slots=True)
class Received:
    peer: str
    digest: bytes
    frame: bytes


@dataclass(frozen=True, slots=True)
class Missing:
    """The peer says that it lacks the chunk."""

    peer: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class PeerFailed:
    """The connection is gone."""

    peer: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Any monotonic clock, in microseconds; about once a second."""

    now_us: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """More chunks are wanted; `urgent` ones, which somebody waits for, are asked before all others."""

    digests: tuple[bytes, ...]
    urgent: bool = False


Event = PeerJoined | Received | Missing | PeerFailed | Tick | Wanted


@dataclass(frozen=True, slots=True)
class Ask:
    peer: str
    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Store:
    """Keep this verified chunk, with `put_chunk`."""

    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connection to the peer; it is not asked again unless it joins again after mere silence."""

    peer: str
    why: str


@dataclass(frozen=True, slots=True)
class Done:
    """Every wanted chunk has been received."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """No peer is left that may have these; a peer that joins sets things going again."""

    missing: tuple[bytes, ...]


Action = Ask | Store | Drop | Done | Stuck


@dataclass
class _Peer:
    window: int = WINDOW_START
    heard_us: int = 0
    # Chunks asked and not answered, with the time of asking; and those that another has taken over meanwhile.
    owes: dict[bytes, int] = field(default_factory=dict)
    late: set[bytes] = field(default_factory=set)
    lacks: set[bytes] = field(default_factory=set)
    # How far of the log of rare chunks has been looked at for this peer.
    looked: int = 0

    def room(self) -> int:
        return self.window - len(self.owes) - len(self.late)

    def may_have(self, digest: bytes) -> bool:
        """Whether it makes sense to ask: it neither lacks the chunk nor has been asked already."""
        return digest not in self.lacks and digest not in self.late

    def silent_since(self) -> float:
        return self.heard_us if self.owes or self.late else math.inf


def scattered(digests: Iterable[bytes], salt: bytes) -> list[bytes]:
    """In an order of the salt's own, but for runs: so that nodes which begin at once soon have different parts to give
    to each other, and each does not ask the first one for all of it. (Legout, Urvoy-Keller and Michiardi, "Rarest first
    and choke algorithms are enough", 2006: diversity is what matters.)"""
    whole = list(digests)
    runs = [whole[start : start + RUN] for start in range(0, len(whole), RUN)]
    runs.sort(key=lambda run: hashlib.blake2b(run[0], key=salt[:64], digest_size=8).digest())
    return [digest for run in runs for digest in run]


class ChunkSync:
    """At most `window_max` chunks are asked of one peer and not answered. `want` and `handle` return what to do
    now. `Done` or `Stuck` is said once each time it comes true."""

    def __init__(self, window_max: int = WINDOW_MAX) -> None:
        self._window_max = window_max
        # Time since the first tick.
        self._now_us = 0
        self._first_tick_us: int | None = None
        self._peers: dict[str, _Peer] = {}
        self._liars: set[str] = set()
        # A wanted chunk is fresh (nobody is known to lack it), rare, or owed by a peer. Dicts keep the order.
        self._fresh: dict[bytes, None] = {}
        self._rare: dict[bytes, None] = {}
        # Each chunk whenever it becomes rare: a peer looks at an entry once, so that peers which lack much cost little.
        self._log: list[bytes] = []
        self._owed: dict[bytes, str] = {}
        self._ended: type[Action] | None = None

    def want(self, digests: Iterable[bytes], urgent: bool = False) -> list[Action]:
        """Ask for more chunks: those that the store lacks; `urgent` ones before all others."""
        wanted = {digest: None for digest in digests if digest not in self._rare and digest not in self._owed}
        self._fresh = wanted | self._fresh if urgent else self._fresh | wanted
        self._ended = None
        return self._next()

    def handle(self, event: Event) -> list[Action]:
        match event:
            case PeerJoined(peer):
                actions = self._join(peer)
            case Received(peer, digest, frame):
                actions = self._receive(peer, digest, frame)
            case Missing(peer, digest):
                actions = self._lacks(peer, digest)
            case PeerFailed(peer):
                actions = self._lose(peer)
            case Tick(now_us):
                actions = self._tick(now_us)
            case Wanted(digests, urgent):
                actions = self.want(digests, urgent)
        return actions + self._next()

    def _join(self, name: str) -> list[Action]:
        if name in self._liars:
            return [Drop(name, "it has sent false chunks before")]
        actions = self._lose(name)
        self._peers[name] = _Peer(heard_us=self._now_us)
        self._ended = Done if self._ended is Done else None
        return actions

    def _receive(self, name: str, digest: bytes, frame: bytes) -> list[Action]:
        peer = self._peers.get(name)
        if peer is None:
            return []
        if digest not in peer.owes and digest not in peer.late:
            return self._expose(name, "it sent a chunk that was not asked for")
        try:
            chunk = check_frame(frame)
        except CorruptDataError as error:
            return self._expose(name, error.what)
        if chunk.digest != digest:
            return self._expose(name, "it sent other bytes than those it was asked for")
        peer.heard_us = self._now_us
        peer.window = min(peer.window + 1, self._window_max)
        return self._accept(peer, chunk)

    def _accept(self, peer: _Peer, chunk: Chunk) -> list[Action]:
        peer.late.discard(chunk.digest)
        if not any(chunk.digest in place for place in (self._owed, self._fresh, self._rare)):
            return []
        self._fresh.pop(chunk.digest, None)
        self._rare.pop(chunk.digest, None)
        owner = self._owed.pop(chunk.digest, None)
        if owner is not None:
            self._peers[owner].owes.pop(chunk.digest)
            if self._peers[owner] is not peer:
                self._peers[owner].late.add(chunk.digest)
        return [Store(chunk)]

    def _lacks(self, name: str, digest: bytes) -> list[Action]:
        peer = self._peers.get(name)
        if peer is None:
            return []
        if digest not in peer.owes and digest not in peer.late:
            return self._expose(name, "it answered what was not asked")
        peer.heard_us = self._now_us
        peer.window = WINDOW_START
        peer.lacks.add(digest)
        peer.late.discard(digest)
        if peer.owes.pop(digest, None) is not None:
            del self._owed[digest]
            self._is_rare(digest)
        return []

    def _is_rare(self, digest: bytes) -> None:
        self._rare[digest] = None
        self._log.append(digest)
        if len(self._log) > _LOG_MIN + _LOG_FACTOR * len(self._rare):
            self._log = list(self._rare)
            for peer in self._peers.values():
                peer.looked = 0

    def _expose(self, name: str, why: str) -> list[Action]:
        self._liars.add(name)
        self._lose(name)
        return [Drop(name, why)]

    def _lose(self, name: str) -> list[Action]:
        peer = self._peers.pop(name, None)
        for digest in peer.owes if peer else ():
            del self._owed[digest]
            self._is_rare(digest)
        return []

    def _tick(self, now_us: int) -> list[Action]:
        if self._first_tick_us is None:
            self._first_tick_us = now_us
        self._now_us = max(self._now_us, now_us - self._first_tick_us)
        silent = [name for name, peer in self._peers.items() if self._now_us - peer.silent_since() > SILENCE_US_MAX]
        for name in silent:
            self._lose(name)
        if self._owed:
            self._ask_again()
        return [Drop(name, f"it sent nothing for {SILENCE_US_MAX // 1_000_000} s") for name in silent]

    def _ask_again(self) -> None:
        for peer in self._peers.values():
            if not peer.owes and peer.lacks and self._now_us - peer.heard_us > LACKS_FOR_US:
                peer.lacks.clear()
                peer.looked = 0

    def _next(self) -> list[Action]:
        """Fill the windows, then see whether this is the end."""
        actions: list[Action] = []
        for name, peer in self._peers.items():
            if chosen := self._choose(peer):
                self._assign(name, peer, chosen)
                actions.append(Ask(name, tuple(chosen)))
        return actions + self._end()

    def _choose(self, peer: _Peer) -> list[bytes]:
        room = peer.room()
        if room <= 0:
            return []
        chosen = self._choose_rare(peer, room)
        for digest in self._fresh:
            if len(chosen) >= room:
                break
            chosen.append(digest)
        if not chosen and not peer.owes:
            chosen = self._choose_overdue(peer, room)
        return chosen

    def _choose_rare(self, peer: _Peer, room: int) -> list[bytes]:
        chosen: dict[bytes, None] = {}
        while peer.looked < len(self._log) and len(chosen) < room:
            digest = self._log[peer.looked]
            peer.looked += 1
            if digest in self._rare and peer.may_have(digest):
                chosen[digest] = None
        return list(chosen)

    def _choose_overdue(self, peer: _Peer, room: int) -> list[bytes]:
        overdue = [
            digest
            for digest, owner in self._owed.items()
            if peer.may_have(digest) and self._now_us - self._peers[owner].owes[digest] > TAKE_OVER_AFTER_US
        ]
        return overdue[:room]

    def _assign(self, name: str, peer: _Peer, chosen: list[bytes]) -> None:
        if not peer.owes and not peer.late:
            peer.heard_us = self._now_us
        for digest in chosen:
            self._fresh.pop(digest, None)
            self._rare.pop(digest, None)
            if owner := self._owed.pop(digest, None):
                self._peers[owner].owes.pop(digest)
                self._peers[owner].late.add(digest)
            self._owed[digest] = name
            peer.owes[digest] = self._now_us

    def _end(self) -> list[Action]:
        if self._owed or any(digest in self._rare for peer in self._peers.values() for digest in peer.late):
            return []
        missing = (*self._rare, *self._fresh)
        before, self._ended = self._ended, Stuck if missing else Done
        if self._ended is before:
            return []
        return [Stuck(missing)] if missing else [Done()]
