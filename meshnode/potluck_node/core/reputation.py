"""What this node has learned of peers from its own verdicts and receipts: whom to check, whom to prefer, whom to leave
alone. Pure. Nothing of it is told to others or taken from them: a score that travels can be bought.

- How often a peer's results are checked is BOINC's adaptive replication
  (https://github.com/BOINC/boinc/wiki/AdaptiveReplication): always until ten in a row were right, for this peer and
  image; from then on with a chance of one in as many as were right in a row. One that was wrong begins anew.
- The score is the mean of a beta distribution (Jøsang and Ismail, "The Beta Reputation System", 2002); what it rests on
  fades with a half-life.
- A proven liar is sent nothing for a while: longer each time, never for good. A machine gets other owners, and memory
  gets replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from potluck_node.core.placement import Dice

# BOINC's: this many right in a row before anything passes unchecked.
STREAK_MIN = 10
# What was seen counts half after two weeks: machines and owners change.
HALF_LIFE_US = 14 * 24 * 3_600_000_000
# A lie weighs as much as so many right results: they are cheap, and a lie is not.
WRONG_WEIGHT = 10
# A signed receipt says little of results: only that somebody bills what was seen.
RECEIPT_WEIGHT = 0.1
# A quorum lost once may be a bad memory cell or a function that is not repeatable; twice is a pattern.
LOSSES_MAX = 2
# An hour, then twice as long each time, at most thirty days; one step is forgotten in as many days.
BAN_FIRST_US, BAN_MAX_US = 3_600_000_000, 30 * 24 * 3_600_000_000
# Bounds what is kept: peers that were ever checked, and images for each.
PEERS_MAX, IMAGES_MAX = 10_000, 64


class Record(msgspec.Struct, array_like=True):
    """Of one peer. `right` and `wrong` have faded up to `at_us`; `losses` are quorums lost since the last ban;
    `streaks` are results right in a row, by image."""

    right: float = 0.0
    wrong: float = 0.0
    at_us: int = 0
    losses: int = 0
    bans: int = 0
    until_us: int = 0
    why: str = ""
    streaks: dict[str, int] = msgspec.field(default_factory=dict)

    def fade(self, now_us: int) -> None:
        """Let what is known grow old."""
        part = 0.5 ** (max(0, now_us - self.at_us) / HALF_LIFE_US) if self.at_us else 1.0
        self.right, self.wrong, self.at_us = self.right * part, self.wrong * part, now_us
        if part < 0.5:
            self.losses = 0

    @property
    def score(self) -> int:
        """In thousandths: how likely the next result is right; 500 for nothing known."""
        return round(1000 * (self.right + 1) / (self.right + WRONG_WEIGHT * self.wrong + 2))


class Reputation:
    """`records` may be those of an earlier run."""

    def __init__(self, records: dict[str, Record] | None = None) -> None:
        self.records: dict[str, Record] = records or {}

    def of(self, peer: str, now_us: int) -> Record:
        """As of now; of a peer that was never judged, an empty one that is not kept."""
        record = self.records.get(peer)
        if record is None:
            return Record(at_us=now_us)
        record.fade(now_us)
        return record

    # What is learned

    def verdict(self, peer: str, image: str, right: bool, now_us: int, *, proof: bool = False) -> bool:
        """A result was found right or wrong; a `proof` is a known answer that was not given. Whether the peer is banned
        for it."""
        record = self._kept(peer, now_us)
        if right:
            record.right += 1
            record.streaks[image] = record.streaks.pop(image, 0) + 1
            while len(record.streaks) > IMAGES_MAX:
                del record.streaks[next(iter(record.streaks))]
            return False
        record.wrong += 1
        if record.until_us > now_us:
            # What it answered before it was banned: one ban is for all of that.
            return False
        record.losses += 1
        # Who lies about one image is checked for all.
        record.streaks.clear()
        if not proof and record.losses < LOSSES_MAX:
            return False
        self._ban(record, "it failed a canary" if proof else f"it lost {record.losses} quorums", now_us)
        return True

    def billed(self, peer: str, honest: bool, now_us: int) -> None:
        """A receipt was signed, or claims more than this node saw."""
        record = self._kept(peer, now_us)
        if honest:
            record.right += RECEIPT_WEIGHT
        else:
            record.wrong += 1

    def _kept(self, peer: str, now_us: int) -> Record:
        record = self.records.pop(peer, None) or Record(at_us=now_us)
        record.fade(now_us)
        # The newest last; the oldest that is not banned goes first.
        self.records[peer] = record
        if len(self.records) > PEERS_MAX:
            free = (each for each, found in self.records.items() if found.until_us <= now_us)
            del self.records[next(free, next(iter(self.records)))]
        return record

    def _ban(self, record: Record, why: str, now_us: int) -> None:
        if record.until_us:
            record.bans = max(0, record.bans - max(0, now_us - record.until_us) // BAN_MAX_US)
        length = min(BAN_MAX_US, BAN_FIRST_US << min(record.bans, 20))
        record.bans += 1
        record.losses, record.until_us, record.why = 0, now_us + length, why

    # What follows

    def streak(self, peer: str, image: str) -> int:
        """How many results of the peer were right in a row."""
        record = self.records.get(peer)
        return record.streaks.get(image, 0) if record else 0

    def checks(self, peer: str, image: str, dice: Dice) -> bool:
        """Whether to have a result of the peer checked by another one."""
        streak = self.streak(peer, image)
        return streak < STREAK_MIN or dice.randrange(streak) == 0

    def banned(self, peer: str, now_us: int) -> str:
        """Why a peer is sent nothing now, and how long; "" when it is."""
        record = self.records.get(peer)
        if record is None or record.until_us <= now_us:
            return ""
        minutes = -(-(record.until_us - now_us) // 60_000_000)
        return f"{record.why}, and is sent nothing for {minutes} min"

    def doubt(self, peer: str, now_us: int) -> int:
        """For placement: 0 for a peer that was right, 1 for one that is not known, 2 for one that was wrong lately."""
        if peer not in self.records:
            return 1
        score = self.of(peer, now_us).score
        return 0 if score > 500 else 1 if score == 500 else 2
