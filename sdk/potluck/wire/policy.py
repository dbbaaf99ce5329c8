"""When a machine works for others: what clients ask of its policy, and have it do."""

from __future__ import annotations

import msgspec

from potluck.wire.common import Message


class Reason(msgspec.Struct, frozen=True, array_like=True):
    """Why the machine does not work, or one GPU (`gpu` is its uuid), and what would change that. `code` is a word for
    programs; `since_us` Unix microseconds."""

    code: str
    text: str
    fix: str
    gpu: str = ""
    since_us: int = 0


class AskPolicy(Message, frozen=True):
    """What holds now; or what would, with facts assumed: by name, as `PolicyTold.facts` has them; or under another
    table, the `text` of which is as for `SetPolicy` (a blank line stands for an empty one). Answered by `PolicyTold`,
    or refused with the key that does not fit."""

    question: int
    assume: dict[str, str] = msgspec.field(default_factory=dict)
    text: str = ""


class PolicyTold(Message, frozen=True):
    """`policy` are the settings that count, presets included; `facts` what is known, both in words. `next_us` is when
    it is looked again though nothing happens, 0 for never. `text` is the table [policy] as config.toml has it, or as it
    was asked about."""

    question: int
    works: bool
    reasons: tuple[Reason, ...]
    facts: dict[str, str]
    policy: dict[str, str]
    next_us: int = 0
    text: str = ""


class SetPolicy(Message, frozen=True):
    """Write the table [policy] of config.toml, and keep to it at once; other settings and comments of the file stay.
    `text` is TOML as it follows the line [policy]. With `keep`, settings that it does not name stay, too, but for those
    in `unset`, which are again as the preset has them. Answered by `Done`, or refused with the key that does not fit
    and what would be right."""

    question: int
    text: str
    keep: bool = False
    unset: tuple[str, ...] = ()


class Drain(Message, frozen=True):
    """Finish what runs, take nothing new. Answered by `Done`."""

    question: int


class Panic(Message, frozen=True):
    """End everything at once, the owner's own functions too. Answered by `Done`."""

    question: int


PolicyQuestion = AskPolicy | SetPolicy | Drain | Panic
PolicyReply = PolicyTold
