"""Trees of volumes in the node's store: read, kept, fetched from peers who have them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import trio

from potluck_images.config import ImageConfig
from potluck_images.digest import from_hex
from potluck_images.errors import CorruptDataError, ImageError, NotFoundError
from potluck_images.image import get_config, get_manifest, put_config, put_manifest
from potluck_images.keep import PRIVATE
from potluck_images.manifest import Manifest
from potluck_images.volume_tree import EMPTY, below_top, from_top
from potluck_node.images import ImageService

# Trees kept in memory; one of 16,000 chunks, a gigabyte, takes some 10 MB.
TREES_MAX = 4


class Trees:
    """Methods raise `potluck_images.errors` and, where peers are asked, `potluck.errors`."""

    def __init__(self, images: ImageService) -> None:
        self.images, self.store = images, images.store
        self._known: OrderedDict[str, Manifest] = OrderedDict()

    async def load(self, image: str, peers: Sequence[str] = ()) -> Manifest:
        """The tree of an image, fetched from `peers` if it is not here; "" is the empty one."""
        if image == "":
            return EMPTY
        if image in self._known:
            self._known.move_to_end(image)
            return self._known[image]
        try:
            tree = await trio.to_thread.run_sync(self._read, image)
        except (NotFoundError, CorruptDataError):
            await self.fetch(image, peers)
            tree = await trio.to_thread.run_sync(self._read, image)
        self._remember(image, tree)
        return tree

    async def fetch(self, image: str, peers: Sequence[str]) -> None:
        """Have all of it here. Raises `potluck.errors.Error` when none of the peers has what is missing."""
        await self.images.fetch_from(image, peers)

    async def keep(self, make: Callable[[], Manifest], reason: str) -> tuple[str, Manifest]:
        """Make a tree in a thread and put it into the store, pinned for `reason`; returns its image too."""

        def work() -> tuple[str, Manifest]:
            tree = make()
            image = self._write(tree)
            shelf = self.images.keeper.shelf
            shelf.pin(image, reason)
            shelf.note(image, PRIVATE)
            return image, tree

        async def attempt() -> tuple[str, Manifest]:
            return await trio.to_thread.run_sync(work)

        image, tree = await self.images.keeper.write(attempt)
        self._remember(image, tree)
        return image, tree

    def pin_again(self, reasons: Mapping[str, str]) -> None:
        """Images by the reason to pin them, as far as they are here."""
        shelf = self.images.keeper.shelf
        for reason, image in reasons.items():
            if self.store.has(from_hex(image)):
                shelf.pin(image, reason)
                shelf.note(image, PRIVATE)

    def _write(self, tree: Manifest) -> str:
        with self.store.batch():
            return put_config(self.store, ImageConfig((put_manifest(self.store, below_top(tree)),), workdir="/"))

    def _read(self, image: str) -> Manifest:
        config = get_config(self.store, image)
        if len(config.layers) != 1:
            raise ImageError(f"Image {image[:12]} is no version of a volume.")
        return from_top(get_manifest(self.store, config.layers[0]))

    def _remember(self, image: str, tree: Manifest) -> None:
        self._known[image] = tree
        while len(self._known) > TREES_MAX:
            self._known.popitem(last=False)
