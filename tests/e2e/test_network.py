"""Functions with a network, as far as they ask for one and the owner allows it."""

import shutil

import pytest
from tests.e2e import network_sample as sample
from tests.e2e.mesh import Node, wait_until
from tests.meshnode.sandbox import web

from potluck.errors import NoPeerError


class WebNode(Node):
    module = "tests.e2e.network_node"


@pytest.fixture
def port():
    with web.site() as port:
        yield port


@pytest.fixture
def lender(mesh, use_node, port):
    """Makes a caller, and a provider that lends this network."""

    def make(network):
        caller = use_node(mesh.caller())
        flags = ("--bootstrap", caller.address, "--network", network)
        mesh.nodes.append(WebNode(mesh.folder, "ann", *flags, env={"WEB_PORT": str(port)}).start())
        wait_until(lambda: caller.status().peers and caller.status().peers[0].cpu_milli, "finding the provider")

    return make


def test_a_function_reaches_what_it_asked_for_where_the_owner_allows_it(lender, port, capfd):
    lender("*.example.org, other.com")
    url = f"http://files.example.org:{port}/data"
    with sample.app.run(show_progress=False):
        assert sample.listed.remote(url) == f"GET /data host=files.example.org:{port} connection=close"
        assert sample.without.remote(url) != sample.listed.remote(url)
        for _ in range(2):
            assert sample.listed.remote("http://lan.example.org/").startswith(
                "403 potluck: lan.example.org, which is at"
            )
        assert "not among what the function asked for" in sample.listed.remote("http://other.com/")
        with pytest.raises(NoPeerError, match=r"ann lends the network to \*.example.org, other.com only"):
            sample.everything.remote(url)
    logged = "".join(capfd.readouterr())
    assert logged.count("potluck: lan.example.org, which is at 192.168.1.1, cannot be reached") == 1
    assert logged.count("potluck: imported.org is not among what the function asked for") == 1
    assert logged.count("potluck: other.com is not among what the function asked for") == 1


@pytest.mark.skipif(shutil.which("runsc") is None, reason="runsc is not installed")
def test_everything_public_and_the_strict_tier(lender, port):
    lender("public")
    url = f"http://files.example.org:{port}/data"
    with sample.app.run(show_progress=False):
        assert sample.everything.remote(url).startswith("GET /data")
        assert "cloud.example.org, which is at 169.254.169.254," in sample.everything.remote(
            "http://cloud.example.org/"
        )
        assert sample.strict.remote(url).startswith("GET /data")


def test_an_owner_who_says_nothing_lends_no_network(mesh, use_node, port):
    caller = use_node(mesh.caller())
    mesh.provider("ann")
    wait_until(lambda: caller.status().peers and caller.status().peers[0].cpu_milli, "finding the provider")
    with sample.app.run(show_progress=False), pytest.raises(NoPeerError, match="ann lends no network"):
        sample.listed.remote(f"http://files.example.org:{port}/")
