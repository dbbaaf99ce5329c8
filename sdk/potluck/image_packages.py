"""The steps of `Image` that install packages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from potluck import image_checks as checks
from potluck.secret import Secret

if TYPE_CHECKING:
    from typing import Self

Env = Mapping[str, str | None] | None
Secrets = Iterable[Secret] | None
Gpu = str | list[str] | None


class PackageSteps:
    """A part of `Image`, which says what the parameters that all steps take mean."""

    def _build(self, name: Any, *arguments: Any) -> Self:
        raise NotImplementedError

    def pip_install(
        self,
        *packages: str | list[str],
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Env = None,
        secrets: Secrets = None,
        gpu: Gpu = None,
    ) -> Self:
        """Add Python packages, installed with uv. On `local_python` alone they must have wheels."""
        names = checks.package_names("pip_install", packages)
        options = checks.pip_options(find_links, index_url, extra_index_url, pre, extra_options)
        if not names:
            return self
        variables, granted = checks.variables("pip_install", env), checks.granted("pip_install", secrets, gpu)
        return self._build(
            "PipInstall", tuple(sorted(names)), options, (), "", (), variables, force_build, "", *granted
        )

    def uv_pip_install(
        self,
        *packages: str | list[str],
        requirements: list[str] | None = None,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        uv_version: str | None = None,
        env: Env = None,
        secrets: Secrets = None,
        gpu: Gpu = None,
    ) -> Self:
        """As `pip_install`; `requirements` are files, with hashes if they have any. uv is the node's own."""
        checks.unsupported("uv_pip_install", uv_version=uv_version)
        names = tuple(sorted(checks.package_names("uv_pip_install", packages)))
        options = checks.pip_options(find_links, index_url, extra_index_url, pre, extra_options)
        files = tuple(os.path.abspath(name) for name in requirements or ())
        variables, granted = checks.variables("uv_pip_install", env), checks.granted("uv_pip_install", secrets, gpu)
        return self._build("PipInstall", names, options, files, "", (), variables, force_build, "", *granted)

    def pip_install_from_requirements(
        self,
        requirements_txt: str,
        find_links: str | None = None,
        *,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Env = None,
        secrets: Secrets = None,
        gpu: Gpu = None,
    ) -> Self:
        """The packages of a requirements file; hashes in it are checked."""
        return self.uv_pip_install(
            requirements=[requirements_txt], find_links=find_links, index_url=index_url,
            extra_index_url=extra_index_url, pre=pre, extra_options=extra_options, force_build=force_build, env=env,
            secrets=secrets, gpu=gpu,
        )  # fmt: skip

    def pip_install_from_pyproject(
        self,
        pyproject_toml: str,
        optional_dependencies: Sequence[str] = (),
        *,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Env = None,
        secrets: Secrets = None,
        gpu: Gpu = None,
    ) -> Self:
        """The dependencies of a project, and those of the extras named, but not the project itself."""
        granted = checks.granted("pip_install_from_pyproject", secrets, gpu)
        options = checks.pip_options(find_links, index_url, extra_index_url, pre, extra_options)
        rest = (options, (), "", (), checks.variables("pip_install_from_pyproject", env), force_build, "", *granted)
        return self._build(_pyproject, os.path.abspath(pyproject_toml), tuple(optional_dependencies), rest)

    def uv_sync(
        self,
        uv_project_dir: str = "./",
        *,
        force_build: bool = False,
        groups: list[str] | None = None,
        extras: list[str] | None = None,
        frozen: bool = True,
        extra_options: str = "",
        uv_version: str | None = None,
        env: Env = None,
        secrets: Secrets = None,
        gpu: Gpu = None,
    ) -> Self:
        """The packages that a project's uv.lock names, with their hashes, but not the project itself."""
        unlocked = None if frozen else "frozen=False"
        checks.unsupported("uv_sync", uv_version=uv_version, frozen=unlocked)
        chosen = [("group", name) for name in groups or ()] + [("extra", name) for name in extras or ()]
        chosen += checks.words_as_options("uv_sync", extra_options)
        folder, variables = os.path.abspath(uv_project_dir), checks.variables("uv_sync", env)
        granted = checks.granted("uv_sync", secrets, gpu)
        return self._build("PipInstall", (), (), (), folder, tuple(chosen), variables, force_build, "", *granted)

    def poetry_install_from_file(
        self,
        poetry_pyproject_toml: str,
        poetry_lockfile: str | None = None,
        *,
        ignore_lockfile: bool = False,
        force_build: bool = False,
        with_: Sequence[str] = (),
        without: Sequence[str] = (),
        only: Sequence[str] = (),
        poetry_version: str | None = None,
        old_installer: bool = False,
        env: Env = None,
        secrets: Secrets = None,
        gpu: Gpu = None,
    ) -> Self:
        """The packages that a project's poetry.lock (of Poetry 2) names, but not the project itself. They are installed
        with uv."""
        checks.unsupported(
            "poetry_install_from_file", poetry_version=poetry_version, ignore_lockfile=ignore_lockfile or None,
            old_installer=old_installer or None,
        )  # fmt: skip
        project = os.path.abspath(poetry_pyproject_toml)
        lock = os.path.abspath(poetry_lockfile or os.path.join(os.path.dirname(project), "poetry.lock"))
        groups = (tuple(with_), tuple(without), tuple(only))
        variables = checks.variables("poetry_install_from_file", env)
        granted = checks.granted("poetry_install_from_file", secrets, gpu)
        return self._build(_poetry, project, lock, groups, (variables, force_build), granted)

    def apt_install(
        self,
        *packages: str | list[str],
        force_build: bool = False,
        env: Env = None,
        secrets: Secrets = None,
        gpu: Gpu = None,
    ) -> Self:
        """Add Debian packages and what they depend on, without what they recommend."""
        granted = checks.granted("apt_install", secrets, gpu)
        names = tuple(sorted(checks.package_names("apt_install", packages)))
        if not names:
            return self
        return self._build("AptInstall", names, checks.variables("apt_install", env), force_build, *granted)


# What is read when the image is about to be built.


def _pyproject(path: str, extras: tuple[str, ...], rest: tuple[Any, ...]) -> list[tuple[str, tuple[Any, ...]]]:
    from potluck import image_locks

    return [("PipInstall", (image_locks.pyproject(path, extras), *rest))]


def _poetry(
    project: str, lock: str, groups: tuple[tuple[str, ...], ...], rest: tuple[Any, ...], granted: tuple[Any, ...]
) -> list[tuple[str, tuple[Any, ...]]]:
    from potluck import image_locks

    locked = image_locks.poetry(project, lock, *groups)
    return [("PipInstall", ((), (("no-deps", ""),), (), "", (), *rest, locked, *granted))]
