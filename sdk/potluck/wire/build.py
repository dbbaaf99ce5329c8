"""Building an image on another node, on the stream `/potluck/build/1`: one `Build`, then words, then one answer.

Whoever asks ends the build by closing the stream. Credit and heartbeats are those of a lease.
"""

from __future__ import annotations

import msgspec

from potluck.wire.common import Failure, Message
from potluck.wire.lease import Credit, Heartbeat
from potluck_images.definition import ImageDefinition

# A description with its functions and lock files; a function has at most 512 KiB, a long lock file 300 KiB.
BUILD_BYTES_MAX = 8 << 20


class Build(Message, frozen=True):
    """`machine` is the processor family of who asks. Local files lie in the image `shipped` ("": there are none), which
    the builder fetches from who asks; steps name them as `potluck_images.ship` does. `secrets` as in `BuildImage`."""

    definition: ImageDefinition
    machine: str
    shipped: str = ""
    secrets: dict[int, dict[str, str]] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        """Without the secrets, for logs."""
        return f"Build({self.definition}, {self.machine}, {self.shipped})"


class BuildSaid(Message, frozen=True):
    """What happens meanwhile, in words."""

    text: str


class BuildDone(Message, frozen=True):
    """As `ImageBuilt`. The builder offers the image from now on."""

    image: str
    python: str


class BuildFailed(Message, frozen=True):
    """`yielded`: it gave way to the owner of the machine, and may be asked for again."""

    failure: Failure
    yielded: bool = False


ToBuilder = Build | Heartbeat | Credit
FromBuilder = BuildSaid | BuildDone | BuildFailed | Heartbeat | Credit
