"""Which names of the internet a function asks for, and an owner allows. The patterns are those of Modal's allow-lists.

"example.org"      this name alone
"*.example.org"    every name below it
"*"                every name and every address that is public
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from potluck.errors import InvalidError

ANYWHERE = ("*",)

# A list travels in each offer, which is at most 16 KiB, 64 images and as many functions included.
NAMES_MAX, NAMES_CHARS_MAX = 64, 2048

# RFC 1035: 63 characters each, 253 in all. The underscore is used by real names of services.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NAME_CHARS_MAX = 253
# What reads as a number would be taken for an address, also as 0x7f.1 (https://url.spec.whatwg.org/#ends-in-a-number-checker).
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_FIX = 'Give names such as "example.org" or "*.example.org", without "http://", port or path.'


def plain_name(text: str) -> str:
    """`text` as names are compared: lower case, ASCII, without the dot at its end. Raises `ValueError` for no name."""
    name = _ascii(text.lower().removesuffix("."))
    labels = name.split(".")
    if len(name) > _NAME_CHARS_MAX or len(labels) < 2 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("it is no full name of a host")
    if _NUMBER.fullmatch(labels[-1]):
        raise ValueError("it is an address, or reads like one")
    return name


def _ascii(name: str) -> str:
    """The form of RFC 3490; names that RFC 5891 writes differently are refused, since programs disagree about them."""
    if name.isascii():
        return name
    encoded = ""
    try:
        encoded = name.encode("idna").decode()
        same = encoded.encode().decode("idna") == name
    except UnicodeError:
        same = False
    if not same:
        raise ValueError('it has letters that are not unambiguous; write it as it is looked up ("xn--…")')
    return encoded


def checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """The patterns `names`, each in its plain form, sorted. Raises `InvalidError`."""
    if isinstance(names, str):
        raise InvalidError(f"{names!r} is not a list of names.", fix=f'Write ["{names}"].')
    plain = sorted({_checked(name) for name in names})
    if len(plain) > NAMES_MAX or sum(map(len, plain)) > NAMES_CHARS_MAX:
        raise InvalidError(
            f"A list of names is too long: at most {NAMES_MAX} of {NAMES_CHARS_MAX} characters together.",
            fix='Use "*.example.org" for many names of one owner, or "*" for everything.',
        )
    return ANYWHERE if "*" in plain else tuple(plain)


def _checked(pattern: str) -> str:
    if pattern == "*":
        return pattern
    try:
        wild = pattern.startswith("*.")
        return "*." * wild + plain_name(pattern.removeprefix("*."))
    except (ValueError, AttributeError) as error:
        raise InvalidError(f"{pattern!r:.300} names no host.", why=str(error), fix=_FIX) from None


def asked_network(block_network: bool | None, allowlist: Sequence[str] | None) -> tuple[str, ...]:
    """What `@app.function` asks for: nothing unless it says so. Raises `InvalidError`."""
    if block_network and allowlist is not None:
        raise InvalidError("outbound_domain_allowlist cannot be used with block_network=True.", fix="Leave one out.")
    if allowlist is not None:
        return checked_names(allowlist)
    return ANYWHERE if block_network is False else ()


def allows(patterns: Sequence[str], name: str) -> bool:
    """Whether one of `patterns` covers `name`, which may be a pattern itself."""
    return any(each in ("*", name) or (each.startswith("*.") and name.endswith(each[1:])) for each in patterns)


def not_lent(allowed: Sequence[str], wanted: Sequence[str]) -> str:
    """What an owner who allows `allowed` does not give of `wanted`, as the end of a sentence, or ""."""
    if wanted and not allowed:
        return "lends no network"
    missing = [name for name in wanted if not allows(allowed, name)]
    if missing == ["*"]:
        return f"lends the network to {', '.join(allowed)} only"
    return f"does not allow {', '.join(missing)}" if missing else ""
