"""The composition root: what a node is made of, and in which order it starts and ends.

control socket ─ caller ─┐                     ┌─ provider ─ pools ─ sandboxes
                         ├─ transport (lease) ─┤
discovery ─ offer book ──┘                     └─ images (chunks)
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from potluck import __version__, paths, wire
from potluck.errors import InvalidError, RefusedError
from potluck.wire import control
from potluck.wire.lease import InputLog
from potluck.wire.metrics import exposition
from potluck.wire.offer import Offer
from potluck.wire.spawned import SpawnQuestion
from potluck_images.disk import DiskStore
from potluck_ledger.journal import Journal, JournalError
from potluck_ledger.keys import KeyFileError, load_or_create
from potluck_ledger.sealing import Vault
from potluck_node import desk, history, private_mesh, strangers
from potluck_node.apps import AppClient, Apps
from potluck_node.audit_desk import AuditDesk
from potluck_node.bench_desk import BenchDesk
from potluck_node.build_peers import BUILD_PROTOCOL, BuildPeers, find_builder
from potluck_node.caller import LEASE_PROTOCOL, Caller
from potluck_node.chunks import CHUNKS_PROTOCOL
from potluck_node.clock import Clock
from potluck_node.commands import Commands
from potluck_node.config import CONFIG_FILE, GATEWAY, Settings
from potluck_node.control import ControlServer
from potluck_node.core import events as ev
from potluck_node.core import provider_events as pev
from potluck_node.core.offers import OFFER_LIFE_US, OfferBook, rank_offer
from potluck_node.core.pools import Capacity
from potluck_node.core.quotas import weigher
from potluck_node.deployed_images import DeployedImages
from potluck_node.deployments import Deployments
from potluck_node.desk import ForDesk, Progress
from potluck_node.devices.interface import Binding, Devices
from potluck_node.devices.owner import Owner
from potluck_node.discovery import Discovery
from potluck_node.doings import DoingsDesk
from potluck_node.fetch import Caps, Fetcher
from potluck_node.gateway import Gateway
from potluck_node.gateway_guests import Guests
from potluck_node.gateway_owners import WEB_PROTOCOL, Owners
from potluck_node.gpu_claims import GpuClaims
from potluck_node.home import Home
from potluck_node.image_desk import ImageDesk
from potluck_node.images import ImageService
from potluck_node.journal_sync import JournalSync
from potluck_node.keeping import Keeping
from potluck_node.lab import Lab
from potluck_node.lab_sync import LabSync
from potluck_node.membership import Membership, found_in
from potluck_node.metrics import Metrics
from potluck_node.neighbours import Neighbours
from potluck_node.nested import Nested
from potluck_node.plain_offer import plain_offer
from potluck_node.policy import PolicyDesk
from potluck_node.provider import Provider
from potluck_node.quota_desk import QuotaDesk
from potluck_node.quota_gate import QuotaGate
from potluck_node.roots import Roots
from potluck_node.sandbox.network import MakeGateway, make_gateway
from potluck_node.sandbox.tiers import Tiers
from potluck_node.schedules import Schedules
from potluck_node.secret_store import SecretStore
from potluck_node.snapshots import Snapshots
from potluck_node.spawned import Show, SpawnedCalls
from potluck_node.spawned_store import SpawnedStore
from potluck_node.state.app_key import AppKey
from potluck_node.state.service import State
from potluck_node.status import make_status
from potluck_node.tokens import Tokens
from potluck_node.transport.interface import RecordRank, Transport
from potluck_node.volumes.copying import VOLUMES_PROTOCOL, Copying
from potluck_node.volumes.kept import Keeper
from potluck_node.volumes.mounts import Mounts
from potluck_node.volumes.service import VolumeService
from potluck_node.witnesses import Witnesses

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from trio_typing import TaskStatus

    from potluck_ledger.keys import PrivateKey

log = logging.getLogger("potluck.node")

# How long leases may take to close and receipts to be signed when the node stops.
STOP_TIMEOUT_S = 6.0
# An embedded node ends when nobody used it for this long.
EMBEDDED_IDLE_S = 300.0


@dataclass(frozen=True)
class Parts:
    """What differs between a real node, an embedded one, and one in a test."""

    make_transport: Callable[[PrivateKey, Settings, RecordRank, Membership | None], Transport]
    launcher: Tiers | None
    clock: Clock
    socket: Path
    embedded: bool = False
    warning: str = ""
    devices: Devices | None = None
    gateway: MakeGateway = make_gateway
    claims: GpuClaims | None = None


def _own_key(path: Path) -> PrivateKey:
    try:
        return load_or_create(path)
    except KeyFileError as error:
        raise InvalidError("The node's key cannot be used.", why=str(error)) from None


def _own_journal(path: Path, key: PrivateKey) -> Journal:
    try:
        return Journal(path, key)
    except JournalError as error:
        raise InvalidError(
            "The node's journal does not hold.",
            why=str(error),
            fix=f"Restore the newest backup of {path}; without one, move it and node.key away, and start anew.",
        ) from None


class Node:
    """Everything of one node. Raises `DataFolderBusyError`, or `InvalidError` when the folder cannot be used."""

    def __init__(self, home: Path, settings: Settings, parts: Parts) -> None:
        self.settings, self.warning, self.embedded = settings, parts.warning, parts.embedded
        self._parts, self._clock = parts, parts.clock
        self.home = Home(home)
        self.key = _own_key(self.home.key)
        self.membership = None if self.embedded else found_in(home, self.key, self._clock)
        if self.membership:
            settings, warning = self.membership.settled(settings)
            self.settings, self.warning = settings, warning or self.warning
        vault = Vault(self.key)
        self.journal = _own_journal(self.home.journal, self.key)
        for lease in self.journal.held():
            # It ran when the node died: what was signed of it is all that there is.
            self.journal.release(lease, self._clock.now_us())
        self.keeping = Keeping(self.journal)
        self.lab = Lab(self.home.lab, self.journal, settings.mesh, frozenset(settings.ledger_admins))
        self.book = OfferBook(settings.mesh, self.key.peer)
        self.transport = parts.make_transport(self.key, settings, self._rank, self.membership)
        store_bytes = int(settings.store_gib * (1 << 30))
        self.images = ImageService(home, store_bytes, self._make_fetcher, settings.lazy)
        self.image_desk = ImageDesk(self.images, home)
        for_others = settings.build_for_others and not self._own_only()
        self.build_peers = BuildPeers(self.images, self.transport, self._clock, home, settings.name, for_others)
        self.levels = private_mesh.levels(self.key.peer, settings, self.membership)
        self.caller = Caller(self.transport, self.key, self.book, self.journal, self._clock, self.levels.of)
        place, state_bytes = settings.state or self.home.state, int(settings.state_gib * (1 << 30))
        self.state = State(place, self.key.peer, self._clock, state_bytes, settings.tunnels)
        self._spawned_store = SpawnedStore(self.home.spawned, vault)
        self.spawned = SpawnedCalls(self._spawned_store, self.caller, self._clock, self.state.errands)
        self.caller.state = self.state
        self.snapshots = Snapshots(self.images, self._clock)
        self.state.errands.keep = self.snapshots.keep
        self.volumes = self.state.volumes = VolumeService(home, self.images, self.state, self.key, self._clock)
        self.copying = Copying(
            self.transport, self.images, self.state, self._clock, settings.volume_copies, self._trusted_peers
        )
        self.keeper = Keeper(home, self.images, self._clock, int(settings.volume_keep_gib * (1 << 30)))
        self.provider = self._make_provider() if settings.offer and parts.launcher else None
        self.bench = BenchDesk(self.home.scores, self.provider, lambda: self.discovery.touch())
        self.policy = PolicyDesk(settings.policy, self.provider, Owner(home), self._clock, home / CONFIG_FILE)
        self.commands = Commands(self.provider, self.key.peer)
        self.discovery = Discovery(self.transport, self.key, self.book, self._clock, self.make_offer)
        self.witnesses = Witnesses(self.key, self.journal, settings.witnesses, settings.witnesses_needed)
        self.journal_sync = JournalSync(self.transport, self.journal, settings.mesh, self._clock, self.witnesses)
        self.control = ControlServer(parts.socket, self)
        self.metrics = Metrics(settings.metrics, lambda: exposition(self.status(0)))
        self.secrets = SecretStore(self.home.secrets, vault, self._clock)
        app_key = AppKey(self.key, self.levels.secrets)
        self.tokens = Tokens(self.state, app_key, self.home.tokens)
        self.lab_sync = LabSync(self.transport, self.journal, self.lab)
        self.quotas = QuotaDesk(self.lab, self.key, settings.mesh, self._clock)
        self.audit = AuditDesk(self.transport, self.journal_sync, self.lab, self._offering)
        self.doings = DoingsDesk(self, self.transport, self._clock)
        self.gateway = Gateway(settings, GATEWAY, self.caller, self.tokens.admits)
        self.gateway.owners = Owners(settings.forward, self.transport, self._clock)
        self.guests = Guests(self.gateway, self.caller, self._clock, lambda: self.gateway.heard)
        self.deployments = Deployments(self.state, app_key, self.key.peer, self.caller, self._clock)
        self.deployed_images = DeployedImages(self.images)
        self.schedules = Schedules(self.state, self.spawned, self.deployments.find, self.key.peer, self._clock)
        self.apps = Apps(self.deployments, self.schedules, self.spawned, self._app_clients, self._clock)
        self.caller.nested = Nested(self.caller, self.apps.named, self.spawned)
        self.started_us = self._clock.now_us()
        self._sequence = self.home.next_sequence(self.started_us)
        self._scope, self._stopping, self._ended = trio.CancelScope(), trio.Event(), trio.Event()
        self._plain_offer = plain_offer(self.key.peer, settings, parts.launcher.tiers if parts.launcher else ())
        self._wire_up()

    def _app_clients(self) -> list[AppClient]:
        return [*self.control.app_clients(), self.gateway]

    def _offering(self) -> list[str]:
        return [offer.peer for offer in self.book.fresh(self._clock.now_us())]

    def _trusted_peers(self) -> list[str]:
        """Those that are up, the nearest first."""
        peers = [peer for peer in self._offering() if self.levels.secrets(peer)]
        rtt_us = self.caller.core.rtt_us
        return sorted(peers, key=lambda peer: (rtt_us.get(peer, sys.maxsize), peer))

    def _rank(self, key: str, value: bytes) -> int | None:
        return rank_offer(key, value, self._clock.now_us())

    def _make_fetcher(self, store: DiskStore) -> Fetcher:
        settings = self.settings
        caps = Caps(
            upload=round(settings.upload_mib_s * (1 << 20)),
            download=round(settings.download_mib_s * (1 << 20)),
            # Chunks and the unpacked tree both take room.
            image_bytes=int(settings.store_gib * (1 << 30)) // 2,
        )
        return Fetcher(self.transport, store, self.book, self._clock, caps)

    def _make_provider(self) -> Provider:
        settings = self.settings
        assert self._parts.launcher
        capacity = Capacity(
            round(settings.cpus * 1000), settings.memory_mib, self._parts.launcher.tiers, settings.gpu_share,
            settings.lent_network, settings.zygote_mib, lambda caller: self.levels.of(caller).tier,
        )  # fmt: skip
        provider = Provider(
            settings.name, self.key, capacity, self.images, self._parts.launcher, self.journal, self._clock,
            idle_us=round(settings.idle_s * 1e6), devices=self._parts.devices, lent_gpus=settings.gpus,
            gateway=self._parts.gateway, claims=self._parts.claims,
        )  # fmt: skip
        written_max = int(settings.volume_gib * (1 << 30))
        provider.mounts = Mounts(self.home.path, self.images, written_max)
        provider.roots = Roots(self.home.path, self.images, written_max)
        folder = Path(settings.share_machine) if settings.share_machine else paths.shared_folder(self.home.path)
        provider.neighbours = Neighbours(folder, provider.core.room.reserved, provider.submit)
        return provider

    def _wire_up(self) -> None:
        """Who tells whom."""
        self.caller.keep = self.witnesses.keep = self.keeping.keep
        if self.membership:
            private_mesh.wire(self, self.membership)
        self.strangers = strangers.of(self, self._clock)
        self.history = history.of(self, self._clock)
        self.caller.own_offer = self.own_offer
        self.caller.core.weighs = self.lab.quotas.weighs = weigher(self.settings.gpu_weights)
        self.spawned.on_outcome = self.schedules.ended
        self.deployments.changed.append(self.deployed_images.changed)
        self.deployments.changed.append(lambda app, deployment: self.schedules.look())
        self.spawned.on_log = self.gateway.heard = self.apps.heard
        self.caller.on_standing, self.deployments.retired = self.deployments.standing, self.gateway.retire
        self.gateway.endpoints, self.apps.web_base = self.apps, self.gateway.base
        self.journal_sync.convicted, self.journal_sync.on_behind = self._convicted, self._behind
        self.discovery.provided = self.images.provided
        self.discovery.changed = lambda: self.caller.submit(ev.OffersChanged())
        self.images.changed = self.discovery.touch
        self.images.lend = self.lend
        self.volumes.changed, self.volumes.copies = self.copying.poke, self.copying.count
        self.volumes.sources, self.volumes.mend = self.copying.sources, self.copying.mend
        self.volumes.lost = self.copying.lost
        self.keeper.trusts = self.levels.secrets
        self.transport.handle(VOLUMES_PROTOCOL, self.keeper.on_stream)
        self.transport.handle(CHUNKS_PROTOCOL, self.images.fetcher.serve)
        self.transport.handle(BUILD_PROTOCOL, self.build_peers.on_stream)
        self.transport.handle(WEB_PROTOCOL, self.guests.on_stream)
        if self.provider:
            self.provider.keep_with(self.keeping.keep)
            self.caller.open_local = self.provider.open_local
            self.provider.on_offer, self.provider.on_owner = self._offer_changed, self.images.builds.heed
            core = self.provider.core
            self.images.why_held, self.build_peers.stopped = core.gpus.why_all_held, lambda: core.paused
            self._watch_quotas(self.provider)
            self.provider.refuses = lambda peer: self.book.banned.get(peer, "")
            if not self._own_only():
                self.transport.handle(
                    LEASE_PROTOCOL, private_mesh.for_callers(self.membership, self.provider.on_stream)
                )

    def _watch_quotas(self, provider: Provider) -> None:
        gate = QuotaGate(
            self.lab, self.journal, self._clock, self.settings.name, self.settings.quota_deficit_s,
            lambda: provider.core.gpus.offers(), tuple(sorted(self.settings.labels.items())),
        )  # fmt: skip
        provider.quota, provider.core.room.share, self.lab_sync.running = gate, gate.share, gate.running
        provider.core.room.caps = gate.caps

    def _own_only(self) -> bool:
        """Whether too little stands between functions and this machine: then others may not send any."""
        launcher = self._parts.launcher
        if launcher is None:
            return False
        return launcher.tier == "process" or bool(launcher.lacking and not self.settings.without_limits)

    def _convicted(self, peer: str) -> None:
        self.book.ban(peer, "it keeps two journals, which is proved")
        self.caller.submit(ev.OffersChanged())

    def _behind(self, why: str) -> None:
        """Nothing is given to others or taken from them any more: nothing of it could be signed."""
        self.warning = f"{why[0].upper()}{why[1:]}."
        self.book.close(why)
        if self.provider:
            self.provider.submit(pev.Paused(why))
        self.caller.submit(ev.OffersChanged())

    def _offer_changed(self) -> None:
        self.discovery.touch()
        self.caller.submit(ev.OffersChanged())

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `stop`. `started` means: clients are served and peers can reach us."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.keeping.serve)
                    await nursery.start(self.transport.serve)
                    if self.membership:
                        await nursery.start(self.membership.serve)
                    await nursery.start(self.state.serve)
                    await nursery.start(self.volumes.serve)
                    await nursery.start(self.snapshots.serve)
                    await nursery.start(self.copying.serve)
                    await nursery.start(self.caller.serve)
                    if self.provider and self._parts.launcher:
                        await nursery.start(self._parts.launcher.serve)
                        await nursery.start(self.provider.serve)
                    await nursery.start(self.discovery.serve)
                    await nursery.start(self.journal_sync.serve)
                    await nursery.start(self.lab_sync.serve)
                    await nursery.start(self.spawned.serve)
                    await nursery.start(self.deployed_images.serve)
                    await nursery.start(self.deployments.serve)
                    await nursery.start(self.tokens.serve)
                    await nursery.start(self.gateway.serve)
                    await nursery.start(self.schedules.serve)
                    if self.apps.answering() or self.settings.forward:
                        await self._open_gateway()
                    await nursery.start(self.control.serve)
                    await nursery.start(self.metrics.serve)
                    nursery.start_soon(self._end_when_stopped)
                    if self.embedded:
                        nursery.start_soon(self._end_when_unused)
                    else:
                        self.policy.follow_logind()
                        await nursery.start(self.policy.serve)
                        nursery.start_soon(self.bench.serve)
                    log.info("%s is up as %s", self.settings.name, self.key.peer)
                    task_status.started()
        finally:
            self._ended.set()
            self.images.close()
            self.journal.close()
            self.lab.close()
            self.strangers.close()
            self._spawned_store.close()
            self.state.close()
            self.secrets.close()
            self.home.close()

    async def _open_gateway(self) -> None:
        """What was deployed answers again; a node that cannot listen does all else."""
        try:
            await self.gateway.base()
        except InvalidError as error:
            log.error("%s", error)

    async def _end_when_unused(self) -> None:
        last = trio.current_time()
        while trio.current_time() - last < EMBEDDED_IDLE_S:
            await trio.sleep(1)
            if self.control.clients or self.spawned.running or self.gateway.busy:
                last = trio.current_time()
        self.stop()

    # What the node offers

    def make_offer(self) -> Offer | None:
        """What we offer now, unsigned, for the mesh."""
        offer = self.own_offer()
        if offer is None or self._own_only():
            return None
        now_us = self._clock.now_us()
        self._sequence = max(self._sequence + 1, now_us)
        return msgspec.structs.replace(
            offer,
            sequence=self._sequence,
            issued_us=now_us,
            expires_us=now_us + OFFER_LIFE_US,
            state="paused" if self.provider and self.provider.core.paused else "open",
            addresses=self.transport.addresses(),
            scores=self.bench.scores(),
        )

    def own_offer(self) -> Offer | None:
        """What we offer now, for our own placement, which asks before every lease: so this is cheap."""
        if self.provider is None:
            return None
        core = self.provider.core
        free, idle = core.room.free(), core.room.idle()
        return msgspec.structs.replace(
            self._plain_offer,
            state="paused" if core.paused and core.own_paused else "open",
            cpu_free_milli=free[0] + idle[0],
            memory_free_mib=free[1] + idle[1],
            slots_free=(free[0] + idle[0]) // 1000,
            gpus=core.gpus.offers(core.room.idle_workers()),
            images=self.images.held(),
            warm=core.warm(),
        )

    # The desk: what clients ask

    def welcome(self) -> control.Welcome:
        return control.Welcome(
            wire.PROTOCOL, __version__, self.key.peer, self.settings.name, self.settings.mesh, os.getpid()
        )

    def status(self, question: int) -> control.Status:
        return make_status(self, question, self._clock.now_us())

    def journal_answer(self, question: control.AskJournal) -> control.JournalAnswer:
        records = tuple(self.journal.records(question.after, control.JOURNAL_PAGE))
        more = question.after + len(records) < self.journal.head()[0]
        return control.JournalAnswer(question.question, self.key.peer, records, more, self.journal.witnessed())

    async def build(self, question: control.BuildImage, progress: Progress) -> tuple[str, str]:
        if question.on in ("", self.settings.name, self.key.peer):
            return await self.images.build(question.definition, question.secrets, progress)
        builder = find_builder(self.book.fresh(self._clock.now_us()), question.on)
        if question.secrets and not self.levels.secrets(builder.peer):
            raise RefusedError(
                f"{builder.name} is not trusted with the secrets of this image.",
                fix="Name it in the setting `trust`, or build without --build-on.",
            )
        return await self.build_peers.ask(question, builder, progress)

    async def answer_images(self, question: control.ImageQuestion, say: Progress) -> wire.Message:
        return await self.image_desk.answer(question, say)

    def lend(self, requests: tuple[str, ...]) -> AbstractContextManager[Binding]:
        """GPUs of this machine for a step of an image's build, while the block lasts. Raises `RefusedError`."""
        if self.provider is None:
            raise RefusedError(f"{self.settings.name} lends no GPUs.", why="it runs no functions")
        return self.provider.lend(requests)

    async def answer_spawned(self, question: SpawnQuestion, show: Show) -> wire.Message:
        return await self.spawned.answer(question, show)

    async def answer_apps(self, question: ForDesk, client: AppClient) -> wire.Message:
        return await desk.answer(self, question, client)

    def heard(self, app: str, function: str, message: InputLog) -> None:
        self.apps.heard(app, function, message)

    def pause(self, reason: str, now: bool, seconds: float = 0.0) -> None:
        self.policy.pause(reason, now, seconds)

    def resume(self) -> None:
        self.policy.resume()

    def stop(self) -> None:
        """End the node: running work is cancelled and told so, receipts are signed, then everything closes."""
        self._stopping.set()

    async def ended(self) -> None:
        """Wait until everything has closed."""
        await self._ended.wait()

    async def _end_when_stopped(self) -> None:
        await self._stopping.wait()
        self.pause("the node is being stopped", now=True)
        with trio.move_on_after(STOP_TIMEOUT_S):
            await self.caller.drain("the caller's node is being stopped")
            if self.provider:
                await self.provider.settled()
        await self.control.flush()
        self._scope.cancel()
