"""What the ledger signs: receipts, vouchers and what else a journal holds, and the entries that chain them."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from potluck_ledger.bodies import Body, BodyT, decode, encode
from potluck_ledger.envelope import Envelope, EnvelopeError, open_envelope, seal
from potluck_ledger.keys import PrivateKey

NONCE_BYTES, DIGEST_BYTES = 16, 32
# What each text of a receipt may have, in bytes, so that all together fit (`Receipt.BYTES_MAX`).
LEASE_MAX, LABEL_MAX, GPU_MAX, MODEL_MAX, REASON_MAX, METHOD_MAX, QUALITY_MAX, TIER_MAX = 32, 32, 45, 26, 32, 38, 56, 8
# Reasons of disputes and notes of transfers are for people.
NOTE_MAX = 96
# A rule's level for everybody: numbers on the wire are not negative. And what stands for no limit.
PRIORITY_ZERO, NO_LIMIT = 100, 2**53 - 1


def cut(text: str, most: int) -> str:
    """To so many bytes of UTF-8."""
    return text.encode()[:most].decode(errors="ignore")


class Receipt(Body, frozen=True):
    """What one lease used. Signed by its provider, then by its caller.

    `lease_us` is billed: wall time on workers. `busy_us` is the provider's evidence of use, `energy_mj` of energy; how
    they were taken is said by `method` and how far to trust them by `quality`; `tier` is the sandbox that ran it.
    Always `busy_us` ≤ `lease_us`, and `lease_us` ≤ what the caller's own clock saw. `work` chains digests of every
    input and outcome (see the node's `core/meter.py`). Times are Unix microseconds of the provider's clock.
    """

    KIND: ClassVar[str] = "potluck/receipt/2"
    PEERS: ClassVar[tuple[str, ...]] = ("caller", "provider")
    DIGESTS: ClassVar[dict[str, int]] = {"function": 16, "image": 32}

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

    def check(self) -> None:
        if self.ended_us < self.started_us or self.busy_us > self.lease_us:
            raise EnvelopeError("a receipt has times that cannot be: more busy than leased, or an end before its start")
        if self.caller == self.provider:
            raise EnvelopeError("nobody bills themselves")
        if (len(self.nonce), len(self.work)) != (NONCE_BYTES, DIGEST_BYTES):
            raise EnvelopeError("a receipt's nonce or digest has another size")


class Voucher(Body, frozen=True):
    """What a lease has used so far: `lease_us` counts from its start, `number` from 1. Signed by its provider, then by
    its caller, who owes that much from then on, whatever happens to the two."""

    KIND: ClassVar[str] = "potluck/voucher/1"
    BYTES_MAX: ClassVar[int] = 192
    PEERS: ClassVar[tuple[str, ...]] = ("caller", "provider")

    lease: str
    caller: str
    provider: str
    number: int
    lease_us: int
    at_us: int

    def check(self) -> None:
        if self.caller == self.provider:
            raise EnvelopeError("nobody bills themselves")


class Grant(Body, frozen=True):
    """Time that an admin of a mesh lets somebody use: `lease_us` in each `period_us` (0: once), of GPUs of a class
    (empty: any). `scope` is user, group or app, `name` whose. Signed by the admin."""

    KIND: ClassVar[str] = "potluck/grant/1"
    PEERS: ClassVar[tuple[str, ...]] = ("admin",)

    admin: str
    mesh: str
    scope: str
    name: str
    gpu_class: str
    lease_us: int
    period_us: int
    starts_us: int
    expires_us: int
    nonce: bytes

    def check(self) -> None:
        if self.scope not in ("user", "group", "app"):
            raise EnvelopeError("a grant is for a user, a group or an app")
        if self.expires_us <= self.starts_us:
            raise EnvelopeError("a grant expires before it starts")
        if len(self.nonce) != NONCE_BYTES:
            raise EnvelopeError("a grant's nonce has another size")


class Membership(Body, frozen=True):
    """A peer is in a group of a mesh, from `starts_us` on and until `expires_us`: at once over when they are the same.
    Of those of one group and member the latest start counts. Signed by the admin."""

    KIND: ClassVar[str] = "potluck/membership/1"
    PEERS: ClassVar[tuple[str, ...]] = ("admin", "member")

    admin: str
    mesh: str
    group: str
    member: str
    starts_us: int
    expires_us: int
    nonce: bytes

    def check(self) -> None:
        if self.expires_us < self.starts_us or not self.group:
            raise EnvelopeError("a membership is in a group, and does not end before it starts")
        if len(self.nonce) != NONCE_BYTES:
            raise EnvelopeError("a membership's nonce has another size")


class Rule(Body, frozen=True):
    """What an admin of a mesh decided for a user or group, on the `machine` that is meant (a node's name or id, a label
    as "lab=vision", empty: all), from `starts_us` until `expires_us`: that it is theirs alone (reserve), comes before
    or behind others (priority: `level`, of which `PRIORITY_ZERO` is everybody's), or that all of the group together
    have no more of it at once than `cpu_milli` and `gpus` (limit: `NO_LIMIT` for any). Signed by the admin."""

    KIND: ClassVar[str] = "potluck/rule/1"
    PEERS: ClassVar[tuple[str, ...]] = ("admin",)

    admin: str
    mesh: str
    what: str
    scope: str
    name: str
    machine: str
    level: int
    cpu_milli: int
    gpus: int
    at_us: int
    starts_us: int
    expires_us: int
    nonce: bytes

    def check(self) -> None:
        if self.what not in ("reserve", "priority", "limit") or self.scope not in ("user", "group") or not self.name:
            raise EnvelopeError("a rule reserves, sets a priority or a limit, for a user or a group")
        if self.expires_us < self.starts_us:
            raise EnvelopeError("a rule expires before it starts")
        if self.level > 2 * PRIORITY_ZERO:
            raise EnvelopeError("a rule has a priority that cannot be")
        if len(self.nonce) != NONCE_BYTES:
            raise EnvelopeError("a rule's nonce has another size")


class Transfer(Body, frozen=True):
    """Time that a peer gives to another out of its balance. Signed by whoever gives it."""

    KIND: ClassVar[str] = "potluck/transfer/1"
    PEERS: ClassVar[tuple[str, ...]] = ("giver", "taker")

    giver: str
    taker: str
    lease_us: int
    at_us: int
    nonce: bytes
    note: str = ""

    def check(self) -> None:
        if self.giver == self.taker:
            raise EnvelopeError("nobody gives to themselves")
        if len(self.nonce) != NONCE_BYTES:
            raise EnvelopeError("a transfer's nonce has another size")


class Dispute(Body, frozen=True):
    """What a peer says against another about a lease: `claimed_us` were used, and `signed_us` are signed: less by a
    provider's word, more by a caller's. `evidence` is the digest of what shows it, or zeros. Signed by whoever says so.
    """

    KIND: ClassVar[str] = "potluck/dispute/1"
    PEERS: ClassVar[tuple[str, ...]] = ("by", "against")

    by: str
    against: str
    lease: str
    claimed_us: int
    signed_us: int
    at_us: int
    evidence: bytes
    reason: str

    def check(self) -> None:
        if self.by == self.against:
            raise EnvelopeError("nobody disputes with themselves")
        if len(self.evidence) != DIGEST_BYTES:
            raise EnvelopeError("a dispute's digest has another size")


class Checkpoint(Body, frozen=True):
    """The state of a journal at one entry: its digest, and the sums of all receipts up to it. Signed by its owner, then
    by witnesses."""

    KIND: ClassVar[str] = "potluck/checkpoint/1"
    BYTES_MAX: ClassVar[int] = 160
    PEERS: ClassVar[tuple[str, ...]] = ("owner",)

    owner: str
    sequence: int
    head: bytes
    at_us: int
    given_us: int
    used_us: int

    def check(self) -> None:
        if len(self.head) != DIGEST_BYTES:
            raise EnvelopeError("a checkpoint's digest has another size")


class Entry(Body, frozen=True):
    """One link of a node's journal. `previous` is the BLAKE3 digest of the envelope of the entry before (32 zero bytes
    for the first), `content` that of the envelope which this entry records and which is kept beside it: so two entries
    that contradict each other are small enough to be shown to everybody. Signed by the journal's owner alone."""

    KIND: ClassVar[str] = "potluck/journal-entry/2"
    BYTES_MAX: ClassVar[int] = 128

    sequence: int
    previous: bytes
    at_us: int
    content: bytes

    def check(self) -> None:
        if not self.sequence or (len(self.previous), len(self.content)) != (DIGEST_BYTES, DIGEST_BYTES):
            raise EnvelopeError("an entry counts from 1, and its digests have 32 bytes")


Content = Receipt | Voucher | Grant | Membership | Rule | Transfer | Dispute | Checkpoint
CONTENTS: dict[str, type[Content]] = {
    kind.KIND: kind for kind in (Receipt, Voucher, Grant, Membership, Rule, Transfer, Dispute, Checkpoint)
}


def sign(key: PrivateKey, body: Body) -> Envelope:
    """Raises `EnvelopeError` for a body that is too large, or cannot be."""
    data = encode(body)
    decode(data, type(body))
    return seal(key, body.KIND, data)


def read(data: bytes, kind: type[BodyT], *signers: str) -> BodyT:
    """Verify and parse the envelope of one body, signed by these and nobody else. Raises `EnvelopeError`."""
    envelope = open_envelope(data, kind.KIND)
    body = decode(envelope.body, kind)
    if tuple(envelope.signers) != signers:
        raise EnvelopeError(f"this {kind.__name__.lower()} is not signed by whom it should be")
    return body


def read_content(data: bytes) -> tuple[Envelope, Content]:
    """Verify and parse whatever a journal can hold. Raises `EnvelopeError`."""
    envelope = open_envelope(data, *CONTENTS)
    content = decode(envelope.body, CONTENTS[envelope.kind])
    _check_signers(envelope, content)
    return envelope, content


def parsed(data: bytes) -> tuple[Envelope, Content]:
    """What was verified before it was kept. Raises `EnvelopeError` for bytes that are something else."""
    try:
        envelope = msgspec.msgpack.decode(data, type=Envelope)
    except msgspec.DecodeError as error:
        raise EnvelopeError(f"not an envelope: {error}") from None
    if envelope.kind not in CONTENTS:
        raise EnvelopeError(f"{envelope.kind!r:.80} is not kept")
    return envelope, decode(envelope.body, CONTENTS[envelope.kind])


def _check_signers(envelope: Envelope, content: Content) -> None:
    signers = envelope.signers
    if isinstance(content, Receipt | Voucher):
        if signers not in ([content.provider], [content.provider, content.caller]):
            raise EnvelopeError("it is signed by its provider first, then by its caller, and by nobody else")
    elif isinstance(content, Checkpoint):
        # Witnesses are known to whoever reads it.
        if signers[0] != content.owner:
            raise EnvelopeError("a checkpoint is signed by its owner first")
    else:
        signer = {Grant: "admin", Membership: "admin", Rule: "admin", Transfer: "giver", Dispute: "by"}[type(content)]
        if signers != [getattr(content, signer)]:
            raise EnvelopeError("it is signed by somebody else than it says")


def read_receipt(data: bytes) -> tuple[Envelope, Receipt]:
    """Verify and parse a receipt's envelope. Raises `EnvelopeError` unless the provider signed it, and nobody but the
    provider and the caller did, and its numbers are possible."""
    envelope = open_envelope(data, Receipt.KIND)
    receipt = decode(envelope.body, Receipt)
    _check_signers(envelope, receipt)
    return envelope, receipt


def read_voucher(data: bytes) -> Voucher:
    """One that both signed. Raises `EnvelopeError`."""
    envelope = open_envelope(data, Voucher.KIND)
    voucher = decode(envelope.body, Voucher)
    if envelope.signers != [voucher.provider, voucher.caller]:
        raise EnvelopeError("a voucher is signed by its provider, then by its caller")
    return voucher


def parties(content: Content) -> set[str]:
    """Whom it is about."""
    return {getattr(content, name) for name in type(content).PEERS}
