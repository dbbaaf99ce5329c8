import pytest
from hypothesis import given
from hypothesis import strategies as st

from potluck import App
from potluck.errors import InvalidError
from potluck.network import ANYWHERE, allows, asked_network, checked_names, not_lent, plain_name

LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=2, max_size=4).map(".".join)


@given(NAMES)
def test_a_plain_name_stays_what_it_is_however_it_is_written(name):
    assert plain_name(name) == name
    assert plain_name(f"{name.upper()}.") == name


@given(st.text(max_size=300))
def test_whatever_is_taken_for_a_name_is_plain_and_no_address(text):
    try:
        name = plain_name(text)
    except ValueError:
        return
    assert name.isascii()
    assert "." in name
    assert not name.replace(".", "").isdigit()
    assert not set(name) & set(" /@:%\\?#[]*")
    assert plain_name(name) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "localhost", "a..org", "-a.org", "a-.org", "a b.org", "u@a.org", "a.org:80", "http://a.org"),
        *("a.org/x", "127.0.0.1", "127.1", "0x7f.1", "0177.0.0.1", "10.0x1", "1.2.3.4.", "[::1]", "::1", "*.org"),
        *("a.org\x00.b", "a.org..", "a" * 64 + ".org", "a." * 127 + "org", "ⅷ.℀.org", "straße.de"),
    ],
)  # fmt: skip
def test_what_is_no_full_name_is_refused(text):
    with pytest.raises(ValueError, match=r"it (is|has)"):
        plain_name(text)


def test_names_of_all_alphabets_are_compared_as_they_are_looked_up():
    assert plain_name("Bücher.example") == "xn--bcher-kva.example"


@given(st.lists(NAMES | NAMES.map("*.{}".format), max_size=8))
def test_lists_are_brought_into_one_form(names):
    plain = checked_names(names)
    assert checked_names(plain) == plain
    assert all(allows(plain, name) for name in names)


@pytest.mark.parametrize(
    "names", ["pypi.org", ["*.*.org"], ["*org"], ["10.0.0.1"], [7], [f"a{n}.org" for n in range(65)]]
)
def test_lists_that_cannot_be_meant_are_refused(names):
    with pytest.raises(InvalidError):
        checked_names(names)


def test_a_star_stands_for_names_below_and_alone_for_all():
    assert allows(("*.example.org",), "a.b.example.org")
    assert not allows(("*.example.org",), "example.org")
    assert not allows(("*.example.org",), "badexample.org")
    assert allows(ANYWHERE, "example.org")
    assert checked_names(["a.org", "*"]) == ANYWHERE


def test_an_owner_gives_what_covers_all_that_is_wanted():
    assert not_lent((), ()) == ""
    assert not_lent((), ("a.org",)) == "lends no network"
    assert not_lent(("a.org",), ANYWHERE) == "lends the network to a.org only"
    assert not_lent(("*.a.org",), ("*.b.a.org", "c.a.org")) == ""
    assert not_lent(("*.a.org",), ("a.org", "b.org", "c.a.org")) == "does not allow a.org, b.org"
    assert not_lent(ANYWHERE, ANYWHERE) == ""


def test_there_is_no_network_unless_it_is_asked_for():
    assert asked_network(None, None) == asked_network(True, None) == asked_network(None, []) == ()
    assert asked_network(False, None) == ANYWHERE
    assert asked_network(False, ["a.org"]) == asked_network(None, ["a.org"]) == ("a.org",)
    with pytest.raises(InvalidError, match="cannot be used with block_network"):
        asked_network(True, ["a.org"])


def test_the_decorator_takes_modals_names():
    app = App("net")
    decorated = app.function(outbound_domain_allowlist=["PyPI.org", "*.example.org"])(lambda: None)
    assert decorated._options.network == ("*.example.org", "pypi.org")
    with pytest.raises(InvalidError, match="names no host"):
        app.function(outbound_domain_allowlist=["https://pypi.org/simple"])
