"""Members only: before anything else is opened on a connection, both sides show who they are to the mesh.

Until then the one stream that is taken is that of the introduction, which whoever dialled opens; the library's own
services (DHT, gossip, identify) hear of a connection only once it is admitted.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator

from potluck_node.transport.framed import FramedStream
from potluck_node.transport.interface import CONNECT_TIMEOUT_S, Admission, NotAdmittedError, Stream, TransportError
from potluck_node.transport.libp2p.pipe import MuxedPipe

log = logging.getLogger("potluck.transport")

INTRODUCTION = TProtocol("/potluck/introduction/1")


class Door:
    """Of one host. `admission` decides; connections are known by their muxer."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._introduced: dict[Any, trio.Event] = {}

    def admits(self, peer: str) -> bool:
        return self._admission.admits(peer)

    async def lets_in(self, raw: Any) -> bool:
        """Whether an incoming stream may be served. What they open at once, when we were the first to be admitted,
        waits for our own half of the introduction."""
        muxed = raw.muxed_conn
        event = self._introduced.get(muxed)
        if muxed.is_initiator and event is not None:
            await event.wait()
        return self.admits(str(muxed.peer_id))

    async def enter(self, connection: Any) -> None:
        """Introduce both sides of a new connection to each other. Raises `TransportError` when one is refused."""
        muxed = connection.muxed_conn
        event = self._introduced[muxed] = trio.Event()
        try:
            with trio.move_on_after(CONNECT_TIMEOUT_S) as scope:
                if muxed.is_initiator:
                    await self._introduce(connection)
                else:
                    await event.wait()
            if scope.cancelled_caught:
                raise NotAdmittedError(f"{muxed.peer_id} did not say in time who it is to this mesh")
        finally:
            event.set()
            del self._introduced[muxed]

    async def _introduce(self, connection: Any) -> None:
        raw = await connection.new_stream()
        try:
            await MultiselectClient().select_one_of([INTRODUCTION], MultiselectCommunicator(raw))
        except Exception as error:
            raise NotAdmittedError(f"{connection.muxed_conn.peer_id} is on no private mesh: {error}") from error
        await self._talk(raw, self._admission.introduce)

    async def answer(self, raw: Any) -> None:
        """An incoming stream of a peer that is not admitted: nothing but its introduction. Never raises."""
        with trio.move_on_after(CONNECT_TIMEOUT_S):
            try:
                found, _ = await Multiselect({INTRODUCTION: self._answer}).negotiate(MultiselectCommunicator(raw))
                if found == INTRODUCTION:
                    await self._answer(raw)
                    return
            except Exception as error:  # noqa: BLE001 - a stranger may send anything
                log.info("%s is not admitted: %s", raw.muxed_conn.peer_id, error)
        await raw.reset()

    async def answer_again(self, raw: Any) -> None:
        """As `answer`, for a peer that is admitted already, on another connection."""
        try:
            with trio.move_on_after(CONNECT_TIMEOUT_S):
                await self._answer(raw)
        except TransportError as error:
            log.info("%s is not admitted again: %s", raw.muxed_conn.peer_id, error)

    async def _answer(self, raw: Any) -> None:
        muxed = raw.muxed_conn
        await self._talk(raw, self._admission.answer)
        if (event := self._introduced.get(muxed)) is not None:
            event.set()

    async def _talk(self, raw: Any, talk: Callable[[Stream], Awaitable[None]]) -> None:
        stream = FramedStream(MuxedPipe(raw), str(raw.muxed_conn.peer_id))
        failed: TransportError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.run)
            try:
                await talk(stream)
            except TransportError as error:
                failed = error
            await stream.aclose()
        if failed:
            raise failed
