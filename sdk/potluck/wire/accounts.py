"""Quotas of a lab: what nodes tell each other of use and grants, on the stream `/potluck/accounts/1`, and what clients
ask of theirs. Grants and memberships are `rules`: envelopes signed by an admin."""

from __future__ import annotations

import msgspec

from potluck.wire.common import Message

# Of one answer: entries with what they record, open leases, rules of a mesh. Together they fit a frame.
RECORDS_MAX, RUNNING_MAX, RULES_MAX = 300, 300, 1000


class RunningLease(msgspec.Struct, frozen=True, array_like=True):
    """The last voucher of an open lease (envelope bytes, signed by both), and what it runs, by its provider's word."""

    voucher: bytes
    app: str
    model: str


class AskAccounts(Message, frozen=True):
    """The asked peer's journal behind number `after`, and its rules unless `rules`, a digest of all, is that of its
    own. For an `audit` also nodes of no lab answer. Answered by `AccountsTold`."""

    after: int
    rules: bytes
    audit: bool = False


class AccountsTold(Message, frozen=True):
    """`records` are pairs as in `JournalAnswer`. A node of no lab tells nothing but to an audit: all to an admin of the
    mesh, to others b"" in place of what its entries record that are not about them."""

    records: tuple[tuple[bytes, bytes], ...] = ()
    running: tuple[RunningLease, ...] = ()
    rules: tuple[bytes, ...] = ()


class GrantTime(Message, frozen=True):
    """Have the node sign a grant: `potluck_ledger.entries.Grant` has the fields. Answered by `Done`."""

    question: int
    scope: str
    name: str
    gpu_class: str
    lease_us: int
    period_us: int
    expires_us: int


class SetMember(Message, frozen=True):
    """Have the node sign that a peer is in a group until then; in the past, that it is not. Answered by `Done`."""

    question: int
    group: str
    member: str
    expires_us: int


class GiveTime(Message, frozen=True):
    """Have the node sign a transfer of its own quota to a peer. Answered by `Done`."""

    question: int
    taker: str
    lease_us: int
    note: str = ""


class SetRule(Message, frozen=True):
    """Have the node sign a rule: `potluck_ledger.entries.Rule` has the fields. Answered by `Done`."""

    question: int
    what: str
    scope: str
    name: str
    machine: str
    level: int
    cpu_milli: int
    gpus: int
    starts_us: int
    expires_us: int


class AskQuotas(Message, frozen=True):
    """Answered by `QuotasTold`."""

    question: int


class QuotaLine(msgspec.Struct, frozen=True, array_like=True):
    """One grant in its present period; `is_mine` when this node may use it. Times are Unix microseconds."""

    scope: str
    name: str
    gpu_class: str
    granted_us: int
    used_us: int
    since_us: int
    until_us: int
    period_us: int
    expires_us: int
    admin: str
    is_mine: bool


class RuleLine(msgspec.Struct, frozen=True, array_like=True):
    """One rule, which counts now or will."""

    what: str
    scope: str
    name: str
    machine: str
    level: int
    cpu_milli: int
    gpus: int
    starts_us: int
    expires_us: int
    admin: str


class QuotasTold(Message, frozen=True):
    """Every grant that counts, groups with their members, and rules."""

    question: int
    admins: tuple[str, ...]
    lines: tuple[QuotaLine, ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    rules: tuple[RuleLine, ...] = ()


QuotaQuestion = GrantTime | SetMember | GiveTime | SetRule | AskQuotas
QuotaReply = QuotasTold
