"""What a provider is told as reasons of its owner's policy come and go: to begin nothing, to give what runs its grace,
to end it, and to go on. Pure: the node and the simulator do what it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from potluck_node.core import provider_events as pev
from potluck_node.core.policy_rules import Reason

# What stops work at once, and what lets it come to its end.
AT_ONCE = ("panic", "shutting-down", "suspending", "node-trouble")
NEVER = ("paused", "draining")
# What the system wants, which waits for a while, but not for an owner's grace.
SYSTEM = ("shutting-down", "suspending")
# What callers are told instead of what happens at this machine: it is nobody's business.
TOLD = {"user-active": "the owner returned", "fullscreen": "the owner returned", "game": "the owner returned",
        "exclusive-program": "the owner returned", "ssh-session": "the owner returned"}  # fmt: skip

Told = pev.Paused | pev.Resumed | pev.GraceBegan | pev.GraceSpared


@dataclass
class Giving:
    """`said` is what the provider was told last, by the reason `code`; `warned` by which reason its grace began."""

    said: str = ""
    code: str = ""
    warned: str = ""
    ended: bool = False
    # How long the system waits for us, once it said that the machine stops.
    system_grace_us: int = 0
    # When what runs is to be ended.
    wake_us: int | None = None

    @property
    def grace_runs(self) -> bool:
        """Whether something is to end that has been told so."""
        return bool(self.warned and not self.ended)

    def heed(self, reasons: Sequence[Reason], paused: str, grace_us: int, now_us: int) -> list[Told]:
        """`reasons` are those of the whole machine, the first of them the most telling; `paused` is why the provider
        does not work now, whoever said so."""
        self.wake_us = None
        if not reasons:
            # What somebody else has stopped is not ours to start.
            told: list[Told] = [pev.Resumed()] if self.said and paused == self.said else []
            self.said, self.code, self.warned, self.ended = "", "", "", False
            return told
        first, text = reasons[0], TOLD.get(reasons[0].code, reasons[0].text)
        told = []
        # Figures in the words of one and the same reason may change with every look.
        if first.code != self.code or (first.code in NEVER and text != self.said):
            self.said, self.code = text, first.code
            told.append(pev.Paused(text, own=first.code in (*AT_ONCE, *NEVER)))
        ending = next((each for each in reasons if each.code not in NEVER), None)
        return told + self._give_way(ending, grace_us, now_us)

    def _give_way(self, reason: Reason | None, grace_us: int, now_us: int) -> list[Told]:
        """Tell what runs that its grace begins, and end it once it had its time, since there is a reason for that."""
        if reason is None:
            # What an owner has paused goes on to its end.
            spared: list[Told] = [pev.GraceSpared()] if self.grace_runs else []
            self.ended, self.warned = False, ""
            return spared
        if self.ended:
            return []
        told: list[Told] = []
        if reason.code in AT_ONCE:
            grace_us = self.system_grace_us if reason.code in SYSTEM else 0
        if grace_us and (not self.warned or (reason.code in SYSTEM and self.warned not in SYSTEM)):
            self.warned = reason.code
            left_us = max(0, reason.since_us + grace_us - now_us)
            told.append(pev.GraceBegan(self.said, left_us, own=reason.code in AT_ONCE))
        self.wake_us = reason.since_us + grace_us
        if now_us >= self.wake_us:
            self.ended, self.wake_us = True, None
            told.append(pev.Paused(self.said, now=True, own=reason.code in AT_ONCE))
        return told
