"""Keeps the owner's policy: looks at the machine, and has the provider stop, give way, and go on."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from potluck.errors import InvalidError
from potluck.wire import control
from potluck.wire import policy as messages
from potluck.wire.offer import HELD, NEIGHBOUR, OFF, USED
from potluck_node import policy_file
from potluck_node.clock import Clock
from potluck_node.core import provider_events as pev
from potluck_node.core.giving import Giving
from potluck_node.core.policy import PolicyCore, explain
from potluck_node.core.policy_rules import Facts, GpuFacts, Policy, Reason
from potluck_node.devices.login import Login
from potluck_node.devices.owner import Owner

if TYPE_CHECKING:
    from trio_typing import TaskStatus

    from potluck_node.provider import Provider

log = logging.getLogger("potluck.policy")

# Whoever comes back has the machine within a quarter of a second: input is looked at a bit more often.
QUICK_S = 0.2
# All else, and what takes a look at every process; asking NetworkManager starts a program.
SLOW_S, METERED_S = 5.0, 60.0
# Of the while for which the system waits, seconds are kept for receipts, which take a round trip to the caller, and to
# let go in time.
RECEIPTS_S, SPARE_S = 2.0, 0.3
# What peers are told of a GPU: of all other reasons, HELD.
STATES = {"gpu-off": OFF, "gpu-neighbour": NEIGHBOUR, "gpu-used": USED, "gpu-memory-used": USED, "gpu-busy": USED}


class PolicyDesk:
    """`provider` is None on a node that lends nothing. `owner` looks at the machine; `file` has the settings."""

    def __init__(self, policy: Policy, provider: Provider | None, owner: Owner, clock: Clock, file: Path) -> None:
        self._provider, self._owner, self._clock, self._file = provider, owner, clock, file
        # Another policy is to be kept at once, and written by one client at a time.
        self._changed, self._writing = trio.Event(), trio.Lock()
        # The table's text, and which state of the file it was read from.
        self._text: tuple[tuple[int, int], str] = ((-1, -1), "")
        self._core = PolicyCore(policy)
        self._facts = Facts()
        self._metered: bool | None = None
        self._metered_at = -METERED_S
        # What the provider was told last; the same for GPUs.
        self._giving = Giving()
        self._blocked = pev.GpusBlocked(())
        self.login: Login | None = None
        self._watch = provider.gpus if provider else None
        if self._watch:
            self._watch.on_facts, self._watch.lent_memory = self.gpus_seen, policy.gpu_share_vram

    @property
    def reasons(self) -> tuple[messages.Reason, ...]:
        """What holds now, and what stops the machine for other reasons than its policy."""
        paused = self._provider.core.paused if self._provider else ""
        found = tuple(map(_told, self._core.reasons))
        if paused and paused != self._giving.said:
            found = (messages.Reason("node-trouble", paused, "See: potluck doctor; go on with: potluck resume"), *found)
        return found

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look until cancelled."""
        self._owner.open_inputs()
        try:
            async with trio.open_nursery() as nursery:
                if self.login:
                    nursery.start_soon(self.login.serve)
                await self._look()
                task_status.started()
                await self._keep_looking()
        finally:
            self._owner.close()

    async def _keep_looking(self) -> None:
        looked = trio.current_time()
        while True:
            watches = bool(self._core.policy.idle_s) and self._provider is not None
            with trio.move_on_after(QUICK_S if watches or self._grace_runs() else SLOW_S):
                await self._changed.wait()
            self._changed = trio.Event()
            if trio.current_time() - looked >= SLOW_S:
                await self._look()
                looked = trio.current_time()
            else:
                self._see(replace(self._facts, idle_s=self._idle_s()) if watches else self._facts)

    def _grace_runs(self) -> bool:
        """Whether something is to end that has been told so."""
        return self._giving.grace_runs or len(self._blocked.end) < len(self._blocked.states)

    def _idle_s(self) -> float | None:
        sources = (self._owner.idle_s(), self.login.idle_s() if self.login else None)
        return min((found for found in sources if found is not None), default=None)

    async def _look(self) -> None:
        found = await self._found(self._core.policy)
        self._see(self._with_said(found))

    async def _found(self, policy: Policy) -> Facts:
        """What this policy wants to know of the machine."""
        names = bool(policy.games or policy.exclusive or policy.ssh or policy.fullscreen)
        found = await trio.to_thread.run_sync(self._owner.facts, names, bool(policy.others_cpu))
        if not policy.metered and trio.current_time() - self._metered_at >= METERED_S:
            self._metered_at = trio.current_time()
            self._metered = await trio.to_thread.run_sync(self._owner.metered)
        return replace(found, idle_s=self._idle_s() if policy.idle_s else None, metered=self._metered)

    def _with_said(self, found: Facts) -> Facts:
        """With what the owner said meanwhile, and what was seen of the GPUs."""
        said = self._facts
        return replace(
            found, gpus=said.gpus, paused=said.paused, paused_until_us=said.paused_until_us, draining=said.draining,
            panic=said.panic, suspending=said.suspending, shutting_down=said.shutting_down,
        )  # fmt: skip

    def _see(self, facts: Facts) -> None:
        now_us = self._clock.now_us()
        if facts.paused_until_us and now_us >= facts.paused_until_us:
            facts = replace(facts, paused="", paused_until_us=0)
        self._facts = facts
        self._core.see(facts, now_us)
        self._act(now_us)
        self._act_on_gpus(now_us)

    def _act(self, now_us: int) -> None:
        if self._provider is None:
            return
        reasons = [each for each in self._core.reasons if not each.gpu]
        grace_us = round(self._core.policy.grace_s * 1e6)
        for event in self._giving.heed(reasons, self._provider.core.paused, grace_us, now_us):
            if isinstance(event, pev.Paused):
                what = "ending what runs" if event.now else "no new work"
                log.info("%s: %s (%s)", what, event.reason, self._giving.code)
            self._provider.submit(event)

    # GPUs

    def gpus_seen(self, gpus: tuple[GpuFacts, ...]) -> None:
        """As often as the node looks at them anyway."""
        now_us = self._clock.now_us()
        self._facts = replace(self._facts, gpus=gpus)
        self._core.see_gpus(gpus, now_us)
        self._act_on_gpus(now_us)

    def _act_on_gpus(self, now_us: int) -> None:
        found = self._core.blocked(now_us)
        states = tuple(sorted((uuid, STATES.get(code, HELD)) for uuid, (code, _) in found.items()))
        over = frozenset(uuid for uuid, (_, ends) in found.items() if ends)
        blocked = pev.GpusBlocked(states, over, round(self._core.policy.grace_s * 1e6))
        if self._provider and (states, over) != (self._blocked.states, self._blocked.end):
            self._blocked = blocked
            for uuid, (code, ends) in found.items():
                log.info("GPU %s is not lent (%s)%s", uuid, code, "; ending what runs there" if ends else "")
            self._provider.submit(blocked)

    # The system

    def follow_logind(self) -> None:
        """From `serve` on, hear of it when the machine sleeps or stops, and when its desktop is idle."""
        self.login = Login(self.going, self.back, self._changed_now)

    def _changed_now(self) -> None:
        self._changed.set()

    async def going(self, kind: str, delay_s: float) -> None:
        """The machine is about to sleep or stop, and waits so long: what runs saves, ends, and has its receipts."""
        grace_s = max(0.0, min(self._core.policy.grace_s, delay_s - RECEIPTS_S))
        self._giving.system_grace_us = round(grace_s * 1e6)
        # Own functions may still run where the owner's return has ended all others.
        self._giving.ended = False
        self._see(replace(self._facts, suspending=kind == "sleep", shutting_down=kind == "shutdown"))
        if self._provider:
            with trio.move_on_after(delay_s - SPARE_S):
                with trio.move_on_after(grace_s):
                    await self._provider.settled()
                self._see(self._facts)
                await self._provider.settled()

    def back(self) -> None:
        """It woke up, or goes on after all."""
        self._see(replace(self._facts, suspending=False, shutting_down=False))

    # What the owner says

    def pause(self, reason: str, now: bool, seconds: float = 0.0) -> None:
        """Take no new work; with `now`, end what runs."""
        until_us = self._clock.now_us() + round(seconds * 1e6) if seconds else 0
        self._see(replace(self._facts, paused=reason, paused_until_us=until_us))
        if now and self._provider:
            self._provider.submit(pev.Paused(reason, now=True))

    def resume(self) -> None:
        """Whatever the owner said is over; also what the node stopped for its own troubles."""
        self._see(replace(self._facts, paused="", paused_until_us=0, draining=False, panic=False))
        if self._core.works and self._provider:
            self._provider.submit(pev.Resumed())

    async def answer(self, question: messages.PolicyQuestion) -> control.Done | messages.PolicyTold:
        """Raises `InvalidError` for facts that there are not, and for policies that are none."""
        match question:
            case messages.Drain(number):
                self._see(replace(self._facts, draining=True))
                return control.Done(number)
            case messages.Panic(number):
                self._see(replace(self._facts, panic=True))
                return control.Done(number)
            case messages.SetPolicy(number, text, keep, unset):
                await self._set(text, keep, unset)
                return control.Done(number)
            case messages.AskPolicy(number, assume, text):
                return await self._what_if(number, assume, text) if assume or text else await self._now(number)

    async def _set(self, text: str, keep: bool, unset: tuple[str, ...]) -> None:
        async with self._writing:
            policy = await trio.to_thread.run_sync(policy_file.write, self._file, text, keep, unset)
            found = await self._found(policy.complete())
        log.info("the owner has set another policy")
        if self._watch and self._watch.lent_memory != policy.gpu_share_vram:
            self._watch.lent_memory = policy.gpu_share_vram
            await self._watch.look()
        facts = self._with_said(found)
        self._core.set(policy, facts, self._clock.now_us())
        self._see(facts)
        self._changed.set()

    async def _now(self, number: int) -> messages.PolicyTold:
        core, told, text = self._core, self.reasons, await self._written()
        works = not any(not each.gpu for each in told)
        return messages.PolicyTold(
            number, works, told, _words(self._facts), _words(core.policy), core.wake_us or 0, text
        )

    async def _what_if(self, number: int, assume: dict[str, str], text: str) -> messages.PolicyTold:
        policy = policy_file.parsed(text).complete() if text else self._core.policy
        facts = assumed(self._with_said(await self._found(policy)) if text else self._facts, assume)
        reasons = explain(policy, facts)
        works = not any(not reason.gpu for reason in reasons)
        text = text or await self._written()
        return messages.PolicyTold(number, works, tuple(map(_told, reasons)), _words(facts), _words(policy), 0, text)

    async def _written(self) -> str:
        """The table's text, "" if there is none. Read again only when the file has changed: a terminal asks all the
        time."""
        with suppress(OSError, InvalidError):
            found = self._file.stat()
            state = (found.st_mtime_ns, found.st_size)
            if state != self._text[0]:
                self._text = (state, await trio.to_thread.run_sync(policy_file.read, self._file))
            return self._text[1]
        return ""


def _told(reason: Reason) -> messages.Reason:
    return messages.Reason(reason.code, reason.text, reason.fix, reason.gpu, reason.since_us)


def _words(struct: Facts | Policy) -> dict[str, str]:
    names = struct.__struct_fields__ if isinstance(struct, msgspec.Struct) else [each.name for each in fields(struct)]
    words = {name: msgspec.json.encode(getattr(struct, name)).decode() for name in names if name != "gpus"}
    for gpu in struct.gpus if isinstance(struct, Facts) else ():
        words[f"gpu {gpu.index}"] = ", ".join(
            f"{name} {value}" for name, value in asdict(gpu).items() if name != "index" and value is not None
        )
    return words


def assumed(facts: Facts, assume: dict[str, str]) -> Facts:
    """Facts with some of them as they are said, in JSON or plain words. Raises `InvalidError`."""
    kinds = {each.name: each.type for each in fields(Facts) if each.name not in ("gpus", "paused_until_us")}
    known = msgspec.json.decode(msgspec.json.encode(facts))
    for name, text in assume.items():
        if name not in kinds:
            raise InvalidError(f"There is no fact {name!r}.", fix=f"Facts are: {', '.join(kinds)}.")
        known[name] = _value(text)
    try:
        return msgspec.convert(known, Facts)
    except msgspec.ValidationError as error:
        raise InvalidError("A fact cannot be so.", why=str(error), fix="See `potluck policy explain`.") from None


def _value(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
