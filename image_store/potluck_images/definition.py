"""How an image is described: the steps that a builder runs. Small and cheap to import: the SDK loads it everywhere."""

from __future__ import annotations

import msgspec


class Step(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of all build steps."""


class LocalPython(Step, frozen=True):
    """The caller's own interpreter and the shared libraries it needs, found through `executable`.

    `version` is "major.minor.micro", and the builder refuses when the executable says another; "" takes any.
    """

    executable: str
    version: str


class PipInstall(Step, frozen=True):
    """Packages installed with uv for the interpreter below. `options` are passed on: index, find-links, pre…"""

    packages: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()


class Environment(Step, frozen=True):
    variables: tuple[tuple[str, str], ...]


class Workdir(Step, frozen=True):
    path: str


class Source(Step, frozen=True):
    """Local files: pairs of (absolute path in the image, absolute path on this machine). A folder is taken whole,
    without byte-code caches and hidden folders."""

    files: tuple[tuple[str, str], ...]


AnyStep = LocalPython | PipInstall | Environment | Workdir | Source


class ImageDefinition(msgspec.Struct, frozen=True, array_like=True):
    """An image as its steps, from the base upwards."""

    steps: tuple[AnyStep, ...] = ()
