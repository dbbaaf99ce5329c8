"""Images that their owner wants to keep."""

from __future__ import annotations

from potluck.wire.common import Message

# Why an image is pinned, when its owner said so.
OWNER = "owner"


class PinImage(Message, frozen=True):
    """Never remove an image, by id, the first digits of it, or label; without `pin`, let go of it again. Answered by
    `Done`."""

    question: int
    image: str
    pin: bool = True
