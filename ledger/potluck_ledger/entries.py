"""What is signed: receipts, and the journal entries that chain them. Integers only; canonical msgpack arrays."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from potluck_ledger.envelope import Envelope, EnvelopeError, open_envelope

RECEIPT_KIND = "potluck/receipt/1"
ENTRY_KIND = "potluck/journal-entry/1"

# A receipt has two peer ids, three digests, and six texts of at most `TEXT_MAX`: whatever is larger carries something
# else.
RECEIPT_BYTES_MAX = 1024
TEXT_MAX = 96


class Receipt(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one lease used.

    `lease_us` is billed: wall time on workers. `busy_us` is the provider's evidence of use, `energy_mj` of energy; how
    they were taken is said by `method` and how far to trust them by `quality`; `tier` is the sandbox that ran it.
    Always `busy_us` ≤ `lease_us`, and `lease_us` ≤ what the caller's own clock saw. `work` chains digests of every
    input and outcome (see the node's `core/meter.py`). Times are Unix microseconds of the provider's clock.
    """

    lease: str
    caller: str
    provider: str
    function: str
    label: str
    image: str
    nonce: bytes
    started_us: int
    ended_us: int
    lease_us: int
    busy_us: int
    energy_mj: int
    inputs: int
    work: bytes
    gpu: str = ""
    gpu_model: str = ""
    method: str = "wall"
    quality: str = "provider's clock"
    reason: str = ""
    tier: str = ""


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One link of a node's journal. `previous` is the BLAKE3 digest of the entry before (32 zero bytes for the first);
    `content` is a receipt's envelope, exactly as it was signed."""

    sequence: int
    previous: bytes
    at_us: int
    content: bytes


T = TypeVar("T", Receipt, Entry)


def encode(body: Receipt | Entry) -> bytes:
    return msgspec.msgpack.encode(body)


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        body = msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EnvelopeError(f"not a {kind.__name__.lower()}: {error}") from None
    if encode(body) != data:
        raise EnvelopeError(f"the {kind.__name__.lower()} is not in canonical form")
    return body


def read_receipt(data: bytes) -> tuple[Envelope, Receipt]:
    """Verify and parse a receipt's envelope. Raises `EnvelopeError` unless the provider signed it, and nobody but the
    provider and the caller did, and its numbers are possible."""
    envelope = open_envelope(data, RECEIPT_KIND)
    if len(envelope.body) > RECEIPT_BYTES_MAX:
        raise EnvelopeError(f"a receipt has at most {RECEIPT_BYTES_MAX} bytes")
    receipt = _decode(envelope.body, Receipt)
    signers = [signature.peer for signature in envelope.signatures]
    if signers not in ([receipt.provider], [receipt.provider, receipt.caller]):
        raise EnvelopeError("a receipt is signed by its provider first, then by its caller, and by nobody else")
    _check_numbers(receipt)
    return envelope, receipt


def _check_numbers(receipt: Receipt) -> None:
    numbers = (receipt.started_us, receipt.lease_us, receipt.busy_us, receipt.energy_mj, receipt.inputs)
    if min(numbers) < 0 or receipt.ended_us < receipt.started_us:
        raise EnvelopeError("a receipt has negative figures")
    if receipt.busy_us > receipt.lease_us:
        raise EnvelopeError("a receipt claims more busy time than leased time")
    if receipt.caller == receipt.provider:
        raise EnvelopeError("nobody bills themselves")


def read_entry(data: bytes, owner: str) -> Entry:
    """Verify and parse one journal entry of `owner`. Raises `EnvelopeError`."""
    envelope = open_envelope(data, ENTRY_KIND)
    if [signature.peer for signature in envelope.signatures] != [owner]:
        raise EnvelopeError("a journal entry is signed by the journal's owner alone")
    return _decode(envelope.body, Entry)
