"""What a lease used, tallied on both sides in the order in which outcomes travel, so that the two can be compared."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from blake3 import blake3

from potluck import wire
from potluck.runner.memory import sealed
from potluck.wire.contents import split
from potluck.wire.lease import InputDone, InputItem

_KEY = struct.Struct(">QIQ")


def payload_digest(payload: bytes) -> bytes:
    """BLAKE3, 32 bytes. That of a large payload is remembered with it."""
    memory = sealed(payload)
    if memory is None:
        return blake3(payload).digest()
    memory.digest = memory.digest or blake3(payload).digest()
    return memory.digest


def message_digest(message: InputDone | InputItem) -> bytes:
    """BLAKE3, 32 bytes, of the encoded message, in which the digest of a large payload stands for it."""
    left, large = split(message)
    digests = b"".join(map(payload_digest, large))
    return blake3(wire.encode(left) + digests).digest()


@dataclass
class LeaseMeter:
    """`run_us` is wall time on workers, `cpu_us` their processor time, `work` a hash chain over inputs and outcomes. No
    chain is made of what is never `signed`."""

    run_us: int = 0
    cpu_us: int = 0
    inputs: int = 0
    work: bytes = bytes(32)
    signed: bool = True

    def add(self, done: InputDone, input_digest: bytes, cpu_us: int = 0) -> None:
        """Count one outcome. Both sides call this with the same message, in the same order."""
        self.run_us += done.run_us
        self.cpu_us += cpu_us
        self.inputs += 1
        if not self.signed:
            return
        outcome = message_digest(done)
        self.work = blake3(
            self.work + _KEY.pack(done.input, done.attempt, done.run_us) + input_digest + outcome
        ).digest()

    def add_item(self, item: InputItem) -> None:
        """Count what a generator yielded. As for outcomes, both sides do so in the order in which it travels."""
        if self.signed:
            self.work = blake3(self.work + message_digest(item)).digest()
