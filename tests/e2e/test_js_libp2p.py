"""js-libp2p, which shares no code with ours, on a mesh: nodes speak libp2p and no dialect of it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.e2e.mesh import PATIENCE_S, wait_until

from potluck_node.core.offers import OFFER_KIND

FOLDER = Path(__file__).parents[1] / "interop"

pytestmark = pytest.mark.skipif(
    not shutil.which("node") or not (FOLDER / "node_modules").is_dir(),
    reason="needs Node.js 20 and its npm; `.ci/setup dev` then installs js-libp2p",
)


def ask_as_javascript(address: str, other: str) -> dict:
    done = subprocess.run(
        ["node", "peer.mjs", address, other],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_javascript_peer_identifies_pings_joins_the_dht_and_reads_an_offer(mesh):
    first = mesh.caller()
    other = mesh.provider("ann")
    wait_until(lambda: first.status().peers, "finding the provider")
    peer = other.status().peer

    found = ask_as_javascript(first.address, peer)

    assert {"/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/potluck/kad/1"} <= set(found["protocols"])
    assert found["pingMs"] >= 0
    # It was told of this one by the first node alone.
    assert peer in found["met"]
    assert found["offer"]["kind"] == OFFER_KIND
    assert found["offer"]["signed"]
    assert found["offer"]["fields"][:2] == [peer, "ann"]


def test_it_reads_no_offer_that_is_not_there(mesh):
    first = mesh.caller()
    wait_until(lambda: first.status().addresses, "listening")
    with pytest.raises(AssertionError, match=r"no record of|not found"):
        ask_as_javascript(first.address, first.status().peer)
