import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.meshnode.core.worlds import NOW_US, offer

from potluck import wire
from potluck.errors import RemoteProtocolError
from potluck.wire.offer import OFFER_BYTES_MAX, OFFER_GPUS_MAX, OFFER_LIST_MAX, SCORES_MAX, GpuOffer, Offer, Score
from potluck_ledger.envelope import seal
from potluck_ledger.keys import PrivateKey
from potluck_node.core.offers import (
    OFFER_KIND,
    OFFER_LIFE_US,
    OfferBook,
    rank_offer,
    read_offer,
    sign_offer,
    skew_text,
)

KEY, OTHER = PrivateKey.generate(), PrivateKey.generate()
HOUR_US = 3600 * 1_000_000


def book():
    return OfferBook("local", "us")


def test_an_offer_survives_signing():
    given_offer = offer(KEY.peer)
    assert read_offer(sign_offer(KEY, given_offer)) == given_offer


def test_an_offer_in_somebody_elses_name_is_refused():
    forged = seal(OTHER, OFFER_KIND, wire.encode(offer(KEY.peer))).encode()
    with pytest.raises(RemoteProtocolError, match="another peer"):
        read_offer(forged)
    assert rank_offer(f"offer/{KEY.peer}", forged, NOW_US) is None


def test_one_flipped_bit_is_noticed():
    data = bytearray(sign_offer(KEY, offer(KEY.peer)))
    data[len(data) // 2] ^= 1
    with pytest.raises(RemoteProtocolError):
        read_offer(bytes(data))


@given(st.binary(max_size=2000))
def test_garbage_is_refused_with_one_kind_of_error(data):
    with pytest.raises(RemoteProtocolError):
        read_offer(data)


def test_a_record_counts_only_under_its_own_key_and_while_it_is_fresh():
    data = sign_offer(KEY, offer(KEY.peer, sequence=7))
    assert rank_offer(f"offer/{KEY.peer}", data, NOW_US) == 7
    assert rank_offer(f"offer/{OTHER.peer}", data, NOW_US) is None
    assert rank_offer(f"offer/{KEY.peer}", data, NOW_US + OFFER_LIFE_US) is None


def test_newer_offers_replace_older_ones_and_never_the_other_way():
    offers = book()
    assert offers.add(offer("p", sequence=2, cpu_milli=2), NOW_US) is None
    assert offers.add(offer("p", sequence=1, cpu_milli=1), NOW_US)
    assert [each.cpu_milli for each in offers.fresh(NOW_US)] == [2]


def test_expired_offers_are_never_used():
    offers = book()
    offers.add(offer("p"), NOW_US)
    assert list(offers.fresh(NOW_US + OFFER_LIFE_US - 1))
    assert not list(offers.fresh(NOW_US + OFFER_LIFE_US))


def test_other_meshes_and_our_own_offers_are_left_out():
    offers = book()
    assert offers.add(offer("p", mesh="elsewhere"), NOW_US)
    assert offers.add(offer("us"), NOW_US)


@pytest.mark.parametrize(("skew_us", "words"), [(HOUR_US, "60 min ahead"), (-HOUR_US, "60 min behind")])
def test_a_clock_off_by_an_hour_is_named(skew_us, words):
    offers = book()
    wrong = offer("p", issued_us=NOW_US + skew_us, expires_us=NOW_US + skew_us + OFFER_LIFE_US)
    rejected = offers.add(wrong, NOW_US)
    assert rejected
    assert words in rejected.reason
    assert "timedatectl" in rejected.reason
    assert words in skew_text(offers.skewed["p"])
    assert not list(offers.fresh(NOW_US))
    offers.add(offer("p", sequence=2), NOW_US)
    assert not offers.skewed


def test_an_offer_that_claims_to_live_for_a_year_is_refused():
    assert book().add(msgspec.structs.replace(offer("p"), expires_us=NOW_US + 365 * 24 * HOUR_US), NOW_US)


def test_offers_of_older_and_newer_nodes_are_read():
    """Fields are appended: an older node passes over the last, a newer one does without."""
    scored = msgspec.structs.replace(offer("12D3KooWfull"), scores=(Score("", 20_000),))
    fields = msgspec.msgpack.decode(wire.encode(scored))
    assert fields[-1] == [["", 20_000, 0]]
    assert wire.decode(msgspec.msgpack.encode(fields[:-1]), Offer).scores == ()
    assert wire.decode(msgspec.msgpack.encode([*fields, "of a later version"]), Offer) == scored


def test_the_largest_offer_with_its_scores_still_fits():
    gpus = tuple(
        GpuOffer(f"GPU-{n:036d}", "NVIDIA A100-SXM4-80GB MIG 1g.10gb", 81920, 81920, "550.54.14", 80)
        for n in range(OFFER_GPUS_MAX)
    )
    scores = tuple(Score(f"NVIDIA A100-SXM4-80GB MIG {n}g.10gb", 1 << 30, 1 << 30) for n in range(SCORES_MAX))
    names = tuple(f"{n:064x}" for n in range(OFFER_LIST_MAX))
    full = msgspec.structs.replace(
        offer("12D3KooWfull"), gpus=gpus, scores=scores, images=names, warm=tuple(n[:32] for n in names)
    )
    assert len(wire.encode(full)) < OFFER_BYTES_MAX - 1024
