"""The kinds of sandboxes by name, for callers who ask for one and nodes that have some."""

from __future__ import annotations

from collections.abc import Sequence

from potluck.errors import InvalidError

# The weakest first; what each is stands in docs/security.md.
TIERS = ("process", "bwrap", "gvisor")

# Sandboxes into which no GPU is bound.
NO_GPU_TIERS = ("gvisor",)


def checked_tier(wanted: str, gpus: Sequence[str] = ()) -> str:
    """What a caller asked for. Raises `InvalidError` for what no node can give."""
    if wanted and wanted not in TIERS[1:]:
        raise InvalidError(f"sandbox={wanted!r} is not a kind of sandbox.", fix=f"Known are: {', '.join(TIERS[1:])}.")
    if wanted in NO_GPU_TIERS and gpus:
        why = "its driver proxy knows few drivers, no MIG and no AMD"
        raise InvalidError(f"No GPU can be used in a {wanted} sandbox.", why=why, fix="Leave out gpu= or sandbox=.")
    return wanted


def at_least(offered: Sequence[str], wanted: str) -> str | None:
    """The weakest of `offered` that is as strict as `wanted`, or None. Nothing wanted means the weakest."""
    if wanted and wanted not in TIERS:
        return None
    least = TIERS.index(wanted) if wanted else 0
    return next((tier for tier in TIERS[least:] if tier in offered), None)
