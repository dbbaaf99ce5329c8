import pytest
from tests.meshnode.core.worlds import dice, needs, offer, spec

from potluck.errors import InvalidError
from potluck.wire import function_id
from potluck.wire.offer import GpuOffer
from potluck_node.core.placement import Candidate, choose, gpu_matches, misfit, no_peer, parse_gpu

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


def test_paused_peers_and_misfits_are_never_asked():
    assert chosen(Candidate(offer("paused", state="paused"))) is None
    assert chosen(Candidate(offer("small", memory_mib=100)), function=needs(memory_mib=200)) is None


@pytest.mark.parametrize(
    ("wanted", "model", "fits"),
    [
        ("any", "NVIDIA H100 80GB HBM3", True),
        ("a10g", "NVIDIA A10G", True),
        ("a10", "NVIDIA A10G", False),
        ("a100", "NVIDIA A100-SXM4-80GB", True),
        ("a100-80gb", "NVIDIA A100-SXM4-80GB", True),
        ("a100-40gb", "NVIDIA A100-SXM4-80GB", False),
    ],
)
def test_gpu_names(wanted, model, fits):
    assert gpu_matches(wanted, model) is fits


def test_gpu_counts_and_fallbacks():
    two = offer("two", gpus=(A10G, A10G))
    assert not misfit(two, needs(gpu=("A10G:2",)).resources)
    assert misfit(two, needs(gpu=("A10G:3",)).resources) == "has NVIDIA A10G, NVIDIA A10G"
    assert not misfit(two, needs(gpu=("H100", "a10g")).resources)


@pytest.mark.parametrize("text", ["", ":2", "A10G:0", "A10G:x", "a:b:c"])
def test_nonsense_gpu_requests_are_refused(text):
    with pytest.raises(InvalidError):
        parse_gpu(text)


def test_the_error_says_what_is_missing_and_who_is_nearest():
    error = no_peer(needs(gpu=("H100",), memory_mib=1 << 16), [offer("mira", gpus=(A10G,)), offer("tom")])
    assert "1 H100" in error.what
    assert "mira has NVIDIA A10G" in error.why
    assert "tom has no GPU" in error.why
    assert "potluck up" in no_peer(spec(), []).fix
