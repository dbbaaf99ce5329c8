"""Python packages, installed by uv into a layer at /opt/site. Wheels only: no package's code runs on this machine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from potluck_images import process
from potluck_images.bytecode import compile_tree
from potluck_images.definition import PipInstall
from potluck_images.digest import digest
from potluck_images.errors import ImageBuildError
from potluck_images.interpreter import Interpreter
from potluck_images.local_python import PREFIX, SITE, is_byte_code
from potluck_images.process import Say
from potluck_images.secrecy import Mask
from potluck_images.tree import Tree

# torch with CUDA is 3 GB; on a slow line that takes half an hour.
UV_TIMEOUT_S = 3600

# Options of `uv pip install` that choose packages. All else could run foreign code here or write somewhere else.
_OPTIONS = {
    "default-index",
    "exclude-newer",
    "extra-index-url",
    "find-links",
    "index",
    "index-strategy",
    "index-url",
    "no-deps",
    "no-index",
    "pre",
    "prerelease",
    "require-hashes",
    "resolution",
    "upgrade",
}

# What a locked project is described by.
PROJECT_FILES = ("pyproject.toml", "uv.lock")

# uv's lock and notes, and where a local wheel lay on this machine: nothing of the package, and never the same twice.
LEFT_BY_UV = {".lock", "uv_cache.json", "direct_url.json"}


def site_tree(
    python: Interpreter, step: PipInstall, site: Path, work: Path, say: Say, secrets: Mapping[str, str]
) -> Tree:
    """Install into `site`, which may hold packages already, and return the layer with byte code.

    `say` receives lines for the user, at least twice a second; what it raises ends uv and the build.
    Raises `ImageBuildError` with uv's last lines.
    """
    command = _command(python, step, site, requirement_files(step, work, say, secrets))
    # uv's cache may keep what an index answered to a password.
    cache = ["--no-cache"] if secrets else []
    _run([*command[:3], *cache, *command[3:]], site, say, dict(step.env), secrets)
    _point_scripts_into_image(site / "bin", python)
    tree = Tree()
    tree.put_folder(SITE, site, lambda entry: is_byte_code(entry) or entry.name in LEFT_BY_UV)
    compile_tree(tree, python, work, lambda done, total: say(f"byte code {done}/{total}"))
    return tree


def find_uv() -> str:
    """uv's path. Raises `ImageBuildError` when it is not installed."""
    beside = Path(sys.executable).with_name("uv")
    if beside.exists():
        return str(beside)
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        pass
    if found := shutil.which("uv"):
        return found
    raise ImageBuildError("uv, which installs packages, is missing.", fix="pip install 'potluck[node]'")


def _command(python: Interpreter, step: PipInstall, site: Path, requirements: list[str]) -> list[str]:
    command = [find_uv(), "pip", "install", "--python", python.executable, "--target", str(site)]
    command += ["--only-binary", ":all:", "--link-mode", "copy", "--color", "never", "--no-progress"]
    for name, value in checked_options(step):
        command += [f"--{name}"] + ([value] if value else [])
    for file in requirements:
        command += ["--requirement", file]
    for package in step.packages:
        if package.startswith("-"):
            raise ImageBuildError(f"{package!r} is not a package.", fix="Give options by their own parameters.")
    return [*command, "--", *step.packages] if step.packages else command


def checked_options(step: PipInstall) -> list[tuple[str, str]]:
    """Names without dashes. Raises `ImageBuildError` for an option that is not passed on."""
    options = [(name.removeprefix("--"), value) for name, value in step.options]
    for name, _ in options:
        if name not in _OPTIONS:
            raise ImageBuildError(
                f"pip_install has no option {name!r}.", fix=f"Use one of: {', '.join(sorted(_OPTIONS))}"
            )
    return options


def requirement_files(step: PipInstall, work: Path, say: Say, secrets: Mapping[str, str]) -> list[str]:
    """The step's files, and the locked versions of its project as one more, written into `work`."""
    files = list(step.requirements)
    if step.project:
        files.append(str(_export(step, work, say, secrets)))
    if step.locked:
        (work / "requirements.txt").write_text(step.locked)
        files.append(str(work / "requirements.txt"))
    return files


def _export(step: PipInstall, work: Path, say: Say, secrets: Mapping[str, str]) -> Path:
    """uv reads the lock; nothing of the project itself runs or is built."""
    project, target = work / "project", work / "locked.txt"
    project.mkdir()
    for name in PROJECT_FILES:
        if not (Path(step.project) / name).is_file():
            raise ImageBuildError(f"{step.project} has no {name}.", fix="Run `uv lock` in the project's folder.")
        shutil.copy(Path(step.project) / name, project / name)
    command = [find_uv(), "export", "--quiet", "--frozen", "--no-emit-workspace", "--no-header", "--no-annotate"]
    command += ["--emit-index-url", "--emit-find-links"]
    for name, value in step.project_options:
        command += [f"--{name}"] + ([value] if value else [])
    _run([*command, "--output-file", str(target)], project, say, dict(step.env), secrets)
    return target


def _run(command: list[str], folder: Path, say: Say, env: dict[str, str], secrets: Mapping[str, str]) -> None:
    """In `folder`, where no project's own uv settings lie."""
    ended = process.run(
        command, lambda line: say(line or "resolving packages"), UV_TIMEOUT_S, cwd=folder,
        env=os.environ | env | dict(secrets), mask=Mask(secrets.values()),
    )  # fmt: skip
    if ended.status:
        raise ImageBuildError(
            "uv could not install the packages.",
            why="\n".join(ended.lines),
            fix="Check names and versions; packages without a wheel for this Python cannot be installed.",
        )


def _point_scripts_into_image(folder: Path, python: Interpreter) -> None:
    """uv's scripts name the interpreter on this machine."""
    here, there = python.executable.encode(), f"/{PREFIX}/bin/{python.name}".encode()
    for script in folder.iterdir() if folder.is_dir() else ():
        data = script.read_bytes()
        if data.startswith(b"#!") and here in data:
            script.write_bytes(data.replace(here, there))


def inputs(step: PipInstall) -> list[object]:
    """What the result depends on: the step, and the content of files on this machine that it names.

    Raises `ImageBuildError` when a requirement file cannot be read.
    """
    named = [name for name in step.packages if os.path.isfile(name)] + list(step.requirements)
    named += [str(Path(step.project) / name) for name in PROJECT_FILES] if step.project else []
    try:
        return [msgspec.msgpack.encode(step), [digest(Path(name).read_bytes()) for name in named]]
    except OSError as error:
        raise ImageBuildError("A file that names packages cannot be read.", why=str(error)) from None
