"""Pulling an image: its config, then its manifests, then all chunks, each as far as the store lacks them. Sans-IO.

    pull = ImagePull(store, image)
    actions = pull.start()                      # then, for each event from peers:
    actions = pull.handle(event)                # Ask, Store, Drop, Done, Stuck as in `sync`

`Store` actions are to be done before `Done` is acted upon. Lookups in the store's index happen inside these calls: up
to some 50 ms at the start of a stage of a large image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from potluck_images import config
from potluck_images.chunk import unpack
from potluck_images.config import CONFIG_BYTES_MAX, ImageConfig
from potluck_images.digest import from_hex
from potluck_images.errors import ImageError
from potluck_images.image import MANIFESTS_BYTES_MAX, get_manifests, too_large
from potluck_images.manifest import LAYER_BYTES_MAX, Manifest
from potluck_images.store import ChunkStore
from potluck_images.sync import Action, ChunkSync, Done, Event, Store, Stuck, scattered

Claim = Callable[[list[bytes]], list[bytes]]


@dataclass(frozen=True, slots=True)
class Progress:
    """Raw bytes of the image's files. `total` is 0 until the manifests are here."""

    done: int
    total: int


class ImagePull:
    """`bytes_max` limits the raw size of the image: a policy of whoever pulls. `claim` chooses, of the data chunks that
    are missing, those that this pull fetches; the others are somebody else's, and still missing at `Done`. Data chunks
    are fetched in the order of `salt`, which differs from node to node (`sync.scattered`).

    All methods raise `ImageError` when the image itself is unusable; no peer is to blame for that, its id is.
    """

    def __init__(
        self,
        store: ChunkStore,
        image: str,
        bytes_max: int = LAYER_BYTES_MAX,
        claim: Claim = lambda digests: digests,
        salt: bytes = b"",
    ) -> None:
        self._salt = salt
        self._store, self._bytes_max, self._claim = store, bytes_max, claim
        self._id = from_hex(image)
        self._sync = ChunkSync()
        self._stage: Callable[[], list[Action]] = self._read_config
        # Raw bytes of the config and of manifests as they arrive; data chunks are not kept.
        self._kept: dict[bytes, bytes] | None = {}
        self._kept_bytes = 0
        self._sizes: dict[bytes, int] = {}
        self._progress = Progress(0, 0)
        self.config: ImageConfig | None = None
        self.manifests: tuple[Manifest, ...] = ()

    @property
    def progress(self) -> Progress:
        return self._progress

    def start(self) -> list[Action]:
        """Begin. `Done` when the store has the whole image; `Stuck` as long as no peer has joined."""
        return self._settle(self._want([self._id]))

    def handle(self, event: Event) -> list[Action]:
        """What to do about an event."""
        return self._settle(self._sync.handle(event))

    def _want(self, digests: list[bytes]) -> list[Action]:
        return self._sync.want(self._store.missing(digests))

    def _settle(self, actions: list[Action]) -> list[Action]:
        """Note what arrived; go on to the next stage as often as one is complete."""
        settled: list[Action] = []
        while actions:
            action = actions.pop(0)
            if isinstance(action, Store):
                self._note(action)
            if isinstance(action, Done) and self._stage != self._finish:
                actions = self._stage()
            else:
                settled.append(action)
        return settled

    def _note(self, action: Store) -> None:
        if self._kept is not None:
            self._kept[action.chunk.digest] = unpack(action.chunk.frame)
            self._kept_bytes += action.chunk.size
            if self._kept_bytes > MANIFESTS_BYTES_MAX + CONFIG_BYTES_MAX:
                raise too_large()
        else:
            done = self._progress.done + self._sizes.get(action.chunk.digest, 0)
            self._progress = Progress(done, self._progress.total)

    def _get(self, digest: bytes) -> bytes:
        kept = self._kept.get(digest) if self._kept else None
        return self._store.get(digest) if kept is None else kept

    def _read_config(self) -> list[Action]:
        self.config = config.decode(self._get(self._id))
        self._stage = self._read_manifests
        return self._want([digest for layer in self.config.layers for digest in layer.chunks])

    def _read_manifests(self) -> list[Action]:
        self.manifests = get_manifests(self.config, self._get) if self.config else ()
        self._kept = None
        self._sizes = {chunk.digest: chunk.size for layer in self.manifests for chunk in layer.chunks}
        total = sum(self._sizes.values())
        self._check_size(max(total, sum(layer.size for layer in self.manifests)))
        missing = self._store.missing(self._sizes)
        self._progress = Progress(total - sum(self._sizes[digest] for digest in missing), total)
        self._stage = self._finish
        return self._sync.want(scattered(self._claim(missing), self._salt))

    def _check_size(self, size: int) -> None:
        if size > self._bytes_max:
            raise ImageError(
                f"The image has {size >> 20} MiB; at most {self._bytes_max >> 20} MiB are accepted here.",
                fix="Make the image smaller, or ask for the limit to be raised.",
            )

    def _finish(self) -> list[Action]:
        return [Done()]


def missing_chunks(store: ChunkStore, image: str) -> list[bytes]:
    """What the store is known to lack of an image: empty when it is whole. Raises `ImageError`."""
    for action in ImagePull(store, image).start():
        if isinstance(action, Stuck):
            return list(action.missing)
    return []
