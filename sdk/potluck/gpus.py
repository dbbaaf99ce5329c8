"""What `gpu=` may say, and which GPUs satisfy it. The names are Modal's; memory is our addition.

    "any"  "A10G"  "H100:2"  "A100-80GB"  "H100!"       models, with a count
    "any:>=16GB"  "A100:2:>=40GB"                       whole GPUs with at least so much memory each
    "any:4GB"                                           a share of one GPU, where its owner allows sharing

GB are 10⁹ bytes, as on the box; GiB are 2³⁰.
"""

from __future__ import annotations

import functools
import itertools
import re
from typing import NamedTuple

from potluck.errors import InvalidError

# The largest machines have 16; a function that wants more must be several.
GPUS_MAX = 16
# Alternatives in one list: more than there are families of GPUs.
CHOICES_MAX = 16
# Far above any GPU; only keeps figures small.
MEMORY_MIB_MAX = 1 << 24

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}!?")
_MEMORY = re.compile(r"(>=)?(\d{1,8}(?:\.\d{1,3})?) ?(GB|GiB|MB|MiB)", re.IGNORECASE)
_BYTES = {"gb": 10**9, "gib": 1 << 30, "mb": 10**6, "mib": 1 << 20}

# Words that make another product of a name: a "RTX 4070 Ti" is no "RTX 4070", a slice of an A100 is no A100.
_DISTINCT = frozenset({"ti", "super", "laptop", "d", "max", "pro", "mig"})
_MAKERS = frozenset({"nvidia", "tesla", "geforce", "quadro", "amd", "radeon"})
_FIX = 'Write a model, "any", or either with a count or memory: "H100:2", "any:>=16GB".'


class GpuRequest(NamedTuple):
    """`amount` GPUs of a `model` (in lower case, "any" for all), each with `memory_mib`; with `share` it is of one."""

    model: str
    amount: int = 1
    memory_mib: int = 0
    share: bool = False


# Placement asks the same of each of a thousand offers, each time that it looks.
@functools.lru_cache(maxsize=256)
def parse_gpu(text: str) -> GpuRequest:
    """Parse one request. Raises `InvalidError`."""
    model, *options = (part.strip() for part in text.split(":"))
    if not _MODEL.fullmatch(model):
        raise InvalidError(f"gpu={text!r} is not a GPU request.", fix=_FIX)
    count = memory_mib = 0
    share = False
    for option in options:
        size = _MEMORY.fullmatch(option)
        if option.isdecimal() and len(option) < 4 and not count:
            count = _checked(int(option), GPUS_MAX, text)
        elif size and not memory_mib:
            mib = int(float(size[2]) * _BYTES[size[3].lower()]) >> 20
            memory_mib, share = _checked(mib, MEMORY_MIB_MAX, text), not size[1]
        else:
            raise InvalidError(f"gpu={text!r} is not a GPU request.", why=f"{option!r} is no count or size", fix=_FIX)
    if share and count > 1:
        why = "a share is of one GPU; write >= for whole GPUs of that size"
        raise InvalidError(f"gpu={text!r} cannot be had.", why=why, fix=_FIX)
    return GpuRequest(model.lower(), count or 1, memory_mib, share)


def _checked(value: int, most: int, text: str) -> int:
    if not 1 <= value <= most:
        raise InvalidError(f"gpu={text!r} asks for {value}.", why=f"possible are 1 to {most}", fix=_FIX)
    return value


def checked_gpus(gpu: object) -> tuple[str, ...]:
    """The requests of `@app.function(gpu=…)`, the preferred first. Raises `InvalidError`."""
    texts = () if gpu is None else (gpu,) if isinstance(gpu, str) else gpu
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise InvalidError(f"gpu={gpu!r} is not a GPU request.", why="It is no text and no list of texts.", fix=_FIX)
    if gpu is not None and not 1 <= len(texts) <= CHOICES_MAX:
        raise InvalidError(f"gpu={gpu!r} has {len(texts)} choices.", fix=f"Give 1 to {CHOICES_MAX}.")
    for text in texts:
        parse_gpu(text)
    return tuple(texts)


@functools.lru_cache(maxsize=1024)
def gpu_matches(wanted: GpuRequest, model: str, memory_mib: int) -> bool:
    """Whether a GPU with this NVML product name satisfies a request: "a10g" fits "NVIDIA A10G", "a10" no "A100"."""
    if memory_mib < wanted.memory_mib:
        return False
    if wanted.model == "any":
        return True
    asked, has = set(_words(wanted.model.removesuffix("!"))), _names(model)
    slices = {word for word in asked if re.fullmatch(r"\d+g\.\d+gb", word)}
    if (has & _DISTINCT) - asked - ({"mig"} if slices else set()):
        return False
    sizes = {word for word in asked if re.fullmatch(r"\d+gb", word)}
    return asked - sizes - _MAKERS <= has and all(_has_size(int(size[:-2]), has, memory_mib) for size in sizes)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[ _-]+", name.lower()) if word]


def _names(model: str) -> set[str]:
    """The words of a product name, and each two neighbours written as one: "rtx4090"."""
    words = _words(model)
    return {*words, *(first + second for first, second in itertools.pairwise(words))}


def _has_size(gigabytes: int, has: set[str], memory_mib: int) -> bool:
    """The size as the product's name has it; where the name has none, as the driver reports it (within a quarter)."""
    named = {word for word in has if re.fullmatch(r"\d+gb", word)}
    reported = gigabytes * 10**9 <= memory_mib << 20 <= gigabytes * 1.25 * 10**9
    return f"{gigabytes}gb" in named if named else reported
