"""When this machine works for others: the owner's policy against what is known of the machine. Pure.

Each reason has a check of three levels: over stops work at once, clear ends that once it has lasted, between changes
nothing. So what swings around a limit does not start and stop work with every swing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from potluck_node.core.policy_rules import (
    BETWEEN,
    GPU_RULES,
    OVER,
    RULES,
    WEEK_MINUTES,
    Facts,
    FactsT,
    GpuFacts,
    Policy,
    Reason,
    Rule,
    spans,
)  # fmt: skip

S, MINUTE_US = 1_000_000, 60_000_000


@dataclass
class _State:
    active: bool = False
    since_us: int = 0
    clear_us: int = 0
    # As it was when it last stopped work.
    text: str = ""


@dataclass
class PolicyCore:
    """Feed it facts as they come; `reasons` are what holds then, the most telling first."""

    policy: Policy = field(default_factory=Policy)
    _states: dict[tuple[str, str], _State] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()
    wake_us: int | None = None

    def __post_init__(self) -> None:
        self.policy = self.policy.complete()

    def set(self, policy: Policy, facts: Facts, now_us: int) -> tuple[Reason, ...]:
        """Another policy, and what it wants to know: what the old one said is forgotten."""
        self.policy = policy.complete()
        self._states.clear()
        return self.see(facts, now_us)

    def see(self, facts: Facts, now_us: int) -> tuple[Reason, ...]:
        """What holds now. To be called again at `wake_us`, if nothing is seen before."""
        self.wake_us = None
        found = [
            Reason(code, state.text, rule.fix, "", state.since_us)
            for code, rule in RULES.items()
            if (state := self._step((code, ""), rule, facts, now_us)).active
        ]
        self._plan_window(facts, now_us)
        self.reasons = tuple(found)
        return self.see_gpus(facts.gpus, now_us)

    def see_gpus(self, gpus: tuple[GpuFacts, ...], now_us: int) -> tuple[Reason, ...]:
        """The same for what is known of GPUs alone."""
        gone = {uuid for _, uuid in self._states} - {"", *(gpu.uuid for gpu in gpus)}
        for key in [key for key in self._states if key[1] in gone]:
            del self._states[key]
        found = [reason for gpu in gpus for reason in self._gpu(gpu, now_us)]
        self.reasons = (*(reason for reason in self.reasons if not reason.gpu), *found)
        return self.reasons

    def _gpu(self, gpu: GpuFacts, now_us: int) -> Iterator[Reason]:
        for code, rule in GPU_RULES.items():
            state = self._step((code, gpu.uuid), rule, gpu, now_us)
            if state.active:
                yield Reason(code, state.text, rule.fix, gpu.uuid, state.since_us)

    def _step(self, key: tuple[str, str], rule: Rule[FactsT], facts: FactsT, now_us: int) -> _State:
        state = self._states.setdefault(key, _State())
        level = rule.check(self.policy, facts)
        if level == OVER:
            state.text = rule.text(self.policy, facts)
            if not state.active:
                state.active, state.since_us = True, now_us
            state.clear_us = 0
        elif state.active and level == BETWEEN:
            state.clear_us = 0
        elif state.active:
            state.clear_us = state.clear_us or now_us
            ends_us = state.clear_us + round(rule.dwell_s * S)
            if now_us >= ends_us:
                state.active = False
            else:
                self.wake_us = ends_us if self.wake_us is None else min(self.wake_us, ends_us)
        return state

    def _plan_window(self, facts: Facts, now_us: int) -> None:
        """The next edge of the windows, to the minute."""
        if not self.policy.windows or facts.week_minute is None:
            return
        edges = {minute % WEEK_MINUTES for span in spans(self.policy.windows) for minute in span}
        away = min((edge - facts.week_minute) % WEEK_MINUTES or WEEK_MINUTES for edge in edges)
        edge_us = now_us + away * MINUTE_US
        self.wake_us = edge_us if self.wake_us is None else min(self.wake_us, edge_us)

    @property
    def works(self) -> bool:
        """Whether anything may run on this machine at all."""
        return not any(reason.gpu == "" for reason in self.reasons)

    def blocked(self, now_us: int) -> dict[str, tuple[str, bool]]:
        """Of each GPU that is not lent: its first reason, and whether what runs there had its grace."""
        grace_us, found = round(self.policy.grace_s * S), dict[str, tuple[str, bool]]()
        for reason in self.reasons:
            if reason.gpu:
                code, over = found.get(reason.gpu, (reason.code, False))
                found[reason.gpu] = code, over or now_us - reason.since_us >= grace_us
        return found


def explain(policy: Policy, facts: Facts) -> tuple[Reason, ...]:
    """What the policy would do with these facts, had they been so for long."""
    return PolicyCore(policy).see(facts, 0)
