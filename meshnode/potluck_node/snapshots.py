"""Images that sandboxes made, on the node of whoever wanted them: fetched, and kept for as long as was asked for."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio

from potluck.errors import InvalidError
from potluck_images.digest import from_hex
from potluck_node.clock import Clock
from potluck_node.images import ImageService
from potluck_node.store_errors import own_errors

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.snapshots")

# How often it is looked for those whose time is over, seconds.
TIDY_S = 3600.0
_REASON = "snapshot-until-"
_ALWAYS = "ever"


class Snapshots:
    def __init__(self, images: ImageService, clock: Clock) -> None:
        self._images, self._clock = images, clock

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let go of those whose time is over, until cancelled."""
        task_status.started()
        while True:
            await trio.to_thread.run_sync(self._tidy)
            await trio.sleep(TIDY_S)

    async def keep(self, image: str, peer: str, for_us: int) -> None:
        """Have the image here, from this peer, for `for_us` microseconds (0: for ever). Raises
        `potluck.errors.Error`."""
        if for_us < 0:
            raise InvalidError("An image is kept for more than no time.")
        with own_errors():
            from_hex(image)
        keeper = self._images.keeper
        await keeper.hold(image)
        try:
            await self._images.fetch(image, peer, lambda progress: None)
            until = str(self._clock.now_us() + for_us) if for_us else _ALWAYS
            with own_errors():
                await trio.to_thread.run_sync(keeper.shelf.pin, image, _REASON + until)
        finally:
            keeper.release(image)

    def _tidy(self) -> None:
        shelf, now_us = self._images.keeper.shelf, self._clock.now_us()
        for image, reason in shelf.pins():
            if reason.startswith(_REASON) and _until(reason) <= now_us:
                shelf.unpin(image, reason)
                log.info("the snapshot %s is kept no longer", image[:12])


def _until(reason: str) -> float:
    text = reason.removeprefix(_REASON)
    return float(text) if text.isdigit() else math.inf
