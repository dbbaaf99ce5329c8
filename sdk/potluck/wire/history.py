"""What a node's GPUs do now and did lately: what clients ask of it, and the form in which it is kept."""

from __future__ import annotations

import msgspec

from potluck.wire.common import Message

# A figure that a driver does not tell.
UNKNOWN = -1
# Of one answer: figures of a GPU, or of the machine, over one span. 50 bytes each; a day of eight GPUs, by minutes.
CELLS_MAX = 13_000
# Who is shown on one GPU; one that is lent in parts may have more.
USERS_MAX = 16


class GpuSpan(msgspec.Struct, frozen=True, array_like=True):
    """A GPU over a span: means of its load and of the part that was lent (thousandths), memory (MiB), temperature (°C)
    and power (mW); `UNKNOWN` where the driver does not say."""

    uuid: str
    load_milli: int = UNKNOWN
    memory_mib: int = UNKNOWN
    temperature_c: int = UNKNOWN
    power_mw: int = UNKNOWN
    lent_milli: int = 0


class Span(msgspec.Struct, frozen=True, array_like=True):
    """`step_s` seconds from `at_us` on. `inputs`, `given_us` (of workers) and `gpu_us` (of GPUs) are of receipts for
    others that came into the journal then, signed by both."""

    at_us: int
    step_s: int
    gpus: tuple[GpuSpan, ...] = ()
    inputs: int = 0
    given_us: int = 0
    gpu_us: int = 0


class GpuUser(msgspec.Struct, frozen=True, array_like=True):
    """Whose worker holds a GPU, or a part of it; `state` is starting, idle or running."""

    caller: str
    function: str
    state: str


class GpuNow(msgspec.Struct, frozen=True, array_like=True):
    """A GPU as it is. `state` as in offers; `users` are workers for others and for this node."""

    reading: GpuSpan
    model: str
    memory_mib: int
    state: str
    users: tuple[GpuUser, ...] = ()


class AskGpus(Message, frozen=True):
    """The GPUs that are lent, looked at anew if that was not done within the last second. Answered by `GpusTold`."""

    question: int


class GpusTold(Message, frozen=True):
    """`today` has what was given since midnight UTC, as the ledger's days are."""

    question: int
    now_us: int
    gpus: tuple[GpuNow, ...]
    today: Span


class AskMachineHistory(Message, frozen=True):
    """Spans since then, of at least `step_s` seconds: longer where there would be more than `CELLS_MAX` figures.
    Answered by `HistoryTold`."""

    question: int
    since_us: int = 0
    step_s: int = 60


class HistoryTold(Message, frozen=True):
    """The oldest first. Where nothing was seen there is no span; `models` are the names of GPUs by uuid."""

    question: int
    now_us: int
    spans: tuple[Span, ...]
    models: dict[str, str] = msgspec.field(default_factory=dict)


HistoryQuestion = AskGpus | AskMachineHistory
HistoryReply = GpusTold | HistoryTold
