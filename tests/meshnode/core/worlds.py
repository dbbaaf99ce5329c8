"""Small worlds for tests of the cores: offers, functions, and dice that always fall the same way."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from potluck.wire import FunctionSpec, Resources
from potluck.wire.offer import Offer
from potluck_node.core.offers import OFFER_LIFE_US

NOW_US = 1_800_000_000_000_000
SPEC = FunctionSpec(app="tests", name="work", image="ab" * 32, python="3.11", module="m", qualname="work")


def spec(**changes: Any) -> FunctionSpec:
    return msgspec.structs.replace(SPEC, **changes)


def offer(peer: str, **changes: Any) -> Offer:
    plain = Offer(
        peer=peer,
        name=peer,
        mesh="local",
        sequence=1,
        issued_us=NOW_US,
        expires_us=NOW_US + OFFER_LIFE_US,
        cpu_milli=4000,
        cpu_free_milli=4000,
        memory_mib=8192,
        memory_free_mib=8192,
    )
    return msgspec.structs.replace(plain, **changes)


def needs(**changes: Any) -> FunctionSpec:
    return spec(resources=Resources(**changes))


def dice(seed: int = 1) -> random.Random:
    return random.Random(seed)
