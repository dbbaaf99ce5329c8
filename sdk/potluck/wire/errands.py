"""Errands: what a client has a worker do that goes on running, as a sandbox does. The owner's node passes them on.

They are requests of shared state (`wire.state`): a client asks its node with `Send`, and waits; the worker asks,
through its lease, with `Attend`, and answers with `Report`. The node holds errands in memory, and does not look inside.
"""

from __future__ import annotations

from potluck.wire.common import Message

# Calls of one node that take errands; each is a worker with a few KiB here.
SERVICES_MAX = 1000
# Errands of one call that nobody has answered yet.
ERRANDS_MAX = 256
# Of one errand or report, encoded: large data goes in pieces.
ERRAND_BYTES_MAX = 1 << 20
TAGS_MAX, TAG_CHARS_MAX = 16, 256


class Service(Message, frozen=True):
    """Goes with a spawned call: it takes errands, known to its worker by `token`. A `name` is its app's own while it
    runs."""

    token: str
    name: str = ""
    tags: tuple[tuple[str, str], ...] = ()


class ServiceFacts(Message, frozen=True):
    """A call that takes errands and has not ended."""

    call: str
    app: str
    name: str
    tags: tuple[tuple[str, str], ...]
    started_us: int


class Begin(Message, frozen=True):
    """A worker takes the call's errands from now on. Once only: what runs again elsewhere is not what was there.
    Answered by `Yes`, or a refusal."""

    token: str


class Attend(Message, frozen=True):
    """Wait for the next errand. Answered by `Errand`."""

    token: str


class Report(Message, frozen=True):
    """An errand is done. Answered by `Yes`."""

    token: str
    number: int
    payload: bytes


class Send(Message, frozen=True):
    """Have the worker of this call do something. Waits for a worker, and until it is done. One with a `secret` goes to
    trusted peers alone. Answered by `Reported`, or `NotFoundError` once the call has ended."""

    call: str
    payload: bytes
    secret: bool = False


class ListServices(Message, frozen=True):
    """Those of an app (empty: of all), with all of these tags. Answered by `Services`, the newest first."""

    app: str = ""
    tags: tuple[tuple[str, str], ...] = ()


class SetTags(Message, frozen=True):
    """In place of those that it had. Answered by `Yes`."""

    call: str
    tags: tuple[tuple[str, str], ...]


class KeepImage(Message, frozen=True):
    """Fetch an image that the worker of this call made, and keep it for `for_us` (0: for ever). Answered by `Yes`."""

    call: str
    image: str
    for_us: int = 0


class Errand(Message, frozen=True):
    number: int
    payload: bytes


class Reported(Message, frozen=True):
    payload: bytes


class Services(Message, frozen=True):
    services: tuple[ServiceFacts, ...]


ErrandRequest = Begin | Attend | Report | Send | ListServices | SetTags | KeepImage
ErrandAnswer = Errand | Reported | Services
