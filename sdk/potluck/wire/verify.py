"""How results of strangers are verified, what clients judge for it, and what the node tells of peers and evidence."""

from __future__ import annotations

import msgspec

from potluck.wire.common import Failure, Message

# Replicas of one input: nine peers that agree by fives are more than anybody has asked for (BOINC's projects use two
# or three).
REPLICAS_MAX = 9
# Known answers travel with each call that has some.
CANARIES_MAX, CANARY_BYTES_MAX = 100, 256 << 10
# Of one answer: what a terminal can show.
EVIDENCE_MAX, PEERS_MAX = 200, 10_000


class Canary(msgspec.Struct, frozen=True, array_like=True):
    """An input with the result that it must have, as data (`potluck.runner.plain`)."""

    payload: bytes
    expected: bytes


class Verification(msgspec.Struct, frozen=True, array_like=True):
    """Of at most `most` results of different peers `needed` must agree. `adaptive` asks for a second one only as often
    as a peer's record says (`core.reputation`). Results that differ byte for byte are `judged` by the client; with
    `single`, it tells of each result by itself whether that is right. With `same_gpu`, replicas run on one model of
    GPU. Of a thousand inputs sent to strangers, about `canary_milli` are followed by a canary.
    """

    needed: int = 2
    most: int = 3
    adaptive: bool = False
    judged: bool = False
    single: bool = False
    same_gpu: bool = False
    canary_milli: int = 0
    canaries: tuple[Canary, ...] = ()


class JudgeResults(Message, frozen=True):
    """`payloads` are the input, the new result, and those with which it may agree. Answered by `ResultsJudged`."""

    call: int
    case: int
    payloads: tuple[bytes, ...]


class ResultsJudged(Message, frozen=True):
    """`agrees` is the number of the result with which the new one agrees, from 0; -1 for none. For `single`, 0 says
    that it is right. `failure` is set when the client cannot tell: then the input fails with it."""

    call: int
    case: int
    agrees: int
    failure: Failure | None = None


class Vote(msgspec.Struct, frozen=True, array_like=True):
    """What one peer answered: `verdict` is right, wrong or undecided; `digest` is of the result (SHA-256, hex), or
    says how it failed. `lease` names the receipt that bills it."""

    peer: str
    lease: str
    digest: str
    verdict: str


class EvidenceFacts(msgspec.Struct, frozen=True, array_like=True):
    """How one input was decided: `kind` is quorum, adaptive, check or canary. `input_digest` is SHA-256 in hex."""

    at_us: int
    kind: str
    app: str
    function: str
    image: str
    input_digest: str
    outcome: str
    votes: tuple[Vote, ...]


class PeerFacts(msgspec.Struct, frozen=True, array_like=True):
    """A peer with its level here, and why (`core.levels`). `right` and `wrong` are verdicts of this node, which fade;
    `score` is in thousandths, 500 for nothing known. Until `banned_us` it is sent nothing, for `banned_why`."""

    peer: str
    name: str
    level: str
    why: str
    code: bool
    right: float = 0.0
    wrong: float = 0.0
    score: int = 500
    banned_us: int = 0
    banned_why: str = ""


class AskPeers(Message, frozen=True):
    """Answered by `PeersKnown`."""

    question: int


class PeersKnown(Message, frozen=True):
    question: int
    mesh: str
    now_us: int
    peers: tuple[PeerFacts, ...]


class AskEvidence(Message, frozen=True):
    """The newest evidence, of one peer or all. Answered by `EvidenceKept`."""

    question: int
    peer: str = ""


class EvidenceKept(Message, frozen=True):
    """The newest first."""

    question: int
    evidence: tuple[EvidenceFacts, ...]


StrangerQuestion = AskPeers | AskEvidence
StrangerReply = PeersKnown | EvidenceKept
