"""The control socket: clients of this user, and no others, place calls and ask questions."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import struct
from collections import defaultdict, deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from potluck import __version__, wire
from potluck.errors import DataFolderBusyError, Error, InvalidError, RemoteProtocolError, VersionError
from potluck.frames import MessageReader, Outbox, Piece
from potluck.wire import Failure, FunctionSpec, control
from potluck.wire.apps import WantFunction
from potluck.wire.contents import join, split
from potluck.wire.lease import InputLog
from potluck.wire.secrets import SecretQuestion
from potluck.wire.spawned import SpawnCall, SpawnQuestion
from potluck.wire.state import AskState, LeaveState, StateAnswered
from potluck.wire.verify import JudgeResults, ResultsJudged
from potluck_node.apps import AppClient, ClientApps
from potluck_node.core import events as ev
from potluck_node.core.admission import nonsense
from potluck_node.desk import Desk, ForDesk
from potluck_node.payloads import NodeSpool, digest_all, receive, send_piece
from potluck_node.state.work import Asker

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.control")

# Clients at once: notebooks, terminals, scripts of one user, who may well start a program for each row of a table.
CLIENTS_MAX = 2048
# What may wait for a client that does not read, before whoever produces it has to wait.
OUTBOX_BYTES_MAX = 16 << 20
# What spawned calls print reaches a client when it reads the next time. Beyond this, only `potluck app logs` has it.
SHOWN_BYTES_MAX = 1 << 20
# What a call waits for is told at most so often, seconds: most calls are over before that.
NOTICE_S = 0.05
_CREDENTIALS = struct.Struct("3i")


class ControlServer:
    """Accepts clients; `desk` answers them."""

    def __init__(self, path: Path, desk: Desk) -> None:
        self._path, self._desk = path, desk
        self._clients: set[_Client] = set()
        self._numbers = itertools.count(1)

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled. Raises `DataFolderBusyError` when another node answers at the path."""
        listener = trio.socket.from_stdlib_socket(_listen(self._path))
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    connection, _ = await listener.accept()
                    nursery.start_soon(self._client, connection)
        finally:
            listener.close()
            self._path.unlink(missing_ok=True)

    async def _client(self, connection: trio.socket.SocketType) -> None:
        stream = trio.SocketStream(connection)
        pid, uid = _credentials(connection)
        client = _Client(next(self._numbers), stream, self._desk, pid)
        self._clients.add(client)
        try:
            async with stream:
                if len(self._clients) <= CLIENTS_MAX and uid in (0, os.getuid()):
                    await client.run()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except* Exception as group:
            log.exception("a client's connection failed", exc_info=group)
        finally:
            self._clients.discard(client)

    @property
    def clients(self) -> int:
        """Connections now."""
        return len(self._clients)

    def app_clients(self) -> list[AppClient]:
        return list(self._clients)

    async def flush(self) -> None:
        """Let every client have what was posted for it, for a second at most."""
        for client in list(self._clients):
            await client.flushed()


def _credentials(connection: trio.socket.SocketType) -> tuple[int, int]:
    """The kernel's word on who connected (SO_PEERCRED, unix(7)): process and user; the socket's mode already keeps
    other users out."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return pid, uid


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists():
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink()
            else:
                raise DataFolderBusyError(f"Another node answers at {path}.", fix="Set POTLUCK_SOCKET to another path.")
    listener = socket.socket(socket.AF_UNIX)
    old = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise InvalidError(f"The control socket {path} cannot be made.", why=str(error)) from None
    finally:
        os.umask(old)
    listener.listen()
    return listener


class _Client:
    """One connection; the sink of its calls."""

    def __init__(self, number: int, stream: trio.SocketStream, desk: Desk, pid: int) -> None:
        self._number, self._stream, self._desk = number, stream, desk
        self.apps = ClientApps(pid, number, self._want)
        self._out = Outbox()
        # Bytes on their way; and whether large ones go in sealed memory.
        self._out_bytes, self._descriptors = 0, False
        self._wake, self._room, self._writing = trio.Event(), trio.Event(), False
        # What calls wait for, told now and then; and that there is some.
        self._notices: dict[int, control.CallNotice] = {}
        self._noticed = trio.Event()
        self._open: dict[str, int] = {}
        self._functions: dict[int, FunctionSpec] = {}
        # Inputs without an outcome.
        self._ahead: defaultdict[int, set[int]] = defaultdict(set)
        # Calls that were ended here, while their client may still send inputs.
        self._stopped: dict[int, Failure] = {}
        self._gone = False
        self._state = desk.state.desk(Asker(f"client {number}"), self._tell_state, self.drained)

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                nursery.start_soon(self._tell_notices)
                await self._read(nursery)
                nursery.cancel_scope.cancel()
        finally:
            self._gone = True
            self._room.set()
            self._state.close()
            for call in list(self._open):
                self._desk.caller.submit(ev.CallCancelled(call, "the caller left"))
            self._desk.caller.submit(ev.FunctionLeft(f"client {self._number}"))

    async def _read(self, nursery: trio.Nursery) -> None:
        descriptors: deque[int] = deque()
        reader, greeted = MessageReader(NodeSpool, descriptors=descriptors), False
        try:
            while data := await receive(self._stream, descriptors):
                for body, contents in reader.feed(data):
                    await digest_all(contents)
                    message = join(wire.decode(body, control.ToNode), contents)
                    if not greeted:
                        greeted = self._greet(message)
                    else:
                        self._take(message, nursery)
        except Error as error:
            self._post(control.Refusal(0, Failure.of(error)))
            await self.flushed()
        finally:
            reader.close()

    def _greet(self, message: object) -> bool:
        if not isinstance(message, control.Hello):
            raise RemoteProtocolError("A client says hello first.")
        if message.protocol != wire.PROTOCOL:
            older = (
                "program that calls" if message.protocol < wire.PROTOCOL else "node: `potluck down`, then `potluck up`"
            )
            raise VersionError(
                f"The node (Potluck {__version__}) and this program (Potluck {message.version}) do not fit.",
                fix=f"Upgrade the {older}.",
            )
        self._descriptors = message.descriptors
        self._post(self._desk.welcome())
        return True

    def _take(self, message: object, nursery: trio.Nursery) -> None:
        caller = self._desk.caller
        if isinstance(message, control.CallInput):
            self._take_input(message)
        elif isinstance(message, control.OpenCall):
            self._open_call(message)
        elif isinstance(message, control.ItemsTaken):
            caller.submit(ev.ItemsTaken(self._name(message.call), message.index, message.items))
        elif isinstance(message, ResultsJudged):
            name, case = self._name(message.call), message.case
            caller.submit(ev.ResultsJudged(name, case, message.agrees, message.failure))
        elif isinstance(message, control.EndInputs):
            self._stopped.pop(message.call, None)
            caller.submit(ev.InputsEnded(self._name(message.call)))
        elif isinstance(message, control.CancelCall):
            self._forget(self._name(message.call))
            self._stopped.pop(message.call, None)
            caller.submit(ev.CallCancelled(self._name(message.call), message.reason))
        elif isinstance(message, control.BuildImage):
            nursery.start_soon(self._build, message)
        elif isinstance(message, control.ImageQuestion):
            nursery.start_soon(self._answer_images, message)
        elif isinstance(message, SpawnQuestion):
            nursery.start_soon(self._answer_spawned, message)
        elif isinstance(message, SecretQuestion):
            self._answer_secrets(message)
        elif isinstance(message, AskState):
            self._state.ask(message.question, message.payload)
        elif isinstance(message, LeaveState):
            self._state.leave(message.question)
        elif isinstance(message, ForDesk):
            nursery.start_soon(self._answer_apps, message)
        else:
            self._answer(message)

    def _open_call(self, message: control.OpenCall) -> None:
        function, name = message.function, self._name(message.call)
        if problem := nonsense(function):
            raise RemoteProtocolError("A client calls a function that cannot be.", why=problem)
        if function.app in self.apps.stopped:
            self._stopped[message.call] = self.apps.stopped[function.app]
            return
        self._open[name] = message.call
        self._functions[message.call] = function
        self._desk.caller.open(name, function, self, message.limit, verify=message.verify)

    def _take_input(self, message: control.CallInput) -> None:
        if failure := self._stopped.get(message.call):
            self._post(control.CallOutcome(message.call, message.index, failure=failure))
            return
        ahead = self._ahead[message.call]
        ahead.add(message.index)
        if len(ahead) > control.INPUTS_AHEAD_MAX:
            raise RemoteProtocolError(f"A call has more than {control.INPUTS_AHEAD_MAX} inputs on the way.")
        self._desk.caller.submit(ev.InputAdded(self._name(message.call), message.index, message.payload))

    def _forget(self, name: str) -> int | None:
        """A call has ended; returns its number."""
        call = self._open.pop(name, None)
        if call is not None:
            self._ahead.pop(call, None)
            del self._functions[call]
        return call

    # Its apps

    def open_apps(self) -> list[str]:
        return [function.app for function in self._functions.values()]

    def cancel_app(self, app: str, failure: Failure) -> int:
        calls = [name for name, call in self._open.items() if self._functions[call].app == app]
        return sum(self.cancel_call(name, failure) for name in calls)

    def cancel_call(self, name: str, failure: Failure) -> bool:
        call = self._open.get(name)
        if call is None:
            return False
        for index in sorted(self._ahead[call]):
            self._post(control.CallOutcome(call, index, failure=failure))
        self._stopped[call] = failure
        self._forget(name)
        self._desk.caller.submit(ev.CallCancelled(name, failure.why))
        return True

    def _want(self, app: str, name: str) -> None:
        self._post(WantFunction(app, name))

    def _show(self, message: InputLog) -> None:
        """Print what none of its own calls printed."""
        if not self._gone and self._out_bytes < SHOWN_BYTES_MAX:
            self._post(control.CallLog(0, 0, message.worker, message.stream, message.data))

    def _name(self, call: int) -> str:
        return f"{self._number}.{call}"

    def _answer(self, message: object) -> None:
        if isinstance(message, control.AskStatus):
            self._post(self._desk.status(message.question))
        elif isinstance(message, control.AskJournal):
            self._post(self._desk.journal_answer(message))
        elif isinstance(message, control.Pause):
            self._desk.pause(message.reason, message.now, message.seconds)
            self._post(control.Done(message.question))
        elif isinstance(message, control.Resume):
            self._desk.resume()
            self._post(control.Done(message.question))
        elif isinstance(message, control.AskStats):
            self._post(control.Stats(message.question, *self._desk.caller.core.stats(message.function)))
        elif isinstance(message, control.SetScaling):
            self._desk.caller.submit(ev.ScalingSet(message.function, message.scaling))
            self._post(control.Done(message.question))
        elif isinstance(message, control.KeepFunction):
            self._keep(message)
        elif isinstance(message, control.StopNode):
            self._post(control.Done(message.question))
            self._desk.stop()
        else:
            raise RemoteProtocolError("A client says hello once.")

    def _keep(self, message: control.KeepFunction) -> None:
        if problem := nonsense(message.function):
            raise RemoteProtocolError("A client wants workers for a function that cannot be.", why=problem)
        self._desk.caller.submit(ev.FunctionKept(f"client {self._number}", message.function))
        self._post(control.Done(message.question))

    async def _build(self, message: control.BuildImage) -> None:
        def progress(text: str) -> None:
            self._post(control.Progress(message.question, text))

        try:
            image, python = await self._desk.build(message, progress)
        except Error as error:
            self._post(control.Refusal(message.question, Failure.of(error)))
        else:
            self._post(control.ImageBuilt(message.question, image, python))

    async def _answer_images(self, message: control.ImageQuestion) -> None:
        def say(text: str) -> None:
            self._post(control.Progress(message.question, text))

        try:
            self._post(await self._desk.answer_images(message, say))
        except Error as error:
            self._post(control.Refusal(message.question, Failure.of(error)))

    async def _answer_spawned(self, message: SpawnQuestion) -> None:
        try:
            if isinstance(message, SpawnCall) and message.function.app in self.apps.stopped:
                raise self.apps.stopped[message.function.app].error()
            self._post(await self._desk.answer_spawned(message, self._show))
        except Error as error:
            self._post(control.Refusal(message.question, Failure.of(error)))

    async def _answer_apps(self, message: ForDesk) -> None:
        try:
            self._post(await self._desk.answer_apps(message, self))
        except Error as error:
            self._post(control.Refusal(message.question, Failure.of(error)))

    def _answer_secrets(self, message: SecretQuestion) -> None:
        try:
            self._post(self._desk.secrets.answer(message))
        except Error as error:
            self._post(control.Refusal(message.question, Failure.of(error)))

    def _tell_state(self, question: int, payload: bytes, failure: Failure | None) -> None:
        self._post(control.Refusal(question, failure) if failure else StateAnswered(question, payload))

    # The sink of calls

    def deliver(self, action: ev.Deliver) -> None:
        call = self._open.get(action.call)
        if call is not None:
            self._ahead[call].discard(action.index)
            outcome = control.CallOutcome(call, action.index, action.payload, action.exception, action.failure)
            self._post(outcome, now=not self._ahead[call])

    def item(self, action: ev.DeliverItem) -> None:
        call = self._open.get(action.call)
        if call is not None:
            self._post(control.CallItem(call, action.index, action.item, action.payload))

    def judge(self, action: ev.AskJudge) -> None:
        call = self._open.get(action.call)
        if call is not None:
            self._post(JudgeResults(call, action.case, action.payloads))

    def began(self, action: ev.Began) -> None:
        """Clients send no requests: they have the gateway for it."""

    def taken(self, action: ev.DeliverTaken) -> None:
        """As `began`."""

    def ended(self, action: ev.CallEnded) -> None:
        self._forget(action.call)

    def notice(self, action: ev.Notice) -> None:
        call = self._open.get(action.call)
        if call is not None:
            self._notices[call] = control.CallNotice(call, action.state, action.text)
            self._noticed.set()

    async def _tell_notices(self) -> None:
        while True:
            await self._noticed.wait()
            await trio.sleep(NOTICE_S)
            self._noticed = trio.Event()
            notices, self._notices = self._notices, {}
            for call, notice in notices.items():
                if call in self._functions:
                    self._post(notice)

    def log(self, call: str, index: int, message: InputLog) -> None:
        number = self._open.get(call)
        if number is not None:
            function = self._functions[number]
            self._desk.heard(function.app, function.name, message)
            self._post(control.CallLog(number, index, message.worker, message.stream, message.data))

    # Bytes

    def _post(self, message: wire.Message, now: bool = False) -> None:
        """Send a message; `now` what somebody surely waits for: waking a task takes as long as the rest of it."""
        message, contents = split(message)
        before = self._out.bytes
        self._out.add(wire.encode(message), contents, self._descriptors)
        self._out_bytes += self._out.bytes - before
        if not (now and not contents and self._sent_now()):
            self._wake.set()

    def _sent_now(self) -> bool:
        """Send as far as that needs no waiting; whether that was all."""
        if self._writing or not (piece := self._out.next()):
            return False
        rest = memoryview(piece.data)
        if piece.payload is None:
            # The writer sees what goes wrong.
            with suppress(OSError):
                rest = rest[os.write(self._stream.socket.fileno(), rest) :]
        self._out_bytes -= piece.weight - (len(rest) if piece.payload is None else piece.weight)
        if rest:
            self._out.put_back(piece if piece.payload is not None else Piece(rest))
        return not self._out.bytes

    async def drained(self) -> None:
        """Wait while too much waits for this client."""
        while self._out_bytes > OUTBOX_BYTES_MAX and not self._gone:
            self._room = trio.Event()
            await self._room.wait()

    async def flushed(self) -> None:
        """Wait until all is sent, a second at most."""
        with trio.move_on_after(1):
            while self._out_bytes:
                self._room = trio.Event()
                await self._room.wait()

    async def _write(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                while piece := self._out.next():
                    self._writing = True
                    await send_piece(self._stream, piece)
                    self._out_bytes -= piece.weight
                    self._room.set()
                self._writing = False
                self._wake = trio.Event()
                await self._wake.wait()
