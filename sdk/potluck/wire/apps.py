"""Clients ↔ local node: apps that are deployed, and those that run. Questions as in `control`."""

from __future__ import annotations

import msgspec

from potluck.wire.common import Failure, FunctionSpec, Message

# Functions and classes of one app. Each is some hundred bytes, or its pickle.
FUNCTIONS_MAX = 1000


class MethodFacts(msgspec.Struct, frozen=True, array_like=True):
    """One method of a class that can be called remotely."""

    name: str
    generator: bool = False


class ParameterFacts(msgspec.Struct, frozen=True, array_like=True):
    """One declared parameter of a class. `kind` is str, int, bool or bytes; `default` is packed (`runner.codec.pack`),
    and empty when the parameter must be given."""

    name: str
    kind: str
    default: bytes = b""


class Schedule(msgspec.Struct, frozen=True, array_like=True):
    """When a function runs by itself: at the times of `cron` (five fields) in a `timezone` by its IANA name; or,
    without one, every so many `months` and `us` microseconds since it was first deployed."""

    cron: str = ""
    timezone: str = "UTC"
    months: int = 0
    us: int = 0


class NamedFunction(msgspec.Struct, frozen=True, array_like=True):
    """A function or class under the name by which others of this user find it.

    For a class, `spec.parameters` is a packed empty list: each object puts its own there. `methods` is empty for a
    function.
    """

    name: str
    spec: FunctionSpec
    methods: tuple[MethodFacts, ...] = ()
    parameters: tuple[ParameterFacts, ...] = ()
    schedule: Schedule | None = None


class DeployApp(Message, frozen=True):
    """Record an app under its name, in place of what was there. It is kept on disk until it is stopped, or, unless
    `lasting`, in memory for as long as this client is connected. Answered by `AppFacts` once it is in charge.

    `author`, `tag` and `comment` are for the history. `strategy` is rolling (what is in use takes over once it has a
    worker, and what was there finishes what it has) or recreate (at once, and open WebSockets end)."""

    question: int
    app: str
    functions: tuple[NamedFunction, ...]
    lasting: bool = True
    author: str = ""
    tag: str = ""
    comment: str = ""
    strategy: str = "rolling"


class RollBack(Message, frozen=True):
    """Deploy an earlier version of an app anew, as the newest; 0 is the one before that which is in charge. Answered by
    `AppFacts` once it is."""

    question: int
    app: str
    version: int = 0
    author: str = ""
    strategy: str = "rolling"


class AskHistory(Message, frozen=True):
    """The versions of an app. Answered by `AppHistory`."""

    question: int
    app: str


class NameFunctions(Message, frozen=True):
    """What an app that this client runs has, so that its functions can call each other. Adds to what was named before;
    ends with the connection, and the calls that were spawned. `failed` says why others, by name, that were wanted
    cannot be called. Answered by `Done`."""

    question: int
    app: str
    functions: tuple[NamedFunction, ...]
    failed: tuple[tuple[str, Failure], ...] = ()


class WantFunction(Message, frozen=True):
    """Node to all connections of a program that named functions of an app: one of its functions calls another, whose
    image may have to be built. Answered, by whoever reads it first, with `NameFunctions`."""

    app: str
    name: str


class StartApp(Message, frozen=True):
    """This client runs the app, until its connection ends. Answered by `Done`."""

    question: int
    app: str


class AskApp(Message, frozen=True):
    """The functions of a deployed app. Answered by `AppFacts`, or a refusal (`not-found`)."""

    question: int
    app: str


class AskApps(Message, frozen=True):
    """All apps that are deployed or run. Answered by `Apps`."""

    question: int


class AskAppLogs(Message, frozen=True):
    """What functions of an app have printed lately, with numbers above `after`; of one worker if it is named ("" means
    all; an app of "" means any). Waits at most `wait_us` until there is something. Answered by `AppLogs`."""

    question: int
    app: str
    after: int = 0
    wait_us: int = 0
    worker: str = ""


class StopApp(Message, frozen=True):
    """Cancel the calls of an app, whoever placed them, and forget its deployment. Answered by `AppStopped`."""

    question: int
    app: str
    reason: str = "the app was stopped"


class AskSchedules(Message, frozen=True):
    """The schedules of an app, or of all. Answered by `Schedules`."""

    question: int
    app: str = ""


class RunSchedule(Message, frozen=True):
    """Run a scheduled function now, beside its schedule. Answered by `RunStarted`."""

    question: int
    app: str
    function: str


class RunCommand(Message, frozen=True):
    """Run a command in the sandbox of a worker that works for this node, on it. Its input and output go through a
    connection to the Unix socket `channel`, on which the client listens; unless `rows` is 0 it has a terminal. It ends
    with this client's connection. Answered by `CommandEnded`."""

    question: int
    worker: str
    command: tuple[str, ...]
    channel: str
    rows: int = 0
    columns: int = 0


class EndWork(Message, frozen=True):
    """End what the function of a worker on this node does for its caller, somebody else: it runs elsewhere, and is not
    taken again for a while. Answered by `Done`."""

    question: int
    worker: str


WorkerQuestion = RunCommand | EndWork


class CommandEnded(Message, frozen=True):
    """`status` is the exit status, or minus the signal that ended the command."""

    question: int
    status: int


class AppFacts(Message, frozen=True):
    """`state` is deployed or serving (not lasting). `urls` are those of functions that answer requests, by name.
    `version` is 0 for what is served."""

    question: int
    app: str
    functions: tuple[NamedFunction, ...]
    created_us: int
    state: str
    urls: tuple[tuple[str, str], ...] = ()
    version: int = 0


class VersionFacts(msgspec.Struct, frozen=True, array_like=True):
    """One version of an app. `state` is current, rolling (on its way), past, or failed, as `why` says. `source` is the
    version that a rollback brought back, or 0. `digest` is that of what it deploys, without the values of secrets."""

    version: int
    at_us: int
    state: str
    author: str
    tag: str
    comment: str
    digest: str
    source: int = 0
    why: str = ""


class AppHistory(Message, frozen=True):
    """The newest first."""

    question: int
    app: str
    versions: tuple[VersionFacts, ...]


class RunFacts(msgspec.Struct, frozen=True, array_like=True):
    """One run of a scheduled function. `due_us` is when it was to begin, `at_us` when it did. `state` is running, done,
    failed or lost (its node died before it began), as `why` says. `call` is known to the node with this peer id."""

    due_us: int
    at_us: int
    state: str
    node: str
    call: str
    by_hand: bool = False
    why: str = ""


class ScheduleFacts(msgspec.Struct, frozen=True, array_like=True):
    """`next_us` is 0 when no time comes any more; `runs` the last ones, the newest first."""

    app: str
    function: str
    schedule: Schedule
    next_us: int
    runs: tuple[RunFacts, ...] = ()


class Schedules(Message, frozen=True):
    question: int
    schedules: tuple[ScheduleFacts, ...]


class RunStarted(Message, frozen=True):
    """`call` is the number of the spawned call."""

    question: int
    call: str


class AppStatus(msgspec.Struct, frozen=True, array_like=True):
    """`state` is deployed, serving, running (some client runs it), or detached (only calls of it go on). `since_us` is
    when that began; `functions` counts what is deployed, `calls` those that are open. `version` and `tag` are those of
    what is deployed."""

    app: str
    state: str
    since_us: int
    functions: int
    calls: int
    version: int = 0
    tag: str = ""


class Apps(Message, frozen=True):
    question: int
    apps: tuple[AppStatus, ...]


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    """A piece of what a function printed, not always a whole line. `stream` is 1 for stdout and 2 for stderr."""

    number: int
    at_us: int
    function: str
    worker: str
    stream: int
    data: bytes


class AppLogs(Message, frozen=True):
    """`missed` says that older pieces than these were dropped unseen; `live` whether more can come."""

    question: int
    lines: tuple[LogLine, ...]
    missed: bool = False
    live: bool = False


class EndCall(Message, frozen=True):
    """End one call, of a program or spawned, by the name that `Status.calls` has: inputs that have no outcome get one
    that says `reason`. Answered by `Done`."""

    question: int
    call: str
    reason: str


class AppStopped(Message, frozen=True):
    """How many calls were ended, and whether a deployment was forgotten."""

    question: int
    calls: int
    deployed: bool


AppQuestion = (
    DeployApp
    | NameFunctions
    | StartApp
    | AskApp
    | AskApps
    | AskAppLogs
    | StopApp
    | EndCall
    | RollBack
    | AskHistory
    | AskSchedules
    | RunSchedule
)
AppReply = AppFacts | Apps | AppLogs | AppStopped | CommandEnded | AppHistory | Schedules | RunStarted
