"""Offers as gossip: each reaches everybody who is there, some milliseconds later, once, twice or never.

Messages are not handed from neighbour to neighbour: how long that takes is reckoned from the mesh's size (gossipsub's
eager push to six neighbours). And nobody listens who has no use for offers: a node that places a call catches up with
what it would have heard, and listens until the call is over. So a thousand nodes cost what the calling ones among them
do.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from potluck.wire.offer import Offer
from potluck_ledger.keys import PrivateKey
from potluck_node.core.offers import read_offer, sign_offer

# Neighbours of a node in gossipsub's mesh, and what one hop more costs: half of a mean round trip, and the check.
DEGREE, HOP_US = 6, 60_000
# By then a word has arrived wherever it does.
ARRIVED_US = 3_000_000
# Of a node, so many of the last words are kept for those who listen later: the last may have been lost to them.
WORDS_KEPT = 3


class Voice(Protocol):
    """Who tells or listens. `born_us` is when its present life began; `number` is its own."""

    name: str
    peer: str
    number: int
    born_us: int


@dataclass(eq=False, slots=True)
class Word:
    """An offer that was told. It is signed and read once, for all; unsigned where `key` is None."""

    number: int
    at_us: int
    voice: Voice
    offer: Offer
    key: PrivateKey | None
    is_read: bool = False

    def read(self) -> Offer:
        if self.key and not self.is_read:
            self.offer, self.is_read = read_offer(sign_offer(self.key, self.offer)), True
        return self.offer


class Paths(Protocol):
    """The network, as far as it matters here."""

    @property
    def whole(self) -> bool:
        """Whether nothing was cut for as long as an offer lives."""
        ...

    def base_us(self, one: str, other: str) -> int:
        """One way, without jitter."""
        ...

    def blocked(self, one: str, other: str, at_us: int) -> int:
        """Until when nothing passes from one to the other; 0 when it does."""
        ...


@dataclass(eq=False)
class Ear:
    """What one node has not yet heard of what was told: with its time of arrival."""

    voice: Voice
    coming: list[tuple[int, Word]] = field(default_factory=list)

    def take(self, now_us: int) -> list[Word]:
        """What has arrived, in the order of arrival."""
        come = sorted((each for each in self.coming if each[0] <= now_us), key=lambda each: (each[0], each[1].number))
        if come:
            self.coming = [each for each in self.coming if each[0] > now_us]
        return [word for _, word in come]


class Gossip:
    """`lost_milli` and `doubled_milli` are of what each node hears. A word's fate depends on the seed and on who
    listens, not on who else does: so that a node that catches up hears what it would have heard."""

    def __init__(self, seed: int, paths: Paths, lost_milli: int, doubled_milli: int, *, signed: bool = True) -> None:
        self._seed, self._paths, self._signed = random.Random(f"gossip {seed}").getrandbits(32), paths, signed
        self.lost_milli, self._doubled_milli = lost_milli, doubled_milli
        self._latest: dict[str, deque[Word]] = {}
        self._ears: dict[int, Ear] = {}
        self.told = 0

    @property
    def voices(self) -> int:
        """How many have told something that may be fresh."""
        return len(self._latest)

    def tell(self, voice: Voice, key: PrivateKey, offer: Offer, now_us: int) -> None:
        self.told += 1
        word = Word(self.told, now_us, voice, offer, key if self._signed else None)
        # The newest last, for those who catch up.
        words = self._latest.pop(voice.peer, None) or deque(maxlen=WORDS_KEPT)
        words.append(word)
        self._latest[voice.peer] = words
        for ear in self._ears.values():
            ear.coming += self._arrivals(word, ear.voice)

    def listen(self, voice: Voice, now_us: int) -> Ear:
        """From now on, and to what it would have heard in this life, if it is still of use."""
        ear = self._ears[voice.number] = Ear(voice)
        # Nothing can have been lost, so that the last word of each is what was heard: for a thousand of them in time.
        sure_us = now_us - ARRIVED_US if not self.lost_milli and self._paths.whole else 0
        born_us, over = voice.born_us, list[str]()
        for peer, words in self._latest.items():
            last = words[-1]
            if last.offer.expires_us <= now_us:
                over.append(peer)
            elif last.at_us > sure_us:
                ear.coming += self._missed(words, voice, now_us)
            elif last.at_us >= born_us and last.voice is not voice:
                ear.coming.append((last.at_us, last))
        for peer in over:
            del self._latest[peer]
        return ear

    def leave(self, voice: Voice) -> None:
        self._ears.pop(voice.number, None)

    def _missed(self, words: deque[Word], voice: Voice, now_us: int) -> Iterator[tuple[int, Word]]:
        for word in reversed(words):
            arrivals = list(self._arrivals(word, voice)) if word.at_us >= voice.born_us else []
            yield from arrivals
            if any(at_us <= now_us for at_us, _ in arrivals):
                return

    def _arrivals(self, word: Word, voice: Voice) -> Iterator[tuple[int, Word]]:
        if word.voice is voice or self._paths.blocked(word.voice.peer, voice.peer, word.at_us):
            return
        fate = self._fate(word.number, voice.number)
        if fate % 1000 < self.lost_milli:
            return
        arrives_us = word.at_us + self._paths.base_us(word.voice.peer, voice.peer)
        arrives_us += (self._hops() - 1) * HOP_US + fate // 1000 % HOP_US
        yield arrives_us, word
        if fate // 7000 % 1000 < self._doubled_milli:
            yield arrives_us + fate // 1000 % HOP_US, word

    def _hops(self) -> int:
        return max(1, math.ceil(math.log(max(2, len(self._latest)), DEGREE)) - 1)

    def _fate(self, word: int, voice: int) -> int:
        """A number that only looks random. (The finalizer of MurmurHash3, Appleby.)"""
        mixed = (self._seed ^ word * 0x9E3779B1 ^ voice * 0x85EBCA6B) & 0xFFFFFFFF
        mixed = (mixed ^ mixed >> 16) * 0x85EBCA6B & 0xFFFFFFFF
        mixed = (mixed ^ mixed >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
        return mixed ^ mixed >> 16
