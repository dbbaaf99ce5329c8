"""What clients may ask of a node, and which of its parts answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from potluck import wire
from potluck.wire import control
from potluck.wire.accounts import QuotaQuestion
from potluck.wire.apps import AppQuestion, EndWork, RunCommand, WorkerQuestion
from potluck.wire.audit import AuditQuestion
from potluck.wire.bench import RunBench
from potluck.wire.doctor import AskReach
from potluck.wire.doings import AskMeshDoings
from potluck.wire.history import HistoryQuestion
from potluck.wire.lease import InputLog
from potluck.wire.policy import PolicyQuestion
from potluck.wire.spawned import SpawnQuestion
from potluck.wire.tokens import TokenQuestion
from potluck.wire.verify import StrangerQuestion
from potluck_node.apps import AppClient
from potluck_node.caller import Caller
from potluck_node.secret_store import SecretStore
from potluck_node.spawned import Show
from potluck_node.state.service import State

if TYPE_CHECKING:
    from potluck_node.node import Node


class Desk(Protocol):
    """What the node answers to its clients."""

    @property
    def caller(self) -> Caller: ...
    @property
    def state(self) -> State: ...
    @property
    def secrets(self) -> SecretStore: ...

    def welcome(self) -> control.Welcome: ...
    def status(self, question: int) -> control.Status: ...
    def journal_answer(self, question: control.AskJournal) -> control.JournalAnswer: ...
    async def build(self, question: control.BuildImage, progress: Progress) -> tuple[str, str]: ...
    async def answer_images(self, question: control.ImageQuestion, say: Progress) -> wire.Message: ...
    async def answer_spawned(self, question: SpawnQuestion, show: Show) -> wire.Message: ...
    async def answer_apps(self, question: ForDesk, client: AppClient) -> wire.Message: ...
    def heard(self, app: str, function: str, message: InputLog) -> None: ...
    def pause(self, reason: str, now: bool, seconds: float = 0.0) -> None: ...
    def resume(self) -> None: ...
    def stop(self) -> None: ...


class Progress(Protocol):
    def __call__(self, text: str, /) -> None: ...


# What the node's desk answers itself.
ForDesk = (
    AppQuestion
    | WorkerQuestion
    | TokenQuestion
    | QuotaQuestion
    | RunBench
    | AuditQuestion
    | AskMeshDoings
    | PolicyQuestion
    | HistoryQuestion
    | StrangerQuestion
    | AskReach
)


async def answer(node: Node, question: ForDesk, client: AppClient) -> wire.Message:
    """Raises `potluck.errors.Error`."""
    if isinstance(question, QuotaQuestion):
        return node.quotas.answer(question)
    if isinstance(question, AuditQuestion):
        return await node.audit.answer(question)
    if isinstance(question, AskMeshDoings):
        return await node.doings.answer(question)
    if isinstance(question, PolicyQuestion):
        return await node.policy.answer(question)
    if isinstance(question, HistoryQuestion):
        return await node.history.answer(question)
    if isinstance(question, StrangerQuestion):
        return node.strangers.answer(question)
    if isinstance(question, AskReach):
        return await node.transport.report(question)
    if isinstance(question, TokenQuestion):
        return await node.tokens.answer(question)
    if isinstance(question, RunBench):
        return await node.bench.answer(question)
    if isinstance(question, RunCommand):
        return await node.commands.run(question)
    if isinstance(question, EndWork):
        return node.commands.end(question)
    return await node.apps.answer(question, client)
