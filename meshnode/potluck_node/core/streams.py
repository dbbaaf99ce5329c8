"""What streams between caller and worker while an input runs: items of generators, pieces of requests. Part of the call
core."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from potluck.wire.lease import InputDone
from potluck_node.core import events as ev
from potluck_node.core.demand import Call, Input
from potluck_node.core.hiring import Hiring
from potluck_node.core.trust import is_data, only_data


class Streams:
    """`act` takes an action, `deliver` the one outcome of an input."""

    def __init__(
        self, hiring: Hiring, calls: dict[str, Call], inputs: dict[int, Input], act: Callable[[ev.Action], None],
        deliver: Callable[[Input, ev.Deliver, int], None],
    ) -> None:  # fmt: skip
        self._hiring, self._calls, self._inputs, self._act, self._deliver = hiring, calls, inputs, act, deliver

    def handlers(self) -> dict[type, Callable[..., None]]:
        """By event."""
        return {
            ev.ItemYielded: self._item_yielded,
            ev.ItemsTaken: self._items_taken,
            ev.PieceAdded: self._piece_added,
            ev.PiecesTaken: self._pieces_taken,
        }

    def _item_yielded(self, event: ev.ItemYielded, now_us: int) -> None:
        lease, message = self._hiring.leases.get(event.lease), event.message
        item = self._inputs.get(message.input)
        sent = lease.inputs.get(message.input) if lease else None
        if not sent or not lease or not item or message.attempt != sent.attempt:
            return
        # What answers a request is only ever passed on.
        code = not self._hiring.functions[lease.function].spec.web and not is_data(message.payload)
        if code and not self._hiring.standing(lease.peer).code:
            refused = InputDone(message.input, message.attempt, 0, payload=message.payload)
            failure = only_data(refused, lease.peer).failure
            self._deliver(item, ev.Deliver(item.call, item.index, failure=failure), now_us)
            return
        if message.item == item.items:
            item.items += 1
            self._act(ev.DeliverItem(item.call, item.index, message.item, message.payload))
        elif message.item < item.items:
            # It runs again, and this one was delivered before.
            self._act(ev.AckItems(event.lease, message.input, message.item + 1))

    def _items_taken(self, event: ev.ItemsTaken, _now_us: int) -> None:
        for lease, number in self._sent(event.call, event.index):
            self._act(ev.AckItems(lease, number, event.items))

    def _piece_added(self, event: ev.PieceAdded, _now_us: int) -> None:
        for lease, number in self._sent(event.call, event.index):
            self._act(ev.SendPiece(lease, number, event.payload))

    def _pieces_taken(self, event: ev.PiecesTaken, _now_us: int) -> None:
        lease, item = self._hiring.leases.get(event.lease), self._inputs.get(event.input)
        if lease and item and event.input in lease.inputs:
            self._act(ev.DeliverTaken(item.call, item.index, event.bytes))

    def _sent(self, name: str, index: int) -> Iterator[tuple[str, int]]:
        """(lease, number) wherever an input is."""
        call = self._calls.get(name)
        for number in call.waiting if call else ():
            if self._inputs[number].index == index:
                for lease in self._hiring.functions[call.function].leases if call else ():
                    if number in self._hiring.leases[lease].inputs:
                        yield lease, number
