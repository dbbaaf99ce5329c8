"""Building on another node: asking a peer to, and building for a peer where the owner allows it."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import trio

from potluck import wire
from potluck.errors import Error, ImageBuildError, InvalidError, NotFoundError, RefusedError
from potluck.wire import Failure, control
from potluck.wire import build as messages
from potluck.wire.offer import Offer
from potluck_images.ship import ship, unship
from potluck_node.builds import GaveWayError
from potluck_node.clock import Clock
from potluck_node.images import ImageService
from potluck_node.link import StreamLink
from potluck_node.machine import machine
from potluck_node.store_errors import own_errors
from potluck_node.transport.interface import Stream, Transport, TransportError

log = logging.getLogger("potluck.build")

BUILD_PROTOCOL = "/potluck/build/1"

# How long whoever opened a stream may take to say what to build.
ASK_TIMEOUT_S = 30.0
# A builder whose owner uses it is asked again after so long, then twice as long each time, at most so long, seconds;
# and for no longer than whoever waits at a terminal looks elsewhere.
AGAIN_S, AGAIN_MAX_S, PATIENCE_S = 2.0, 60.0, 1800.0
# Names shown when a peer is not found.
NAMES_MAX = 20

Say = Callable[[str], None]


def find_builder(offers: Iterable[Offer], name: str) -> Offer:
    """The peer with this name or id. Raises `NotFoundError`, `InvalidError`, which list who is known."""
    known = list(offers)
    found = [offer for offer in known if name in (offer.name, offer.peer)]
    if not found:
        names = ", ".join(sorted({offer.name for offer in known})[:NAMES_MAX])
        raise NotFoundError(
            f"No peer named {name} is known.",
            why=f"known are {names}" if names else "this node knows no other peer",
            fix="Name one that `potluck status` shows. A node that was started by itself knows none: potluck up",
        )
    if len(found) > 1:
        raise InvalidError(
            f"{len(found)} peers are named {name}.", fix=f"Give the id of one: {', '.join(each.peer for each in found)}"
        )
    return found[0]


class BuildPeers:
    """Both sides. `allowed` is the owner's word on building for others, `name` this node's."""

    def __init__(
        self, images: ImageService, transport: Transport, clock: Clock, home: Path, name: str, allowed: bool
    ) -> None:
        self._images, self._transport, self._clock = images, transport, clock
        self._name, self._allowed, self._busy = name, allowed, False
        # What was shipped for builds that a killed node left behind.
        self._shipped = home / "build" / "shipped"
        shutil.rmtree(self._shipped, ignore_errors=True)
        # Why nothing is begun for others now, or "".
        self.stopped: Callable[[], str] = lambda: ""

    # Asking

    async def ask(self, question: control.BuildImage, builder: Offer, say: Say) -> tuple[str, str]:
        """(image id, "major.minor" of its Python), as `ImageService.build`. Raises `potluck.errors.Error`."""
        if builder.machine != machine():
            raise _other_machine(builder.name, builder.machine, machine())
        shipped = ""
        try:
            request, shipped = await self._ship(question, say)
            return await self._patiently(builder, request, say)
        finally:
            if shipped:
                self._images.keeper.release(shipped)

    async def _ship(self, question: control.BuildImage, say: Say) -> tuple[messages.Build, str]:
        """The request, and the image with the files, which is held."""

        def said(text: str) -> None:
            trio.from_thread.check_cancelled()
            trio.from_thread.run_sync(say, f"packing the image's files: {text}")

        async def attempt() -> tuple[messages.Build, str]:
            pack = partial(ship, question.definition, self._images.store, said, question.secrets)
            definition, shipped = await trio.to_thread.run_sync(pack)
            if shipped:
                await self._images.keeper.hold(shipped)
            return messages.Build(definition, machine(), shipped, question.secrets), shipped

        return await self._images.keeper.write(attempt)

    async def _patiently(self, builder: Offer, request: messages.Build, say: Say) -> tuple[str, str]:
        """Again and again while the builder's owner uses it: what its finished steps made is kept there."""
        pause_s, until = AGAIN_S, trio.current_time() + PATIENCE_S
        while True:
            try:
                return await self._converse(builder, request, say)
            except GaveWayError as left:
                if trio.current_time() + pause_s > until:
                    raise _gave_way(builder.name, str(left)) from None
                say(f"{builder.name} gave way to its owner ({left}); it is asked again in {pause_s:.0f} s")
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, AGAIN_MAX_S)

    async def _converse(self, builder: Offer, request: messages.Build, say: Say) -> tuple[str, str]:
        if len(wire.encode(request)) > messages.BUILD_BYTES_MAX:
            raise InvalidError(
                f"The image's description has more than {messages.BUILD_BYTES_MAX >> 20} MiB.",
                fix="Add data with add_local_dir() instead of in functions or commands.",
            )
        try:
            stream = await self._transport.open(builder.peer, BUILD_PROTOCOL)
        except TransportError as error:
            raise _lost(builder.name, str(error)) from None
        answers: list[messages.BuildDone | messages.BuildFailed] = []

        def take(message: object) -> None:
            if isinstance(message, messages.BuildSaid):
                say(f"{builder.name}: {message.text}")
            elif isinstance(message, messages.BuildDone | messages.BuildFailed):
                answers.append(message)
                link.finish()

        link = StreamLink(stream, messages.FromBuilder, take, self._clock)
        link.post(request)
        why = await link.run()
        if not answers:
            raise _lost(builder.name, why)
        if isinstance(answers[0], messages.BuildFailed):
            if answers[0].yielded:
                raise GaveWayError(answers[0].failure.why)
            raise answers[0].failure.error()
        return answers[0].image, answers[0].python

    # Being asked

    async def on_stream(self, stream: Stream) -> None:
        """Build for a peer until it is done or the peer has gone."""
        asked = trio.Event()
        requests: list[messages.Build] = []

        def take(message: object) -> None:
            if isinstance(message, messages.Build):
                requests.append(message)
                asked.set()

        link = StreamLink(stream, messages.ToBuilder, take, self._clock)
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                with trio.move_on_after(ASK_TIMEOUT_S):
                    await asked.wait()
                if requests:
                    link.post(await self._answer(requests[0], stream.peer, lambda text: link.post(_said(text))))
                link.finish()

            nursery.start_soon(answer)
            await link.run()
            nursery.cancel_scope.cancel()

    async def _answer(self, request: messages.Build, peer: str, say: Say) -> wire.Message:
        try:
            self._check(request)
            self._busy = True
            try:
                log.info("building an image for %s", peer)
                return messages.BuildDone(*await self._build(request, peer, say))
            finally:
                self._busy = False
        except GaveWayError as left:
            log.info("the build for %s gives way: %s", peer, left)
            return messages.BuildFailed(Failure.of(_gave_way(self._name, str(left))), yielded=True)
        except Error as error:
            return messages.BuildFailed(Failure.of(error))

    def _check(self, request: messages.Build) -> None:
        """Raises `RefusedError`, `ImageBuildError`, `GaveWayError`."""
        if not self._allowed:
            raise RefusedError(
                f"{self._name} does not build images for others.",
                fix="Its owner can allow it: build_for_others = true in config.toml. Or build on your own node.",
            )
        if self._busy:
            raise RefusedError(f"{self._name} is building for somebody else.", fix="Try again later, or elsewhere.")
        if request.machine != machine():
            raise _other_machine(self._name, machine(), request.machine)
        if why := self.stopped():
            raise GaveWayError(why)

    async def _build(self, request: messages.Build, peer: str, say: Say) -> tuple[str, str]:
        keeper, shipped = self._images.keeper, request.shipped
        if shipped:
            await keeper.hold(shipped)
        try:
            self._shipped.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._shipped, ignore_cleanup_errors=True) as folder:
                if shipped:
                    say("fetching the image's files")
                    await keeper.write(partial(self._images.fetcher.fetch, shipped, peer, lambda progress: None))
                own = partial(unship, request.definition, self._images.store, shipped, Path(folder))
                with own_errors():
                    definition = await trio.to_thread.run_sync(own)
                return await self._images.build(definition, request.secrets, say, peer)
        finally:
            if shipped:
                keeper.release(shipped)


def _said(text: str) -> messages.BuildSaid:
    return messages.BuildSaid(text.removeprefix("building the image: "))


def _other_machine(name: str, theirs: str, ours: str) -> ImageBuildError:
    return ImageBuildError(
        f"{name} cannot build this image: its processor is {theirs}, the caller's {ours}.",
        fix="Choose a peer with the caller's processor, or build on your own node.",
    )


def _gave_way(name: str, why: str) -> ImageBuildError:
    return ImageBuildError(
        f"{name} gave way to its owner before it had built the image.",
        why=why,
        fix="Run it again later, on another peer, or without --build-on.",
    )


def _lost(name: str, why: str) -> ImageBuildError:
    return ImageBuildError(
        f"{name} was lost before it had built the image.",
        why=why or "it ended the conversation",
        fix="Run it again, on another peer or without --build-on.",
    )
