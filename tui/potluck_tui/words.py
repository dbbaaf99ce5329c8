"""Figures and strangers' strings as words that fit a line of a terminal."""

from __future__ import annotations

from datetime import UTC, datetime

# Names, notes and labels come from other machines; longer ones would only push the rest of a line away.
STRANGER_TEXT_MAX = 200
# How many characters of a peer id tell peers apart; the ids of one mesh begin alike.
PEER_TAIL = 8


def plain(text: str) -> str:
    """`text` without anything that could move the cursor, colour the screen or turn the writing direction."""
    return "".join(each if each.isprintable() else "�" for each in text[:STRANGER_TEXT_MAX])


def counted(count: int, one: str, many: str = "") -> str:
    """ "1 peer", "3 peers"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def cores(milli: int) -> str:
    """Thousandths of a core as "1 core", "2.5 cores"."""
    return f"{milli / 1000:g} {'core' if milli == 1000 else 'cores'}"


def memory(mib: int) -> str:
    """Mebibytes as "512 MiB", "1.5 GiB"."""
    return f"{mib} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


def duration(us: int) -> str:
    """Microseconds with the two largest units that matter: "40 ms", "3.2 s", "2 min 05 s", "3 h 10 min", "2 d 4 h"."""
    if us < 0:
        return f"−{duration(-us)}"
    if us < 1_000_000:
        return f"{us // 1000} ms" if us else "0 s"
    tenths = us // 100_000
    if tenths < 600:
        return f"{tenths / 10:.1f} s"
    seconds = us // 1_000_000
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    minutes = seconds // 60
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes // 1440} d {minutes // 60 % 24} h"


def age(us: int) -> str:
    """As `duration`, without fractions of a second, which only flicker."""
    return duration(max(0, us) // 1_000_000 * 1_000_000).replace(".0 s", " s")


def uptime(us: int) -> str:
    """As `age`; in whole minutes from one on, since a line that changes each second costs a layout of the screen."""
    minutes = us // 60_000_000
    return age(us) if minutes < 1 else f"{minutes} min" if minutes < 60 else duration(us)


def bar(part: int, whole: int, width: int) -> str:
    """`width` cells, filled up to `part` of `whole`; anything above nothing shows, and only all fills it."""
    if whole <= 0 or part <= 0:
        filled = 0
    elif part >= whole:
        filled = width
    else:
        filled = min(max(1, round(width * part / whole)), max(0, width - 1))
    return "█" * filled + "░" * (width - filled)


def when(us: int) -> str:
    """Unix microseconds as "2026-03-01 14:05", UTC as in receipts."""
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M")


def clock(us: int) -> str:
    """Unix microseconds as this machine's time of day, "14:05:09"."""
    return datetime.fromtimestamp(us / 1e6).strftime("%H:%M:%S")
