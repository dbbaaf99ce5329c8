"""The images of what is deployed: kept on this node, and fetched from the node that deployed them where it was another.

So a node of a shared app can run its functions, or have peers run them, when the one that built the image is gone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from potluck.errors import Error
from potluck_node.deployments import Deployment
from potluck_node.images import ImageService

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("potluck.images")

# Between two tries to fetch one: its peers may not be found yet, or be away.
RETRY_S = 15.0


class DeployedImages:
    """`changed` is told what is in charge of an app."""

    def __init__(self, images: ImageService) -> None:
        self._images = images
        # App → image → the node that has it, most likely.
        self._wanted: dict[str, dict[str, str]] = {}
        self._kept: dict[str, trio.CancelScope] = {}
        self._news = trio.Event()

    def changed(self, app: str, deployment: Deployment | None) -> None:
        self._wanted.pop(app, None)
        if deployment:
            self._wanted[app] = {each.spec.image: deployment.node for each in deployment.functions}
        self._news.set()

    async def serve(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep them until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                await self._news.wait()
                self._news = trio.Event()
                wanted = {image: node for images in self._wanted.values() for image, node in images.items()}
                for image in wanted.keys() - self._kept.keys():
                    self._kept[image] = trio.CancelScope()
                    nursery.start_soon(self._keep, image, wanted[image], self._kept[image])
                for image in self._kept.keys() - wanted.keys():
                    self._kept.pop(image).cancel()

    async def _keep(self, image: str, node: str, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await self._hold(image, node)
                await trio.sleep(RETRY_S)

    async def _hold(self, image: str, node: str) -> None:
        """Hold it until cancelled; returns when that cannot be now."""
        try:
            await self._images.keeper.hold(image)
        except Error as error:
            log.warning("image %s of a deployed app cannot be kept: %s", image[:12], error)
            return
        try:
            await self._images.fetch(image, node, lambda progress: None)
            await trio.sleep_forever()
        except Error as error:
            log.info("image %s of a deployed app is not here yet: %s", image[:12], error)
        finally:
            self._images.release(image)
