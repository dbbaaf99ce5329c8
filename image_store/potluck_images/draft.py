"""An image in the making: what the steps so far have come to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from potluck_images.config import ImageConfig, LayerRef, encode
from potluck_images.errors import ImageBuildError
from potluck_images.image import get_manifests, put_config
from potluck_images.interpreter import Interpreter
from potluck_images.layers import LayerCache, Progress
from potluck_images.materialise import Root, materialise, prune
from potluck_images.merge import MergedTree, find, merge, real_path
from potluck_images.process import Say
from potluck_images.store import ChunkStore
from potluck_images.tree import Folder, Tree
from potluck_images.workshop import Workshop

# What command lines are given to unless an image says otherwise; it may lack it.
DEFAULT_SHELL = ("/bin/sh", "-c")


class Draft:
    """`python` is this machine's interpreter of the same version as the image's, and `site` the layer of packages that
    were installed from outside. `foreign` says that the image holds what is not known from outside: a base, or what
    commands made. `force` says that no cached result counts any more. `runtime` is the layer of Potluck itself: it goes
    on top, so that a new Potluck does not run all commands again.
    """

    def __init__(self, store: ChunkStore, cache_dir: Path, progress: Progress, workshop: Workshop | None) -> None:
        self.store, self.progress, self._workshop = store, progress, workshop
        self.cache = LayerCache(store, cache_dir, progress)
        # Apart from those of running functions: a step's user owns them.
        self._trees = cache_dir / "trees"
        self.config = ImageConfig(layers=())
        self.shell: tuple[str, ...] = DEFAULT_SHELL
        self.python: Interpreter | None = None
        self.site: LayerRef | None = None
        self.runtime: LayerRef | None = None
        self.foreign = self.force = False
        # Values for the step that is being added.
        self.secrets: Mapping[str, str] = {}

    def change(self, **fields: Any) -> None:
        """Set fields of the config."""
        self.config = msgspec.structs.replace(self.config, **fields)

    def push(self, layer: LayerRef) -> None:
        self.change(layers=(*self.config.layers, layer))

    def set_env(self, variables: dict[str, str]) -> None:
        """Add or replace variables."""
        self.change(env=tuple(sorted((dict(self.config.env) | variables).items())))

    def set_workdir(self, path: str) -> None:
        """The folder is made, as a function cannot start where there is none. Raises `ImageError` for a bad path."""
        self.change(workdir=path)
        encode(self.config)
        merged = self.merged()
        real = real_path(merged, path.strip("/"))
        if real and not isinstance(find(merged, real.split("/")), dict):
            tree = Tree()
            tree.put(real, Folder())
            self.push(self.cache.pack("workdir", tree))

    def begin(self, name: str) -> None:
        """Raises `ImageBuildError` when there is something already."""
        if self.config.layers:
            raise ImageBuildError(f"{name} is not the first step of the image.", fix="Begin the image with it.")

    def say(self, stage: str) -> Say:
        return lambda text: self.progress(stage, text)

    def workshop(self) -> Workshop:
        """Raises `ImageBuildError` when this build has none."""
        if self._workshop is None:
            raise ImageBuildError("This image has steps that run commands.", fix="Let a node build it.")
        return self._workshop

    def state(self) -> list[object]:
        """What a command that runs now can depend on, but for itself."""
        layers = [layer.layer for layer in self.config.layers]
        return [layers, self.config.env, self.config.workdir, self.shell]

    def finished(self) -> ImageConfig:
        """The image so far."""
        layers = self.config.layers
        return msgspec.structs.replace(self.config, layers=(*layers, self.runtime) if self.runtime else layers)

    def image(self) -> str:
        """The id of the image so far."""
        return put_config(self.store, self.finished())

    def root(self) -> Root:
        """The image so far as a folder."""
        return materialise(self.store, self.image(), self._trees)

    def close(self) -> None:
        """Remove the folders of this build: the next one makes those it needs in a moment."""
        if self._trees.exists():
            prune(self._trees, self.store)

    def real(self, path: str) -> str:
        """Where an absolute path leads in the image so far; a base may have links such as /bin → /usr/bin."""
        if not self.foreign or not path.startswith("/"):
            return path
        return "/" + real_path(self.merged(), path.strip("/"))

    def merged(self) -> MergedTree:
        """All layers so far as one tree."""
        return merge(get_manifests(self.config, self.store.get))
