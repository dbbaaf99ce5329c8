"""Packages installed inside the image that is being built: Debian's with apt, Python's with uv.

Unlike `pip_install`, this may build packages from source: whatever runs, runs in the step's sandbox.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from potluck_images import pip_install
from potluck_images.bench import TOOLS, Bench
from potluck_images.definition import AptInstall, PipInstall
from potluck_images.errors import ImageBuildError
from potluck_images.local_python import SITE
from potluck_images.process import Say

# Where uv looks for packages, when the machine says so.
_PASSED_ON = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_HTTP_TIMEOUT")


def apt_install(bench: Bench, step: AptInstall, say: Say) -> None:
    """Raises `ImageBuildError` with apt's last lines."""
    for package in step.packages:
        if package.startswith("-") or not package.strip():
            raise ImageBuildError(
                f"{package!r} is not a Debian package.", fix='Give names such as "ffmpeg" or "git=1:2".'
            )
    names = shlex.join(step.packages)
    script = f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {names}"
    bench.run(("/bin/sh", "-c", script), say, "apt_install", env=dict(step.env))


def uv_install(bench: Bench, step: PipInstall, python: str, say: Say) -> None:
    """Into /opt/site. Raises `ImageBuildError` with uv's last lines."""
    shutil.copy(pip_install.find_uv(), bench.tools / "uv")
    packages = [_shown(bench, package) for package in step.packages]
    requirements = [_shown(bench, name) for name in pip_install.requirement_files(step, bench.tools, say)]
    options, binds = _options(step)
    argv = [f"{TOOLS}/uv", "pip", "install", "--python", python, "--target", f"/{SITE}", "--link-mode", "copy"]
    argv += ["--cache-dir", "/tmp/uv", "--color", "never", "--no-progress", "--no-config", *options]
    for name in requirements:
        argv += ["--requirement", name]
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    bench.run(
        (*argv, "--", *packages) if packages else tuple(argv),
        lambda line: say(line or "resolving packages"),
        "pip_install",
        env=env | dict(step.env),
        binds=binds,
    )


def left_by_uv(path: str) -> bool:
    """What is no part of a package."""
    return path.startswith(f"{SITE}/") and path.rpartition("/")[2] in pip_install.LEFT_BY_UV


def _shown(bench: Bench, name: str) -> str:
    """A wheel or requirement file of this machine, as it is seen inside."""
    if not os.path.isfile(name):
        return name
    target = bench.tools / Path(name).name
    if Path(name) != target:
        shutil.copy(name, target)
    return f"{TOOLS}/{target.name}"


def _options(step: PipInstall) -> tuple[list[str], tuple[tuple[Path, str], ...]]:
    words: list[str] = []
    binds: list[tuple[Path, str]] = []
    for name, value in pip_install.checked_options(step):
        if name == "find-links" and os.path.isdir(value):
            place = f"/run/potluck-links{len(binds)}"
            binds.append((Path(value).resolve(), place))
            value = place
        words += [f"--{name}"] + ([value] if value else [])
    return words, tuple(binds)
