import contextlib
import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from potluck_node.sandbox.network_own import own_networks
from potluck_node.sandbox.network_policy import Policy, Refused, Target, is_public, parse_target

OPEN = Policy(("*",), ("*",))
PUBLIC4 = ("8.8.8.8", "1.1.1.1", "93.184.216.34", "100.63.255.255", "172.32.0.1")
PUBLIC6 = ("2606:4700::1111", "2a00:1450:4001::8", "64:ff9b::8.8.8.8")
PRIVATE4 = (
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.1", "168.63.129.16", "224.0.0.251", "224.0.1.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
)  # fmt: skip
PRIVATE6 = (
    *("::", "::1", "fe80::1", "febf::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1", "2001:db8::1"),
    *("::ffff:8.8.8.8", "::ffff:127.0.0.1", "::8.8.8.8", "::127.0.0.1", "::ffff:0:8.8.8.8", "2002:808:808::1"),
    *("2002:7f00:1::", "2001::1", "2001:0:4136:e378::", "100::1", "64:ff9b:1::a00:1", "64:ff9b::7f00:1"),
    *("64:ff9b::a9fe:a9fe", "64:ff9b::c0a8:101", "4000::1", "3ffe::1", "5f00::1"),
)  # fmt: skip


def refusal(action, *arguments) -> str:
    with pytest.raises(Refused) as caught:
        action(*arguments)
    return caught.value.reason


@pytest.mark.parametrize("text", [*PUBLIC4, *PUBLIC6])
def test_public_addresses(text):
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", [*PRIVATE4, *PRIVATE6])
def test_addresses_that_are_not_public(text):
    assert not is_public(ipaddress.ip_address(text))


@given(st.ip_addresses(v=4))
@example(ipaddress.IPv4Address("10.0.0.1"))
def test_no_form_of_ipv6_leads_to_an_ipv4_address_that_is_not_public(address):
    number = int(address)
    forms = [
        number,
        0xFFFF << 32 | number,
        0xFFFF << 48 | number,
        0x2002 << 112 | number << 80,
        0x20010000 << 96 | number,
    ]
    assert not any(is_public(ipaddress.IPv6Address(form)) for form in forms)
    assert is_public(ipaddress.IPv6Address(0x64FF9B << 96 | number)) == is_public(address)


@given(st.ip_addresses(v=6))
def test_public_ipv6_is_global_unicast(address):
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("example.org:443", Target("example.org", 443)),
        ("EXAMPLE.org.:443", Target("example.org", 443)),
        ("8.8.8.8:53", Target("8.8.8.8", 53)),
        ("[2606:4700:0::1111]:443", Target("2606:4700::1111", 443)),
    ],
)
def test_targets_are_brought_into_one_form(text, target):
    assert parse_target(text) == target
    assert parse_target(target.authority) == target


@pytest.mark.parametrize(
    "text",
    [
        *("", ":443", "example.org", "example.org:", "example.org:0", "example.org:65536", "example.org:99999999"),
        *("user@example.org:443", "example.org@127.0.0.1:443", "example.org:80@127.0.0.1:80", "example.org:443/x"),
        *("[fe80::1%25eth0]:80", "[::1]", "::1:80", "[example.org]:80", "[127.0.0.1:80", "exa mple.org:80", ".:443"),
        *("2130706433:80", "0x7f000001:80", "0177.0.0.1:80", "127.1:80", "0x7f.0.0.1:80", "127.0.0.1.:80"),
        *("localhost:80", "router:80", "a.org#@b.org:80", "a.org%00.b.org:80", "１２７.0.0.1:80", "a.org:８０"),
        *("a.org\\@b.org:80", "a.org:+1", "a.org:80:80", "[::ffff:127.0.0.1:80"),
    ],
)  # fmt: skip
def test_tricks_are_no_targets(text):
    assert refusal(parse_target, text)


@given(st.text(max_size=80))
def test_anything_is_a_target_or_refused(text):
    with contextlib.suppress(Refused):
        target = parse_target(text)
        assert parse_target(target.authority) == target


def test_both_lists_count_and_the_answer_says_which():
    policy = Policy(("*.example.org",), ("a.example.org", "other.org"))
    policy.check_target(Target("a.example.org", 443))
    assert "what the function asked for: *.example.org" in refusal(policy.check_target, Target("other.org", 443))
    assert "what the machine's owner allows: a.example.org" in refusal(
        policy.check_target, Target("b.example.org", 443)
    )
    assert "allows: nothing" in refusal(Policy(("*",), ()).check_target, Target("b.org", 443))


def test_addresses_need_a_list_that_allows_everything():
    OPEN.check_target(Target("8.8.8.8", 443))
    assert "asked for" in refusal(Policy(("a.org",), ("*",)).check_target, Target("8.8.8.8", 443))


@pytest.mark.parametrize(
    "name", ["printer.local", "a.localhost", "metadata.google.internal", "nas.home.arpa", "pi.lan"]
)
def test_private_names_are_not_even_looked_up(name):
    assert "private name" in refusal(OPEN.check_target, Target(name, 80))


def test_mail_servers_are_closed():
    assert "Port 25" in refusal(OPEN.check_target, Target("example.org", 25))
    OPEN.check_target(Target("example.org", 587))


@pytest.mark.parametrize(
    "bad", [*PRIVATE4, *PRIVATE6, "fe80::1%eth0", "nonsense", "93.184.1.1", "2a02:8071:1::1", "64:ff9b::93.184.1.1"]
)
def test_one_bad_address_among_those_of_a_name_is_enough(bad):
    own = (ipaddress.ip_network("93.184.0.0/16"), ipaddress.ip_network("2a02:8071:1::/48"))
    target = Target("example.org", 443)
    OPEN.check_addresses(target, ["8.8.8.8", "2606:4700::1111"], own)
    assert f"example.org, which is at {bad}," in refusal(OPEN.check_addresses, target, ["8.8.8.8", bad], own)


def test_the_exemption_of_tests_is_for_one_address_and_port():
    policy = Policy(("*",), ("*",), (("127.0.0.1", 8000),))
    policy.check_addresses(Target("example.org", 8000), ["127.0.0.1"], ())
    assert refusal(policy.check_addresses, Target("example.org", 8001), ["127.0.0.1"], ())
    assert refusal(policy.check_addresses, Target("example.org", 8000), ["127.0.0.2"], ())


ROUTE = """Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
eth0	000010C6	00000000	0001	0	0	0	00F0FFFF	0	0	0
tun0	00000000	00000000	0001	0	0	0	00000080	0	0	0
"""
FIB_TRIE = """Local:
           |-- 127.0.0.1
              /32 host LOCAL
           |-- 198.16.7.9
              /32 host LOCAL
           |-- 198.31.255.255
              /32 link BROADCAST
"""
ROUTE6 = "\n".join(
    f"{int(ipaddress.IPv6Address(network)):032x} {bits:02x} {'0' * 32} 00 {int(ipaddress.IPv6Address(gateway)):032x}"
    " 00000400 00000001 00000000 00000001 eth0"
    for network, bits, gateway in (
        ("::", 0, "fe80::1"),
        ("::", 0, "::"),
        ("2a02:8071:1:2::", 64, "::"),
        ("2a02:8071:1:2::5", 128, "::"),
        ("2a03::", 32, "::"),
        ("2a04::", 48, "fe80::1"),
    )
)  # fmt: skip


def test_networks_are_read_from_the_kernels_tables(tmp_path):
    for name, text in (("route", ROUTE), ("fib_trie", FIB_TRIE), ("ipv6_route", ROUTE6)):
        (tmp_path / name).write_text(text)
    found = {str(network) for network in own_networks(tmp_path)}
    assert found == {"198.16.0.0/20", "127.0.0.1/32", "198.16.7.9/32", "2a02:8071:1::/48", "2a03::/32"}


def test_this_machines_own_addresses_are_found_and_a_kernel_without_tables_has_none(tmp_path):
    assert any(ipaddress.ip_address("127.0.0.1") in network for network in own_networks() if network.version == 4)
    assert own_networks(tmp_path) == ()
