"""Who may use how much: what admins granted, against what was used. Pure.

A grant is a right: somebody may use a GPU while one of the grants that fit has time left, and what is used counts
against each of them. Of grants for the same name and class the latest counts, so that a new one replaces the old one,
and one of no time ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from potluck_ledger.entries import Content, Grant, Membership, Transfer
from potluck_ledger.usage import HOUR_US, Usage, What

USER, GROUP, APP = "user", "group", "app"
# The class of machines without a GPU.
CPU = "cpu"
DAY_US = 24 * HOUR_US
PERIODS = {"day": DAY_US, "week": 7 * DAY_US, "month": 30 * DAY_US}
# Grants and memberships of one mesh, which nodes tell each other in one frame. What is beyond says nothing.
RULES_MAX = 800
# How far back somebody's use counts who was granted nothing.
UNGRANTED_US = 7 * DAY_US
# A share is in thousandths of what was granted; that of somebody without a grant, or far beyond it.
SHARE_MAX = 1_000_000

# Whether a GPU model, as a receipt has it, is of a class, such as "A100".
Matches = Callable[[str, str], bool]
# What a second on a model counts against a grant of no class, in thousandths.
Weighs = Callable[[str], int]


class Standing(NamedTuple):
    """A grant in its present period, from `since_us` to `until_us`, and what was used of it. `granted_us` has what
    was transferred, too."""

    grant: Grant
    since_us: int
    until_us: int
    granted_us: int
    used_us: int

    @property
    def left_us(self) -> int:
        """Below zero when more was used."""
        return self.granted_us - self.used_us


class Quotas:
    """`admins` are peer ids whose grants count here; all others' are nothing."""

    def __init__(self, mesh: str, admins: frozenset[str], usage: Usage, matches: Matches) -> None:
        self._mesh, self._admins, self._usage, self._matches = mesh, admins, usage, matches
        self._grants: dict[tuple[str, str, str], Grant] = {}
        self._members: dict[tuple[str, str], Membership] = {}
        self.weighs: Weighs = lambda model: 1000

    def record(self, content: Content) -> bool:
        """Take a verified grant or membership; whether it counts, and is news."""
        if not isinstance(content, Grant | Membership):
            return False
        if content.mesh != self._mesh or content.admin not in self._admins:
            return False
        if isinstance(content, Grant):
            return self._newer(self._grants, (content.scope, content.name, content.gpu_class), content)
        return self._newer(self._members, (content.group, content.member), content)

    def _newer(self, known: dict, key: tuple[str, ...], content: Grant | Membership) -> bool:  # type: ignore[type-arg]
        old = known.get(key)
        room = old is not None or len(self._grants) + len(self._members) < RULES_MAX
        if not room or (old and (old.starts_us, old.nonce) >= (content.starts_us, content.nonce)):
            return False
        known[key] = content
        return True

    def grants(self) -> list[Grant]:
        """The latest of each name and class, those that are over and of no time included."""
        return list(self._grants.values())

    # Groups

    def members(self, group: str, now_us: int) -> list[str]:
        """Peer ids."""
        found = (each for (name, _), each in self._members.items() if name == group)
        return sorted(each.member for each in found if each.starts_us <= now_us < each.expires_us)

    def groups(self, now_us: int) -> dict[str, list[str]]:
        """Each with its members."""
        names = {name for name, _ in self._members}
        found = {name: self.members(name, now_us) for name in sorted(names)}
        return {name: members for name, members in found.items() if members}

    # Standings

    def standings(self, now_us: int) -> list[Standing]:
        """Every grant that counts now."""
        return [self._standing(grant, now_us) for grant in self._valid(now_us)]

    def of(self, caller: str, now_us: int) -> list[Standing]:
        """Those from which a caller may use something."""
        return [
            self._standing(grant, now_us) for grant in self._valid(now_us) if self._is_for(grant, caller, None, now_us)
        ]

    def fitting(self, caller: str, what: What, now_us: int) -> list[Standing]:
        """Those that let a caller run something."""
        return [
            self._standing(grant, now_us)
            for grant in self._valid(now_us)
            if self._is_for(grant, caller, what.app, now_us) and self._fits(grant, what.model)
        ]

    def left_us(self, caller: str, what: What, now_us: int) -> int:
        """How much a caller may still use for something; below zero when that was too much."""
        found = [each.left_us for each in self.fitting(caller, what, now_us)]
        return max(found) if found else -self._usage.used_us(caller, now_us - UNGRANTED_US, self._weighed)

    def share(self, caller: str, now_us: int) -> int:
        """How much of what was granted to a caller it has used, in thousandths, less what it gave others itself: who
        gave as much as it used has used nothing. What was given to keys without a grant says nothing: anybody can make
        such a key."""
        shares = [
            max(0, each.used_us - self._given_us(caller, each.since_us, now_us)) * 1000 // each.granted_us
            for each in self.of(caller, now_us)
            if each.granted_us > 0
        ]
        return min([SHARE_MAX, *shares])

    def _given_us(self, caller: str, since_us: int, now_us: int) -> int:
        return self._usage.given_us(caller, since_us, lambda other: self._is_granted(other, now_us))

    def _is_granted(self, caller: str, now_us: int) -> bool:
        return any(self._is_for(grant, caller, None, now_us) for grant in self._valid(now_us))

    def _valid(self, now_us: int) -> list[Grant]:
        valid = (each for each in self._grants.values() if each.lease_us and each.starts_us <= now_us < each.expires_us)
        return sorted(valid, key=_order)

    def _standing(self, grant: Grant, now_us: int) -> Standing:
        since_us, until_us = _window(grant, now_us)
        used_us = sum(
            self._usage.used_us(caller, since_us, self._counts(grant)) for caller in self._callers(grant, now_us)
        )
        granted_us = grant.lease_us
        if self._transferable(grant):
            granted_us += self._moved(grant, since_us, now_us, used_us)
        return Standing(grant, since_us, until_us, granted_us, used_us)

    def _callers(self, grant: Grant, now_us: int) -> list[str]:
        if grant.scope == GROUP:
            return self.members(grant.name, now_us)
        return [grant.name.partition("/")[0]]

    def _is_for(self, grant: Grant, caller: str, app: str | None, now_us: int) -> bool:
        """`app` is None for any."""
        if grant.scope == APP:
            owner, _, name = grant.name.partition("/")
            return owner == caller and app in (None, name)
        return caller in self._callers(grant, now_us)

    def _fits(self, grant: Grant, model: str) -> bool:
        if not grant.gpu_class:
            return True
        return not model if grant.gpu_class.lower() == CPU else bool(model) and self._matches(grant.gpu_class, model)

    def _counts(self, grant: Grant) -> Callable[[What], int]:
        app = grant.name.partition("/")[2] if grant.scope == APP else ""

        def counts(what: What) -> int:
            if app and what.app != app:
                return 0
            if not grant.gpu_class:
                return self.weighs(what.model)
            return 1000 if self._fits(grant, what.model) else 0

        return counts

    def _weighed(self, what: What) -> int:
        return self.weighs(what.model)

    # Transfers: of a user's grant of no class

    @staticmethod
    def _transferable(grant: Grant) -> bool:
        return grant.scope == USER and not grant.gpu_class

    def _moved(self, grant: Grant, since_us: int, now_us: int, used_us: int) -> int:
        """What came in, less what went out: of the latter no more than was left, so that all together have what was
        granted."""
        sent_us = sum(us for _, us in self._sent(grant, since_us, now_us, used_us))
        came = (each for each in self._usage.transfers(since_us, now_us + 1) if each.taker == grant.name)
        return sum(self._came(giver, grant.name, since_us, now_us) for giver in {each.giver for each in came}) - sent_us

    def _sent(self, grant: Grant, since_us: int, now_us: int, used_us: int) -> list[tuple[Transfer, int]]:
        """The transfers of a grant's owner in its period, each with how much of it there was to give."""
        left_us, sent = max(0, grant.lease_us - used_us), []
        for each in self._usage.transfers(since_us, now_us + 1):
            if each.giver == grant.name:
                sent.append((each, min(left_us, each.lease_us)))
                left_us -= sent[-1][1]
        return sent

    def _came(self, giver: str, taker: str, since_us: int, now_us: int) -> int:
        """What somebody really had to give: to whom was given can not pass it on, but has the more to use."""
        grant = self._grants.get((USER, giver, ""))
        if grant is None or not grant.starts_us <= now_us < grant.expires_us:
            return 0
        first_us, _ = _window(grant, now_us)
        used_us = self._usage.used_us(giver, first_us, self._counts(grant))
        sent = self._sent(grant, first_us, now_us, used_us)
        return sum(us for each, us in sent if each.taker == taker and each.at_us >= since_us)


def _window(grant: Grant, now_us: int) -> tuple[int, int]:
    """The period in which `now_us` is, from a whole hour on: use is known by the hour."""
    if not grant.period_us:
        return grant.starts_us, grant.expires_us
    since_us = now_us - (now_us - grant.starts_us) % grant.period_us
    return since_us, min(grant.expires_us, since_us + grant.period_us)


def _order(grant: Grant) -> tuple[str, str, str]:
    return grant.scope, grant.name, grant.gpu_class


def named(standings: list[Standing]) -> Iterator[str]:
    """Their names, for people: "user …1234: 3.0 of 10.0 s of A100"."""
    for each in standings:
        grant = each.grant
        of = f" of {grant.gpu_class}" if grant.gpu_class else ""
        yield f"{grant.scope} {grant.name[-24:]}: {each.used_us / 1e6:.1f} of {each.granted_us / 1e6:.1f} s{of} used"
