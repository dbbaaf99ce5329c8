"""Following others' journals: heads that are heard, the entries between them, and what proves a fork. Pure.

Each node remembers the last checkpoint of each peer. When a newer one is heard, it fetches the entries between the two
and checks that one chain leads from the first to the second; if not, the owner has signed two histories, and the entry
at which they part proves it. Two nodes that were shown different histories find out as soon as one hears what the other
heard. An owner that does not show its entries cannot be convicted, and gets no further: its head stays what it was.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from potluck_ledger.bodies import decode
from potluck_ledger.entries import Checkpoint, Entry, read
from potluck_ledger.envelope import EnvelopeError, open_envelope
from potluck_ledger.forks import prove, read_fork
from potluck_ledger.journal import GENESIS, digest

# Journals that are followed, each with about 600 bytes; the one that was heard of longest ago goes.
FOLLOWED_MAX = 10_000
# Convicted owners that are remembered; each is a proof.
CONVICTED_MAX = 10_000
# Entries of one answer. A journal that grew by more is followed in steps.
FETCH_MAX = 1000


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask a peer for entries of an owner's journal, behind `after`: `Ranges`."""

    owner: str
    after: int
    most: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Tell others of a checkpoint that is new here."""

    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class Convict:
    """`owner` keeps two journals: keep the proof, tell everybody, and have nothing more to do with it."""

    owner: str
    proof: bytes


@dataclass(frozen=True, slots=True)
class Behind:
    """Others know more of our own journal than we do: it was restored from an old backup, or copied."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Twin:
    """Somebody else signs with our key, or we did from another copy of our data: others have the proof."""

    proof: bytes


Action = Fetch | Spread | Convict | Behind | Twin


@dataclass(slots=True)
class _Followed:
    sequence: int
    head: bytes
    # The envelope which says so: a checkpoint, or an entry.
    said: bytes
    # The last checkpoint.
    checkpoint: bytes
    # What is being checked: a checkpoint that is further, or another one.
    wanted: bytes = b""


class Follower:
    """`us` are not followed: our own journal is known, and `own(sequence)` gives the digest of one of its entries, None
    when there is none."""

    def __init__(self, us: str, own: Callable[[int], bytes | None] = lambda sequence: None) -> None:
        self._us, self._own = us, own
        self._followed: OrderedDict[str, _Followed] = OrderedDict()
        self.convicted: OrderedDict[str, bytes] = OrderedDict()

    def head(self, owner: str) -> bytes:
        """The last checkpoint of an owner that was found consistent; empty when none is known."""
        found = self._followed.get(owner)
        return found.checkpoint if found else b""

    def heads(self) -> dict[str, bytes]:
        """The same of all."""
        return {owner: found.checkpoint for owner, found in self._followed.items()}

    def sequence(self, owner: str) -> int:
        """How many entries of an owner's journal are known to be one chain, as far as we looked; 0 for none."""
        found = self._followed.get(owner)
        return found.sequence if found else 0

    def heard(self, data: bytes) -> list[Action]:
        """Somebody told a checkpoint. Raises `EnvelopeError` for one that does not hold."""
        checkpoint = _checkpoint(data)
        owner = checkpoint.owner
        if owner == self._us and checkpoint.sequence:
            return [] if self._own(checkpoint.sequence) == checkpoint.head else [Behind(checkpoint.sequence)]
        if owner in self.convicted or not checkpoint.sequence:
            return []
        known = self._followed.get(owner)
        if known is None:
            self._follow(owner, _Followed(checkpoint.sequence, checkpoint.head, data, data))
            return [Spread(data)]
        self._followed.move_to_end(owner)
        if (checkpoint.sequence, checkpoint.head) == (known.sequence, known.head):
            return []
        return self._compare(owner, known, checkpoint, data)

    def _compare(self, owner: str, known: _Followed, checkpoint: Checkpoint, data: bytes) -> list[Action]:
        if checkpoint.sequence == known.sequence:
            return self._convict(owner, known.said, data)
        wanted = _checkpoint(known.wanted) if known.wanted else None
        if wanted and wanted.sequence == checkpoint.sequence and wanted.head != checkpoint.head:
            return self._convict(owner, known.wanted, data)
        if wanted and wanted.sequence >= checkpoint.sequence > known.sequence:
            return []
        known.wanted = data
        if checkpoint.sequence < known.sequence:
            # From the entry that it is about up to the one we know: what of this is not one chain is signed as well.
            most = min(FETCH_MAX, known.sequence - checkpoint.sequence + 1)
            return [Fetch(owner, checkpoint.sequence - 1, most)]
        return [Fetch(owner, known.sequence, min(FETCH_MAX, checkpoint.sequence - known.sequence))]

    def came(self, owner: str, after: int, entries: Sequence[bytes]) -> list[Action]:
        """What was fetched, from whomever. What does not hold says something of the sender alone, and is dropped."""
        known = self._followed.get(owner)
        if known is None or not known.wanted:
            return []
        wanted = _checkpoint(known.wanted)
        try:
            chain = [read(data, Entry, owner) for data in entries]
        except EnvelopeError:
            chain = []
        if [entry.sequence for entry in chain] != list(range(after + 1, after + 1 + len(chain))) or not chain:
            known.wanted = b""
            return []
        return self._checked(owner, known, wanted, list(zip(chain, entries, strict=True)))

    def _checked(
        self, owner: str, known: _Followed, wanted: Checkpoint, chain: list[tuple[Entry, bytes]]
    ) -> list[Action]:
        previous = None
        for entry, data in chain:
            if entry.sequence == known.sequence + 1 and entry.previous != known.head:
                # It goes on from another entry than the one we know: that one, or ours, is the lie.
                return [Fetch(owner, known.sequence - 1, 1)]
            if previous is not None and entry.previous != previous:
                known.wanted = b""
                return []
            previous = digest(data)
            for sequence, head, said in (
                (wanted.sequence, wanted.head, known.wanted),
                (known.sequence, known.head, known.said),
            ):
                if entry.sequence == sequence and previous != head:
                    return self._convict(owner, said, data)
        return self._advance(known, wanted, chain[-1])

    def _advance(self, known: _Followed, wanted: Checkpoint, last: tuple[Entry, bytes]) -> list[Action]:
        entry, data = last
        if entry.sequence <= known.sequence:
            # An old checkpoint that is on the chain, or one of ours that was asked about.
            known.wanted = b""
            return []
        known.sequence, known.head = entry.sequence, digest(data)
        if entry.sequence < wanted.sequence:
            known.said = data
            return [Fetch(wanted.owner, entry.sequence, min(FETCH_MAX, wanted.sequence - entry.sequence))]
        known.said = known.checkpoint = known.wanted
        known.wanted = b""
        return [Spread(known.said)]

    def failed(self, owner: str) -> None:
        """What was to be fetched could not be: the next checkpoint asks again."""
        if owner in self._followed:
            self._followed[owner].wanted = b""

    def proved(self, proof: bytes) -> list[Action]:
        """Somebody told a proof. Raises `EnvelopeError` for one that is none."""
        owner = read_fork(proof)
        if owner == self._us:
            return [Twin(proof)]
        if owner in self.convicted:
            return []
        self._forget(owner, proof)
        return [Convict(owner, proof)]

    def _convict(self, owner: str, one: bytes, other: bytes) -> list[Action]:
        try:
            proof = prove(one, other).encode()
        except EnvelopeError:
            # It was not what it seemed: two forms of the same.
            self.failed(owner)
            return []
        self._forget(owner, proof)
        return [Convict(owner, proof)]

    def _forget(self, owner: str, proof: bytes) -> None:
        self._followed.pop(owner, None)
        self.convicted[owner] = proof
        while len(self.convicted) > CONVICTED_MAX:
            self.convicted.popitem(last=False)

    def _follow(self, owner: str, followed: _Followed) -> None:
        self._followed[owner] = followed
        while len(self._followed) > FOLLOWED_MAX:
            self._followed.popitem(last=False)


def _checkpoint(data: bytes) -> Checkpoint:
    """Raises `EnvelopeError`."""
    envelope = open_envelope(data, Checkpoint.KIND)
    checkpoint = decode(envelope.body, Checkpoint)
    if envelope.signers[0] != checkpoint.owner:
        raise EnvelopeError("a checkpoint is signed by its owner first")
    if not checkpoint.sequence and checkpoint.head != GENESIS:
        raise EnvelopeError("an empty journal has no head")
    return checkpoint
