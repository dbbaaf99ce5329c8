"""The book of offers: which peers offer what, as far as signed, fresh offers say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.wire.offer import OFFER_BYTES_MAX, Offer
from potluck_ledger.envelope import EnvelopeError, open_envelope, seal
from potluck_ledger.keys import PrivateKey

OFFER_KIND = "potluck/offer/1"

# An offer that does not change is repeated every 5 s, and less often in a mesh so large that each node would hear more
# than ten a second: hearing one costs about a millisecond with all that libp2p does for it.
OFFER_REPEAT_US, OFFER_REPEAT_MAX_US = 5_000_000, 120_000_000
OFFERS_HEARD_PER_S = 10
# Three lost in a row make it stale.
OFFER_LIFE_US = 4 * OFFER_REPEAT_US
# The DHT has a copy for those who come anew. Storing it costs a stream to each of twenty peers, ten times as much as a
# gossip: so it is told once in three times, and lives as long as two lives.
RECORD_EVERY, OFFER_LIFE_MAX_US = 3, 8 * OFFER_REPEAT_MAX_US

# Clocks on a LAN without NTP drift by seconds; more than two minutes means that expiry says nothing.
CLOCK_SKEW_MAX_US = 120_000_000

# A mesh of 10,000 nodes at about 1 KiB an offer: 10 MiB.
OFFERS_MAX = 10_000


def repeat_us(others: int) -> int:
    """How long after an offer the next is told if nothing changes, where so many others are known to tell theirs."""
    return min(max(OFFER_REPEAT_US, others * 1_000_000 // OFFERS_HEARD_PER_S), OFFER_REPEAT_MAX_US)


@dataclass(frozen=True)
class Rejected:
    """Why an offer was not used, in words."""

    peer: str
    reason: str


def sign_offer(key: PrivateKey, offer: Offer) -> bytes:
    """The offer as envelope bytes for DHT and gossip."""
    return seal(key, OFFER_KIND, wire.encode(offer)).encode()


def read_offer(data: bytes) -> Offer:
    """Verify and parse. Raises `RemoteProtocolError` unless it is an offer signed by the very peer that it names."""
    if len(data) > OFFER_BYTES_MAX:
        raise RemoteProtocolError(f"An offer of {len(data)} bytes is over the limit of {OFFER_BYTES_MAX}.")
    try:
        envelope = open_envelope(data, OFFER_KIND)
    except EnvelopeError as error:
        raise RemoteProtocolError("A peer sent an offer that is not validly signed.", why=str(error)) from None
    offer = wire.decode(envelope.body, Offer)
    if envelope.signers != [offer.peer]:
        raise RemoteProtocolError("An offer is signed by another peer than it names.")
    return offer


def rank_offer(key: str, data: bytes, now_us: int) -> int | None:
    """Rank of a DHT record `offer/<peer>`: its sequence, or None when it is forged, misfiled or expired."""
    try:
        offer = read_offer(data)
    except RemoteProtocolError:
        return None
    if key != f"offer/{offer.peer}" or offer.expires_us <= now_us:
        return None
    return offer.sequence


def skew_text(skew_us: int) -> str:
    """A clock difference in words."""
    minutes = round(abs(skew_us) / 60_000_000)
    amount = f"{minutes} min" if minutes >= 2 else f"{abs(skew_us) / 1e6:.0f} s"
    return (
        f"its clock is {amount} {'ahead of' if skew_us > 0 else 'behind'} ours; set it with: timedatectl set-ntp true"
    )


@dataclass
class OfferBook:
    """Latest valid offer of each peer. Pure: time comes with each call, in Unix microseconds."""

    mesh: str
    us: str
    offers: dict[str, Offer] = field(default_factory=dict)
    skewed: dict[str, int] = field(default_factory=dict)
    # Peers with whom nothing more is done, and why.
    banned: dict[str, str] = field(default_factory=dict)
    # Whether a peer may offer anything on this mesh.
    may_offer: Callable[[str], bool] = lambda peer: True
    # Why none is taken.
    closed: str = ""

    def add(self, offer: Offer, now_us: int) -> Rejected | None:
        """Take a *verified* offer that was sent just now; returns why it is not used, if so."""
        if offer.mesh != self.mesh or offer.peer == self.us:
            return Rejected(offer.peer, "it belongs to another mesh or is our own")
        if why := self.closed or self.banned.get(offer.peer):
            return Rejected(offer.peer, why)
        if not self.may_offer(offer.peer):
            return Rejected(offer.peer, "it is no provider of this mesh")
        known = self.offers.get(offer.peer)
        if known and offer.sequence <= known.sequence:
            return Rejected(offer.peer, "a newer one is known")
        skew = offer.issued_us - now_us
        if abs(skew) > CLOCK_SKEW_MAX_US:
            self.skewed[offer.peer] = skew
            self.offers.pop(offer.peer, None)
            return Rejected(offer.peer, skew_text(skew))
        if offer.expires_us - offer.issued_us > OFFER_LIFE_MAX_US or offer.expires_us <= now_us:
            return Rejected(offer.peer, "it has expired, or claims to live too long")
        if known is None and len(self.offers) >= OFFERS_MAX:
            return Rejected(offer.peer, "the book is full")
        self.skewed.pop(offer.peer, None)
        self.offers[offer.peer] = offer
        return None

    def close(self, why: str) -> None:
        """Take no offers at all any more."""
        self.closed = why
        self.offers.clear()

    def ban(self, peer: str, why: str) -> None:
        """Take no offer of a peer any more."""
        self.banned[peer] = why
        self.offers.pop(peer, None)
        self.skewed.pop(peer, None)

    def forget(self, peer: str) -> None:
        self.offers.pop(peer, None)

    def fresh(self, now_us: int) -> Iterator[Offer]:
        """Offers that have not expired; expired ones are dropped on the way."""
        for peer, offer in list(self.offers.items()):
            if offer.expires_us <= now_us:
                del self.offers[peer]
            else:
                yield offer
