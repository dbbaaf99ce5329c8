"""What admins of a lab decided beside grants: who goes first, has a machine alone, may have how much of it at once.

Pure. Of rules of one kind for the same name and machine the last one counts; one that ends when it starts ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from potluck_ledger.entries import PRIORITY_ZERO, Content, Rule

RESERVE, PRIORITY, LIMIT = "reserve", "priority", "limit"
# Beside grants and memberships (`quotas.RULES_MAX`) in one frame.
HOUSE_RULES_MAX = 200

# Peer ids of a group's members now.
MembersOf = Callable[[str, int], list[str]]


class Here(NamedTuple):
    """The machine that asks what holds for it."""

    peer: str
    name: str
    labels: tuple[tuple[str, str], ...] = ()

    def is_meant(self, machine: str) -> bool:
        """Whether "" (all), a peer id, a node's name, or a label ("lab=vision") means it."""
        key, equals, value = machine.partition("=")
        return machine in ("", self.peer, self.name) or bool(equals and (key, value) in self.labels)


class HouseRules:
    """`admins` are peer ids whose rules count."""

    def __init__(self, mesh: str, admins: frozenset[str], members: MembersOf) -> None:
        self._mesh, self._admins, self._members = mesh, admins, members
        self._rules: dict[tuple[str, ...], Rule] = {}

    def record(self, content: Content) -> bool:
        """Take a verified rule; whether it counts, and is news."""
        if not isinstance(content, Rule) or content.mesh != self._mesh or content.admin not in self._admins:
            return False
        old = self._rules.get(rule_key(content))
        if old is None and len(self._rules) >= HOUSE_RULES_MAX:
            return False
        if old and (old.at_us, old.nonce) >= (content.at_us, content.nonce):
            return False
        self._rules[rule_key(content)] = content
        return True

    def rules(self) -> list[Rule]:
        """The latest of each kind, name and machine, those that are over included."""
        return sorted(self._rules.values(), key=rule_key)

    def reserved(self, caller: str, here: Here, now_us: int) -> Rule | None:
        """The reservation of others that keeps a caller off this machine now."""
        held = self._holding(RESERVE, here, now_us)
        return None if not held or any(self._is_for(rule, caller, now_us) for rule in held) else held[0]

    def priority(self, caller: str, here: Here, now_us: int) -> int:
        """0 unless an admin said otherwise; the highest of several."""
        found = [rule for rule in self._holding(PRIORITY, here, now_us) if self._is_for(rule, caller, now_us)]
        return max((rule.level - PRIORITY_ZERO for rule in found), default=0)

    def limits(self, caller: str, here: Here, now_us: int) -> list[tuple[Rule, frozenset[str]]]:
        """What a caller may not exceed on this machine at once, each with those that share it."""
        found = [rule for rule in self._holding(LIMIT, here, now_us) if self._is_for(rule, caller, now_us)]
        return [(rule, frozenset(self._who(rule, now_us))) for rule in found]

    def _holding(self, what: str, here: Here, now_us: int) -> list[Rule]:
        rules = (rule for rule in self.rules() if rule.what == what and rule.starts_us <= now_us < rule.expires_us)
        return [rule for rule in rules if here.is_meant(rule.machine)]

    def _who(self, rule: Rule, now_us: int) -> list[str]:
        return self._members(rule.name, now_us) if rule.scope == "group" else [rule.name]

    def _is_for(self, rule: Rule, caller: str, now_us: int) -> bool:
        return caller in self._who(rule, now_us)


def rule_key(rule: Rule) -> tuple[str, ...]:
    """What a later rule replaces. Reservations of one name can follow each other."""
    when = str(rule.starts_us) if rule.what == RESERVE else ""
    return rule.what, rule.scope, rule.name, rule.machine, when
