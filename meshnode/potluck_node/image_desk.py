"""What the node answers when its owner asks about images: `potluck image …`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from potluck import wire
from potluck.errors import Error, InvalidError, LocalProtocolError
from potluck.wire import control
from potluck.wire.lease import LeaseProgress
from potluck.wire.pins import OWNER, PinImage
from potluck_images import keep_report, oci
from potluck_images.digest import DIGEST_BYTES
from potluck_images.image import get_config
from potluck_images.keep import PRIVATE
from potluck_images.keep_facts import Pruned
from potluck_node.images import ImageService
from potluck_node.store_errors import own_errors

T = TypeVar("T")
Say = Callable[[str], None]


class ImageDesk:
    """Long work happens in threads; it ends when whoever asked has gone."""

    def __init__(self, images: ImageService, home: Path) -> None:
        self._images, self._keeper, self._shelf = images, images.keeper, images.keeper.shelf
        # Layers on their way in or out; what a killed node left there is of no use.
        self._work = home / "oci"
        shutil.rmtree(self._work, ignore_errors=True)

    async def answer(self, question: control.ImageQuestion, say: Say) -> wire.Message:
        """Raises `potluck.errors.Error`."""
        number = question.question
        match question:
            case control.AskImages():
                facts = await _work(keep_report.images, self._shelf)
                whole = await _work(keep_report.store_facts, self._shelf, self._keeper.trees, self._keeper.bytes_max)
                return control.Images(number, facts, whole)
            case control.AskImage(image=name):
                return control.ImageAnswer(number, await _work(keep_report.details, self._shelf, self._find(name)))
            case control.AskImageDiff(old=old, new=new):
                changes = await _work(keep_report.diff, self._shelf, self._find(old), self._find(new))
                left_out = max(0, len(changes) - control.CHANGES_MAX)
                return control.ImageChanges(number, changes[: control.CHANGES_MAX], left_out)
            case control.PruneImages():
                return control.ImagesPruned(number, await self._prune(question, say))
            case control.VerifyImages():
                return await self._verify(question, say)
            case control.PullImage(reference=reference):
                return control.ImageBuilt(number, *await self._pull(reference, say))
            case control.PushImage(image=name, reference=reference):
                return control.ImagePushed(number, await self._push(self._find(name), reference, say))
            case PinImage(image=name, pin=True):
                await self._keeper.pin(self._find(name), OWNER)
                return control.Done(number)
            case PinImage(image=name):
                self._keeper.unpin(self._find(name), OWNER)
                return control.Done(number)
            case control.ExportImage(image=name, path=path):
                await self._export(self._find(name), Path(path), say)
                return control.Done(number)
        raise LocalProtocolError("A question about images has no answer.")

    def _find(self, name: str) -> str:
        with own_errors():
            return self._shelf.find(name)

    async def _prune(self, question: control.PruneImages, say: Say) -> Pruned:
        named = [self._find(name) for name in question.images]
        if question.unused_s >= 0:
            before_us = (time.time() - question.unused_s) * 1e6
            named += [note.image for note in self._shelf.notes() if note.used_us <= before_us]
        return await self._keeper.remove(list(dict.fromkeys(named)), _from_thread(say))

    async def _verify(self, question: control.VerifyImages, say: Say) -> control.ImagesVerified:
        counted = 0

        def progress(done: int, total: int) -> None:
            nonlocal counted
            counted = total
            # Seldom: each word goes to another thread.
            if done % 1000 == 0:
                heard(f"read {done} of {total} chunks")
            trio.from_thread.check_cancelled()

        heard = _from_thread(say)
        bad = await _work(self._shelf.store.verify, progress)
        damaged = await _work(self._shelf.damaged)
        repaired = [image for image in damaged if question.repair and await self._repair(image, say)]
        left = tuple(image for image in damaged if image not in repaired)
        return control.ImagesVerified(question.question, counted, len(bad), left, tuple(repaired))

    async def _repair(self, image: str, say: Say) -> bool:
        if any(note.image == image and note.label == PRIVATE for note in self._shelf.notes()):
            say(f"{image[:12]} is of a volume, which is mended from its copies")
            return False
        try:
            await self._fetch(image, say)
        except Error as error:
            say(f"{image[:12]} cannot be repaired: {error.why or error.what}")
            return False
        return True

    async def _pull(self, reference: str, say: Say) -> tuple[str, str]:
        """(image id, "major.minor" of its Python if it is one of ours)."""
        if len(reference) == 2 * DIGEST_BYTES and "/" not in reference:
            image = reference
            await self._fetch(image, say)
        else:
            pull = partial(oci.pull_image, reference, self._shelf.store, self._work, _from_thread(say))
            image = await self._images.make(pull, reference)
        config = await _work(get_config, self._shelf.store, image)
        return image, ".".join(config.python_version.split(".")[:2])

    async def _fetch(self, image: str, say: Say) -> None:
        def progress(at: LeaseProgress) -> None:
            say(f"{at.done >> 20} of {at.total >> 20} MiB")

        await self._images.fetch(image, "", progress)

    async def _push(self, image: str, reference: str, say: Say) -> str:
        return await self._held(image, partial(oci.push, image, reference), say)

    async def _export(self, image: str, file: Path, say: Say) -> None:
        try:
            await self._held(image, partial(oci.export, image, file), say)
        except OSError as error:
            raise InvalidError(
                f"{file} cannot be written.", why=str(error), fix="Give a file in a folder that exists."
            ) from None

    async def _held(self, image: str, work: Callable[..., T], say: Say) -> T:
        """Work on the image while nobody removes it."""
        await self._keeper.hold(image)
        try:
            return await _work(work, self._shelf.store, self._work, _from_thread(say))
        finally:
            self._keeper.release(image)


def _from_thread(say: Say) -> Say:
    """Say it from a thread, which ends here when whoever asked has gone."""

    def said(text: str) -> None:
        trio.from_thread.check_cancelled()
        trio.from_thread.run_sync(say, text)

    return said


async def _work(call: Callable[..., T], *arguments: object) -> T:
    with own_errors():
        return await trio.to_thread.run_sync(call, *arguments)
