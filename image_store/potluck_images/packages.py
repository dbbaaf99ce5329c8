"""Packages installed inside the image that is being built: Debian's with apt, Python's with uv.

Unlike `pip_install`, this may build packages from source: whatever runs, runs in the step's sandbox.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from potluck_images import pip_install
from potluck_images.bench import TOOLS, Bench
from potluck_images.definition import AptInstall, PipInstall
from potluck_images.errors import ImageBuildError
from potluck_images.local_python import SITE
from potluck_images.process import Say

# Where uv looks for packages, when the machine says so.
_PASSED_ON = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_HTTP_TIMEOUT")

# uv lists its own notes among a package's files, with digests that never repeat.
_TIDY = """
import pathlib, sys
for record in pathlib.Path(sys.argv[1]).glob("*.dist-info/RECORD"):
    lines = record.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.split(",")[0].rpartition("/")[2] not in sys.argv[2:]]
    if kept != lines:
        record.write_text("".join(kept))
"""


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
    argv = [bench.lend(Path(pip_install.find_uv())), "pip", "install", "--python", python, "--target", f"/{SITE}"]
    argv += ["--link-mode", "copy", "--cache-dir", "/tmp/uv", "--color", "never", "--no-progress", "--no-config"]
    argv += _options(bench, step)
    for name in pip_install.requirement_files(step, bench.tools, say, bench.secrets):
        argv += ["--requirement", _shown(bench, name)]
    if step.packages:
        argv += ["--", *(_shown(bench, package) for package in step.packages)]
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | dict(step.env)
    bench.run(tuple(argv), lambda line: say(line or "resolving packages"), "pip_install", env=env)
    tidy = (python, "-I", "-c", _TIDY, f"/{SITE}", *sorted(pip_install.LEFT_BY_UV))
    bench.run(tidy, lambda line: None, "pip_install", network=False)


def left_by_uv(path: str) -> bool:
    """What is no part of a package."""
    return path.startswith(f"{SITE}/") and path.rpartition("/")[2] in pip_install.LEFT_BY_UV


def _shown(bench: Bench, name: str) -> str:
    """A wheel or requirement file of this machine, as it is seen inside."""
    if not os.path.isfile(name):
        return name
    path = Path(name)
    return bench.write(path.name, path.read_bytes()) if path.suffix == ".txt" else bench.lend(path)


def _options(bench: Bench, step: PipInstall) -> list[str]:
    words: list[str] = []
    for name, value in pip_install.checked_options(step):
        shown = _lend_links(bench, Path(value)) if name == "find-links" and os.path.isdir(value) else value
        words += [f"--{name}"] + ([shown] if shown else [])
    return words


def _lend_links(bench: Bench, folder: Path) -> str:
    """The packages of a local folder."""
    for path in folder.iterdir():
        if path.name.endswith((".whl", ".tar.gz", ".zip")):
            bench.lend(path, f"links/{path.name}")
    return f"{TOOLS}/links"
