import msgspec
import pytest
from tests.meshnode.core.worlds import dice, needs, offer, spec

from potluck.wire import function_id
from potluck.wire.offer import GpuOffer
from potluck_node.core.placement import EXPLORE_EVERY, Candidate, choose, misfit, no_peer

A10G = GpuOffer("GPU-1", "NVIDIA A10G", 24576, 24000)


def chosen(*candidates, function=None):
    function = function or spec()
    found = choose(candidates, function_id(function), function, dice())
    return found.offer.name if found else None


def test_a_warm_worker_beats_a_present_image_which_beats_nearness():
    function = spec()
    warm = Candidate(offer("warm", warm=(function_id(function),), cpu_free_milli=0), rtt_us=90_000)
    image = Candidate(offer("image", images=(function.image,)), rtt_us=30_000)
    near = Candidate(offer("near"), rtt_us=100)
    assert chosen(near, image, warm) == "warm"
    assert chosen(near, image) == "image"
    assert chosen(near, Candidate(offer("far"), rtt_us=90_000)) == "near"


def test_a_full_peer_comes_last_but_is_still_asked():
    full = Candidate(offer("full", cpu_free_milli=0), rtt_us=100)
    free = Candidate(offer("free"), rtt_us=90_000)
    assert chosen(full, free) == "free"
    assert chosen(full) == "full"


def test_of_two_equals_the_less_loaded_one_is_taken():
    loaded, idle = Candidate(offer("loaded", cpu_free_milli=1000)), Candidate(offer("idle"))
    names = {choose([loaded, idle], "f", spec(), dice(seed)).offer.name for seed in range(20)}
    assert "idle" in names
    wins = sum(choose([loaded, idle], "f", spec(), dice(seed)).offer.name == "idle" for seed in range(100))
    assert wins > 60


def test_bans_only_order_and_are_ignored_when_everyone_is_banned():
    banned, other = Candidate(offer("banned"), banned=True), Candidate(offer("other"), rtt_us=99_000)
    assert chosen(banned, other) == "other"
    assert chosen(banned) == "banned"


def test_who_has_proved_itself_goes_before_who_says_it_has_everything_but_for_one_time_in_ten():
    function = spec()
    warm = {"warm": (function_id(function),), "images": (function.image,)}
    proven = Candidate(offer("proven", warm=warm["warm"]), rtt_us=90_000, doubt=0)
    says = Candidate(offer("says", **warm), rtt_us=100, doubt=1)
    found = [choose([says, proven], function_id(function), function, dice(seed)).offer.name for seed in range(500)]
    assert 500 / EXPLORE_EVERY * 0.6 < found.count("says") < 500 / EXPLORE_EVERY * 1.5
    # A cold one does not go before it.
    cold = Candidate(offer("cold"), doubt=0)
    assert chosen(cold, says) == "says"


def test_paused_peers_and_misfits_are_never_asked():
    assert chosen(Candidate(offer("paused", state="paused"))) is None
    assert chosen(Candidate(offer("small", memory_mib=100)), function=needs(memory_mib=200)) is None


def test_gpu_counts_and_fallbacks():
    two = offer("two", gpus=(A10G, A10G))
    assert not misfit(two, needs(gpu=("A10G:2",)))
    assert misfit(two, needs(gpu=("A10G:3",))) == "has NVIDIA A10G, NVIDIA A10G"
    assert not misfit(two, needs(gpu=("H100", "a10g")))


def test_a_gpu_that_cannot_be_used_does_not_fit_and_says_why():
    lost = msgspec.structs.replace(A10G, state="has fallen off the bus")
    assert "A10G (has fallen off the bus)" in misfit(offer("two", gpus=(lost,)), needs(gpu=("any",)))
    used = msgspec.structs.replace(A10G, state="used by the owner")
    assert not misfit(offer("two", gpus=(used,)), needs(gpu=("any",)))


def test_peers_with_a_free_gpu_come_first():
    leased = Candidate(offer("leased", gpus=(msgspec.structs.replace(A10G, state="leased"),)))
    free = Candidate(offer("free", gpus=(A10G,)), rtt_us=90_000)
    assert chosen(leased, free, function=needs(gpu=("any",))) == "free"
    assert chosen(leased, function=needs(gpu=("any",))) == "leased"


def test_a_share_is_asked_of_owners_who_share_alone():
    shares = msgspec.structs.replace(A10G, shares=True)
    assert misfit(offer("whole", gpus=(A10G,)), needs(gpu=("any:4GB",)))
    assert not misfit(offer("parts", gpus=(shares,)), needs(gpu=("any:4GB",)))


def test_the_error_says_what_is_missing_and_who_is_nearest():
    error = no_peer(needs(gpu=("H100",), memory_mib=1 << 16), [offer("mira", gpus=(A10G,)), offer("tom")])
    assert "1 H100" in error.what
    assert "mira has NVIDIA A10G" in error.why
    assert "tom has no GPU" in error.why
    assert "potluck up" in no_peer(spec(), []).fix


def test_a_strict_function_fits_only_where_there_is_a_strict_sandbox():
    plain, strict = offer("plain", tiers=("bwrap",)), offer("strict", tiers=("bwrap", "gvisor"))
    assert misfit(plain, spec(tier="gvisor")) == "has no gvisor sandbox"
    assert not misfit(strict, spec(tier="gvisor"))
    assert not misfit(offer("stricter", tiers=("gvisor",)), spec(tier="bwrap"))
    assert not misfit(plain, spec())


def test_the_network_must_be_lent_and_the_error_says_who_lends_it():
    lender, some = offer("lender", network=("*",)), offer("some", network=("pypi.org",))
    function = spec(network=("example.org",))
    assert misfit(offer("none"), function) == "lends no network"
    assert misfit(some, function) == "does not allow example.org"
    assert not misfit(lender, function)
    assert not misfit(some, spec(network=("pypi.org",)))
    assert chosen(Candidate(some), Candidate(lender), function=function) == "lender"
    error = no_peer(function, [some])
    assert "the network (example.org)" in error.what
    assert "some does not allow example.org" in error.why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"region": ("us",)}, "is in eu-west"),
        ({"region": ("eu-west-2",)}, "is in eu-west"),
        ({"region": ("us", "eu")}, ""),
        ({"region": ("eu-west",)}, ""),
        ({"labels": (("lab", "b"),)}, "has no label lab=b"),
        ({"labels": (("lab", "a"),)}, ""),
    ],
)
def test_places_and_labels(changes, why):
    assert misfit(offer("ann", region="eu-west", labels=(("lab", "a"), ("disk", "ssd"))), spec(**changes)) == why


def test_who_does_not_say_where_it_is_is_nowhere():
    assert misfit(offer("ann"), spec(region=("eu",))) == "does not say where it is"
