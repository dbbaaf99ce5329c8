"""What a program asks of the agent in a sandbox, as the payload of an errand (`wire.errands`), and what it answers."""

from __future__ import annotations

from potluck.wire.common import Failure, Message

# Of a file or stream, in one message: an errand has at most 1 MiB.
PIECE_BYTES_MAX = 512 << 10
# The agent answers within this, microseconds: a client that left keeps nobody busy for longer.
WAIT_US_MAX = 20_000_000
# What is read of a file at once into memory; and entries of a folder in one message.
READ_BYTES_MAX = 1 << 30
ENTRIES_MAX = 1000
# Commands of one sandbox that run, or whose output is kept; each has some open files, of the 1,024 that a worker may
# have.
PROCESSES_MAX = 100
# Of the output of a sandbox's own command, the last part is kept with its result; of each stream.
KEPT_BYTES = 4 << 20

# The sandbox's own command.
MAIN = 0
STDOUT, STDERR = 1, 2


class Setup(Message, frozen=True):
    """What a sandbox is to run, until it ends, `timeout_us` are over, or nothing happened for `idle_us`. Without
    `args` it waits. `probe_args` or `probe_port` say when it is ready."""

    token: str
    args: tuple[str, ...]
    timeout_us: int
    idle_us: int = 0
    workdir: str = ""
    pty: bool = False
    ports: tuple[int, ...] = ()
    probe_args: tuple[str, ...] = ()
    probe_port: int = 0
    probe_us: int = 0


class Result(Message, frozen=True):
    """Of a sandbox that has ended: `reason` is exit, timeout, idle or terminated. Streams begin at an offset: what was
    before is not kept."""

    returncode: int
    reason: str
    stdout: bytes
    stdout_from: int
    stderr: bytes
    stderr_from: int


class Exec(Message, frozen=True):
    """Run a command; `timeout_us` 0 is for ever. Answered by `Started`."""

    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    workdir: str = ""
    timeout_us: int = 0
    pty: bool = False


class Feed(Message, frozen=True):
    """Into standard input; `end` closes it. Answered by `Done` once the command, or the pipe, has taken it."""

    process: int
    data: bytes
    end: bool = False


class Take(Message, frozen=True):
    """What a stream has from an offset on; waits for some. Answered by `Piece`."""

    process: int
    stream: int
    offset: int
    wait_us: int = 0


class Await(Message, frozen=True):
    """Answered by `Ended`."""

    process: int
    wait_us: int = 0


class Terminate(Message, frozen=True):
    """End the sandbox. Answered by `Done`."""


class AwaitReady(Message, frozen=True):
    """Answered by `Yes` of its probe."""

    wait_us: int = 0


class AwaitPorts(Message, frozen=True):
    """Answered by `Ports`."""


class ListFolder(Message, frozen=True):
    """Answered by `Folder`."""

    path: str
    after: str = ""


class Stat(Message, frozen=True):
    """Answered by `Entry`."""

    path: str


class MakeFolder(Message, frozen=True):
    """Answered by `Done`."""

    path: str
    parents: bool = True


class Remove(Message, frozen=True):
    """Answered by `Done`."""

    path: str
    recursive: bool = False


class ReadFile(Message, frozen=True):
    """Answered by `Piece`; `end` when there is no more."""

    path: str
    offset: int = 0


class WriteFile(Message, frozen=True):
    """Answered by `Done`. At offset 0 the file, and the folders above it, are made anew."""

    path: str
    offset: int
    data: bytes


class Snapshot(Message, frozen=True):
    """Make an image of the root, within `wait_us`. Answered by `Made`."""

    wait_us: int


class Made(Message, frozen=True):
    """By its id."""

    image: str


class Started(Message, frozen=True):
    process: int


class Done(Message, frozen=True):
    pass


class Piece(Message, frozen=True):
    data: bytes
    end: bool


class Ended(Message, frozen=True):
    """`returncode` is None while it runs; `late` when its `timeout_us` ended it."""

    returncode: int | None
    late: bool = False


class Ready(Message, frozen=True):
    yes: bool


class Ports(Message, frozen=True):
    """(port in the sandbox, host, port there)."""

    ports: tuple[tuple[int, str, int], ...]


class Entry(Message, frozen=True):
    """`kind` is file, directory, symlink or other; owner and group by name where there is one."""

    name: str
    path: str
    kind: str
    size: int
    mode: int
    owner: str
    group: str
    modified_us: int
    target: str | None = None


class Folder(Message, frozen=True):
    entries: tuple[Entry, ...]
    more: bool = False


class Failed(Message, frozen=True):
    failure: Failure


Request = (
    Exec
    | Feed
    | Take
    | Await
    | Terminate
    | AwaitReady
    | AwaitPorts
    | ListFolder
    | Stat
    | MakeFolder
    | Remove
    | ReadFile
    | WriteFile
    | Snapshot
)
Answer = Started | Made | Done | Piece | Ended | Ready | Ports | Entry | Folder | Failed
