"""The provider's side of leases: runs the provider core, its pools and streams, and writes receipts."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from potluck import __version__
from potluck.errors import Error, RefusedError, RemoteProtocolError
from potluck.wire import Failure
from potluck.wire import lease as messages
from potluck.wire.state import StateAsked, StateDropped, StateTold
from potluck.wire.worker import WorkerLog
from potluck_ledger.entries import sign
from potluck_ledger.journal import Journal, Problem
from potluck_ledger.keys import PrivateKey
from potluck_node.books import Keep, at_once
from potluck_node.clock import Clock
from potluck_node.core import provider_events as ev
from potluck_node.core.pools import Capacity
from potluck_node.core.provider import ProviderCore
from potluck_node.core.receipts import unbillable
from potluck_node.core.relay import Origin, Passed, Relay
from potluck_node.devices.interface import Binding, Devices
from potluck_node.engine import Engine
from potluck_node.gpu_claims import GpuClaims
from potluck_node.gpus import GpuWatch
from potluck_node.lease_secrets import opened
from potluck_node.link import Link, LocalLink, StreamLink, local_links
from potluck_node.neighbours import Neighbours
from potluck_node.pool import Images, OpenGateway, Pool
from potluck_node.pool_volumes import Mounted, OpenVolumes
from potluck_node.quota_gate import QuotaGate
from potluck_node.roots import Roots
from potluck_node.sandbox.interface import Launcher, Zygote
from potluck_node.sandbox.network import MakeGateway, make_gateway
from potluck_node.settling import Held, Settling
from potluck_node.transport.interface import Stream
from potluck_node.volumes.asks import NodeAsks
from potluck_node.volumes.mounts import Mounts

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.provider")

# Leases at once, over all callers. Each costs a few KiB and a stream; a thousand is more than 16 pools can use.
LEASES_MAX = 1000
# When the arguments found no room here, when to ask again: by then workers have finished with some.
NO_ROOM_RETRY_US = 5_000_000
# Whoever did not sign may come back, in case the other side was at fault; not often.
UNSIGNED_RETRY_US = 60_000_000


class Provider:
    """`on_offer` is called whenever the offer should be told anew."""

    def __init__(
        self, name: str, key: PrivateKey, capacity: Capacity, images: Images, launcher: Launcher, journal: Journal,
        clock: Clock, *, idle_us: int, devices: Devices | None = None, lent_gpus: str | tuple[str | int, ...] = "all",
        gateway: MakeGateway = make_gateway, claims: GpuClaims | None = None,
    ) -> None:  # fmt: skip
        self._key, self._images, self._launcher, self._journal, self._clock = key, images, launcher, journal, clock
        self._name = name
        self.core = ProviderCore(name, capacity, __version__, idle_us, key.peer)
        self._engine = Engine[ev.Event, ev.Action](self.core, self._do, ev.Tick(), clock)
        self._pools: dict[str, Pool] = {}
        self._gateway: OpenGateway = lambda asked, say: gateway(asked, capacity.network, say)
        self.gpus = (
            GpuWatch(devices, lent_gpus, self.core.gpus, self._sandboxes, self._engine.submit, clock, claims)
            if devices
            else None
        )
        self._held: dict[str, Held] = {}
        self._relay = Relay()
        self._asks = NodeAsks(self._relay, self._post_lease)
        # Without these, functions find no volumes here.
        self.mounts: Mounts | None = None
        # Without these, the machine counts as ours alone.
        self.neighbours: Neighbours | None = None
        # Without these, the roots of sandboxes can only be read.
        self.roots: Roots | None = None
        self._nursery: trio.Nursery | None = None
        self.on_offer: Callable[[], None] = lambda: None
        # Told what the owner wants, besides the core.
        self.on_owner: Callable[[object], None] = lambda event: None
        keep = at_once(journal)
        self._settling = Settling(key, journal, keep, clock, lambda why: self.submit(ev.Paused(why)))
        # Who may use how much; None lets everybody.
        self.quota: QuotaGate | None = None
        # Why nothing is run for a peer; "" for all others.
        self.refuses: Callable[[str], str] = lambda peer: ""

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run pools until cancelled; then every sandbox is gone."""
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._engine.serve)
            if self.gpus:
                await self._nursery.start(self.gpus.serve)
            if self.neighbours:
                await self._nursery.start(self.neighbours.serve)
            task_status.started()

    def submit(self, event: ev.FromOwner) -> None:
        self._engine.submit(event)
        self.on_owner(event)

    def keep_with(self, keep: Keep) -> None:
        """How what is signed is kept, instead of one by one."""
        self._settling.keep = keep

    async def settled(self) -> None:
        """Wait until no lease is open and every receipt is written."""
        for held in list(self._held.values()):
            await held.gone.wait()

    # Leases

    async def on_stream(self, stream: Stream) -> None:
        """Serve one lease stream; the transport runs this for each."""
        names: list[str] = []

        def take(message: object) -> None:
            if not names:
                names.append(self._ask(message, stream.peer, link))
            else:
                self._take(names[0], message)

        def no_room(why: str) -> None:
            link.post(self._no_room(why))
            for name in names:
                self._engine.submit(ev.LeaseGone(name, f"no room: {why}"))

        link = StreamLink(stream, messages.ToProvider, take, self._clock, no_room=no_room)
        why = await link.run()
        if names:
            self._gone(names[0], why or "the caller is done")

    def _no_room(self, why: str) -> messages.LeaseRefused:
        failure = Failure.of(RefusedError(f"{self._name} has no room for the arguments.", why=why))
        return messages.LeaseRefused("busy", failure, NO_ROOM_RETRY_US)

    def open_local(self, lease: str) -> LocalLink:
        """Join a lease of this node with itself; returns the caller's end."""
        ours, theirs = local_links()
        ours.on_message = lambda message: self._take_local(lease, ours, message)
        return theirs

    def _take_local(self, lease: str, link: LocalLink, message: object) -> None:
        if lease in self._held:
            self._take(lease, message)
        else:
            self._ask(message, self._key.peer, link)

    def _ask(self, message: object, caller: str, link: Link) -> str:
        if not isinstance(message, messages.LeaseRequest):
            raise RemoteProtocolError("A lease begins with a request.")
        if why := unbillable(message.lease, caller) or self._used_before(message.lease, caller):
            raise RemoteProtocolError("Nothing could be signed of this lease.", why=why)
        if message.lease in self._held or len(self._held) >= LEASES_MAX:
            failure = Failure.of(RefusedError("This node holds too many leases, or this one already."))
            link.post(messages.LeaseRefused("busy", failure))
            link.finish()
            return ""
        if why := self.refuses(caller) or self._unsigned(caller):
            link.post(messages.LeaseRefused("quota", Failure.of(RefusedError(why)), UNSIGNED_RETRY_US))
            link.finish()
            return ""
        if self.quota and (refused := self.quota.opens(message.lease, caller, message.function)):
            link.post(refused)
            link.finish()
            return ""
        request = opened(message, self._key)
        self._held[message.lease] = Held(caller, link)
        self._engine.submit(ev.LeaseAsked(message.lease, caller, request))
        return message.lease

    def _used_before(self, lease: str, caller: str) -> str:
        """A caller that names two leases alike would owe for one of them."""
        return "there was one of its name before" if self._journal.knows_lease(caller, lease) else ""

    def _unsigned(self, caller: str) -> str:
        account = self._journal.accounts.by_peer.get(caller)
        if account is None or not account.owes_too_much:
            return ""
        left = f"did not sign for {account.unsigned_us / 1e6:.0f} s that it used there"
        return f"{self._name} runs nothing more for this node, which {left}."

    def _take(self, lease: str, message: object) -> None:
        if isinstance(message, messages.Input):
            self._engine.submit(ev.InputCame(lease, message))
        elif isinstance(message, messages.InputPiece):
            self._engine.submit(ev.PieceCame(lease, message.input, message.payload))
        elif isinstance(message, messages.CancelInput):
            self._engine.submit(ev.InputDropped(lease, message.input, message.reason))
        elif isinstance(message, messages.ItemsTaken):
            self._engine.submit(ev.ItemsTaken(lease, message.input, message.items))
        elif isinstance(message, messages.ScaleWorkers):
            self._engine.submit(ev.LeaseScaled(lease, message.least, message.most))
        elif isinstance(message, StateTold):
            self._told(lease, message)
        elif isinstance(message, messages.CloseLease):
            self._lease_left(lease)
            self._engine.submit(ev.LeaseGone(lease, message.reason))
        elif isinstance(message, messages.ReceiptSigned):
            held = self._held.get(lease)
            if held:
                held.countersigned = message.envelope
                held.signed.set()
        elif isinstance(message, messages.VoucherSigned):
            self._voucher(lease, message)

    def _gone(self, lease: str, why: str) -> None:
        self._lease_left(lease)
        self._engine.submit(ev.LeaseGone(lease, why))
        held = self._held.pop(lease, None)
        if held:
            held.signed.set()
            held.gone.set()

    # Actions

    def _do(self, action: ev.Action) -> None:
        if isinstance(action, ev.Post):
            if action.lease in self._held:
                self._held[action.lease].link.post(action.message)
        elif isinstance(action, ev.Run):
            self._pools[action.pool].run(action)
        elif isinstance(action, ev.SpawnWorker):
            self._pools[action.pool].spawn(action.worker, action.gpus)
            if self.gpus and action.gpus:
                self.gpus.hurry()
        elif isinstance(action, ev.AckItems):
            self._pools[action.pool].ack_items(action.worker, action.number, action.items)
        elif isinstance(action, ev.SendPiece):
            self._pools[action.pool].send_piece(action.worker, action.number, action.payload)
        elif isinstance(action, ev.Tell):
            if action.pool in self._pools:
                self._pools[action.pool].tell(action.worker, action.message)
        elif isinstance(action, ev.StopInput):
            self._pools[action.pool].stop_input(action.worker, action.number)
        elif isinstance(action, ev.WarnWorker):
            self._pools[action.pool].warn(action.worker, action.grace_us)
        elif isinstance(action, ev.CalmWorker):
            self._pools[action.pool].calm(action.worker)
        elif isinstance(action, ev.StopWorker):
            self._pools[action.pool].stop(action.worker)
        elif isinstance(action, ev.KillWorker):
            if action.pool in self._pools:
                self._pools[action.pool].kill(action.worker)
        elif isinstance(action, ev.PreparePool):
            self._prepare(action)
        elif isinstance(action, ev.ClosePool):
            if action.pool in self._pools:
                self._pools[action.pool].close()
        elif isinstance(action, ev.SettleLease):
            assert self._nursery
            self._nursery.start_soon(self._settle, action)
        elif isinstance(action, ev.OfferVoucher):
            self._offer_voucher(action)
        elif isinstance(action, ev.VoucherRefused):
            log.warning("a voucher of lease %s is not taken: %s", action.lease, action.why)
        elif isinstance(action, ev.Hangup):
            self._forget_quota(action.lease)
            held = self._held.pop(action.lease, None)
            if held:
                held.link.finish()
                held.gone.set()
        else:
            self.on_offer()

    def _prepare(self, action: ev.PreparePool) -> None:
        assert self._nursery

        async def on_log(worker: str, message: WorkerLog) -> None:
            await self._log(action.pool, worker, message)

        async def flow(worker: str, number: int) -> None:
            await self._flow(action.pool, worker, number)

        async def on_state(worker: str, message: StateAsked | StateDropped) -> None:
            await self._state(action.pool, worker, message)

        submit = self._submit_from_pool
        pool = Pool(action, self._images, self._launcher, submit, on_log, flow, self._bind, self._gateway, on_state)
        pool.volumes.open = self._opener(action)
        pool.volumes.open_root = self.roots.open if self.roots else None
        self._pools[action.pool] = pool

        async def life() -> None:
            await pool.serve(lambda progress: self._progress(action.pool, progress))
            self._pools.pop(action.pool, None)
            self._engine.submit(ev.PoolGone(action.pool))

        self._nursery.start_soon(life)

    def _opener(self, action: ev.PreparePool) -> OpenVolumes | None:
        """The way to a worker's volumes, which are their owner's: asked for along the lease of what it runs."""
        if self.mounts is None:
            return None
        mounts = self.mounts

        def open_volumes(
            worker: str, broken: Callable[[Error], None], say: Callable[[str], None]
        ) -> AbstractAsyncContextManager[Mounted]:
            async def ask(payload: bytes) -> bytes:
                running = self.core.running(action.pool, worker)
                leases = [running[0]] if running else sorted(self.core.leases_of(action.pool))
                return await self._asks.ask(action.pool, worker, leases, payload)

            return mounts.open(action.function, action.caller, ask, broken, say)

        return open_volumes

    def _progress(self, pool: str, progress: messages.LeaseProgress) -> None:
        for lease in self.core.leases_of(pool):
            if lease in self._held:
                self._held[lease].link.post(progress)

    async def _log(self, pool: str, worker: str, message: WorkerLog) -> None:
        found = self.core.running(pool, worker, message.input)
        held = self._held.get(found[0]) if found else None
        if found and held:
            held.link.post(messages.InputLog(found[1], worker, message.stream, message.data))
            await held.link.drained()

    async def _flow(self, pool: str, worker: str, number: int) -> None:
        found = self.core.running(pool, worker, number)
        held = self._held.get(found[0]) if found else None
        if held:
            await held.link.drained()

    # Shared state, which is on the caller's node

    async def _state(self, pool: str, worker: str, message: StateAsked | StateDropped) -> None:
        origin = Origin(pool, worker, message.number)
        if isinstance(message, StateDropped):
            if self._relay.awaited(origin) is not None:
                self._engine.submit(ev.CallLeft(pool, worker, message.number))
            if passed := self._relay.dropped(origin):
                self._post_lease(passed.lease, StateDropped(passed.number))
            return
        running = self.core.running(pool, worker, message.input) or self.core.running(pool, worker)
        leases = [running[0]] if running else self.core.leases_of(pool)
        held = self._held.get(leases[0]) if leases else None
        passed = self._relay.asked(origin, leases[0], message.waits, message.streams) if held else None
        if held is None or passed is None:
            failure = Failure.of(
                RefusedError("There is no way to the caller's node now.", fix="Ask while an input runs.")
            )
            await self._pools[pool].refuse(worker, message.number, failure)
            return
        if message.waits:
            self._engine.submit(ev.CallAwaited(pool, worker, message.number, message.input))
        known = running[1] if running and message.input else 0
        held.link.post(StateAsked(passed.number, message.payload, known, message.about, message.waits))
        await held.link.drained()

    def _told(self, lease: str, message: StateTold) -> None:
        origin = self._relay.told(Passed(lease, message.number))
        if origin:
            self._answer(origin, StateTold(origin.number, message.payload, message.failure))

    def _answer(self, origin: Origin, told: StateTold) -> None:
        if self._asks.told(origin, told):
            return
        streams = self._relay.awaited(origin)
        if streams is not None:
            self._engine.submit(ev.AnswerCame(origin.pool, origin.worker, told, streams))
        elif origin.pool in self._pools:
            self._pools[origin.pool].tell(origin.worker, told)

    def _lease_left(self, lease: str) -> None:
        failure = Failure.of(RefusedError("The caller's node is gone."))
        for origin in self._relay.lease_gone(lease):
            self._answer(origin, StateTold(origin.number, failure=failure))

    def _submit_from_pool(self, event: ev.Event) -> None:
        if isinstance(event, ev.WorkerGone):
            for passed in self._relay.worker_gone(event.pool, event.worker):
                self._post_lease(passed.lease, StateDropped(passed.number))
        self._engine.submit(event)

    def _post_lease(self, lease: str, message: StateAsked | StateDropped) -> bool:
        """Whether there is such a lease."""
        if lease in self._held:
            self._held[lease].link.post(message)
        return lease in self._held

    # GPUs

    def _bind(self, gpus: tuple[str, ...]) -> Binding:
        assert self.gpus
        return self.gpus.devices.binding(gpus)

    def _sandboxes(self) -> dict[str, int]:
        return {worker: pid for pool in self._pools.values() for worker, pid in pool.sandboxes().items()}

    def sandbox_of(self, worker: str) -> tuple[str, Zygote] | None:
        """For whom a worker works, and the sandbox in which it is."""
        for pool in self._pools.values():
            if zygote := pool.sandbox_of(worker):
                return pool.caller, zygote
        return None

    @contextmanager
    def lend(self, requests: tuple[str, ...]) -> Iterator[Binding]:
        """GPUs for something that is no call, such as a step of an image's build, for as long as the block lasts.

        `requests` as in `@app.function(gpu=…)`, the preferred first. Raises `RefusedError` when none is free now.
        """
        holder, desk = f"lent-{secrets.token_hex(8)}", self.core.gpus
        hold = desk.take(holder, requests) if self.gpus else None
        if hold is None:
            why = desk.why_never(requests) or desk.why_not_now(requests)
            raise RefusedError(f"No GPU is to be had here for {' or '.join(requests)}.", why=why)
        if self.gpus:
            self.gpus.hurry()
        try:
            uuids = tuple(gpu.uuid for gpu in hold.gpus)
            yield replace(self._bind(uuids), gpus=frozenset(uuids))
        finally:
            desk.release(holder)
            self._engine.submit(ev.Tick())

    # Vouchers and receipts

    def _offer_voucher(self, action: ev.OfferVoucher) -> None:
        """Beyond its caller's quota the lease ends, with a receipt for what it used."""
        self._do(ev.Post(action.lease, messages.VoucherOffered(sign(self._key, action.voucher).encode())))
        if self.quota and (refused := self.quota.used(action.lease, action.voucher.lease_us)):
            self._do(ev.Post(action.lease, refused))
            self._engine.submit(ev.LeaseGone(action.lease, "quota"))

    def _voucher(self, lease: str, message: messages.VoucherSigned) -> None:
        """Keep it before it counts."""
        if message.refused:
            log.warning("the caller of lease %s does not sign a voucher: %s", lease, message.refused)
            return
        envelope = message.envelope

        def held(problem: Problem) -> None:
            if problem:
                log.warning("a voucher of lease %s is not kept: %s", lease, problem)
            else:
                self._engine.submit(ev.VoucherCame(lease, envelope))

        self._settling.keep(lambda: self._journal.hold(envelope), held)

    async def _settle(self, action: ev.SettleLease) -> None:
        held = self._held.get(action.lease)
        await self._settling.settle(action, held, self.gpus)
        self._forget_quota(action.lease)
        self._held.pop(action.lease, None)
        if held:
            held.link.finish()
            held.gone.set()

    def _forget_quota(self, lease: str) -> None:
        if self.quota:
            self.quota.closed(lease)
