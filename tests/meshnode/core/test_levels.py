"""How far peers are trusted."""

import pytest

from potluck_node.core.levels import Levels

ALL = ("us", "ann", "bob", "cas")


def standings(**settings):
    return {peer: Levels("us", **settings).of(peer) for peer in ALL}


@pytest.mark.parametrize(
    ("settings", "levels", "code"),
    [
        ({}, "owner stranger stranger stranger", "us"),
        ({"trust": ("bob",)}, "owner stranger known stranger", "us bob"),
        ({"trust": "mesh"}, "owner lab lab lab", "us ann bob cas"),
        ({"is_member": "ann".__eq__}, "owner lab stranger stranger", "us"),
        ({"is_member": "ann".__eq__, "trust": ("ann",)}, "owner known stranger stranger", "us ann"),
        ({"trust": "mesh", "named": {"cas": "stranger"}}, "owner lab lab stranger", "us ann bob"),
        ({"named": {"ann": "owner", "bob": "known", "cas": "lab"}}, "owner owner known lab", "us ann bob cas"),
        ({"named": {"us": "stranger"}}, "owner stranger stranger stranger", "us"),
    ],
)
def test_the_owners_word_decides_and_a_certificate_alone_lets_nobody_run_code_here(settings, levels, code):
    found = standings(**settings)
    assert [each.level for each in found.values()] == levels.split()
    assert [peer for peer, each in found.items() if each.code] == code.split()
    assert all(each.code == each.secrets and each.why for each in found.values())


def test_strangers_alone_get_the_sandbox_and_the_checks_that_are_set_for_them():
    found = standings(trust=("ann",), stranger_tier="gvisor", stranger_verify="adaptive", is_member="bob".__eq__)
    assert {peer: (each.tier, each.verify) for peer, each in found.items()} == {
        "us": ("", "none"),
        "ann": ("", "none"),
        "bob": ("", "none"),
        "cas": ("gvisor", "adaptive"),
    }
