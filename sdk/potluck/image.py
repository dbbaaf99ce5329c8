"""`Image`: the environment that a function runs in, described next to it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from potluck.errors import InvalidError

if TYPE_CHECKING:
    from pathlib import Path

    from potluck_images.definition import ImageDefinition


class Image:
    """An immutable description; each method returns a new one with a step more. Built only when it is needed."""

    # Steps are kept as (name of the class in potluck_images.definition, its arguments): describing an image must cost
    # a program's start nothing, and those classes need msgspec.
    def __init__(self, steps: tuple[tuple[str, tuple[Any, ...]], ...]) -> None:
        self._steps = steps

    @classmethod
    def local_python(cls, executable: str | Path | None = None) -> Image:
        """The interpreter of this program (or `executable`, which must have the same "major.minor" version) with its
        standard library and shared libraries, and nothing else. The default."""
        version = "" if executable else "{}.{}.{}".format(*sys.version_info[:3])
        return cls((("LocalPython", (str(executable or sys.executable), version)),))

    def pip_install(
        self,
        *packages: str | list[str],
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
    ) -> Image:
        """Add Python packages, installed with uv. Raises `InvalidError` for a package that is not a string."""
        flat: list[Any] = []
        for package in packages:
            flat.extend(package if isinstance(package, list) else [package])
        for name in flat:
            if not isinstance(name, str) or not name.strip() or name.startswith("-"):
                raise InvalidError(
                    f"pip_install() cannot install {name!r}.",
                    fix='Give names like "numpy" or "numpy==2.1"; options by keyword.',
                )
        if not flat:
            return self
        options = {
            "find-links": find_links,
            "index-url": index_url,
            "extra-index-url": extra_index_url,
            "pre": "true" if pre else None,
            "extra-options": extra_options or None,
        }
        kept = tuple((name, value) for name, value in options.items() if value)
        return self._with("PipInstall", tuple(sorted(flat)), kept)

    def env(self, variables: dict[str, str]) -> Image:
        """Set environment variables."""
        for name, value in variables.items():
            if not _is_variable(name, value):
                raise InvalidError(f"env() cannot set {name!r} to {value!r}.", fix="Names and values are strings.")
        return self._with("Environment", tuple(sorted(variables.items())))

    def workdir(self, path: str) -> Image:
        """The folder in which functions run; absolute."""
        if not path.startswith("/"):
            raise InvalidError(f"workdir({path!r}) is not an absolute path.")
        return self._with("Workdir", path)

    def _with(self, name: str, *arguments: Any) -> Image:
        return Image((*self._steps, (name, arguments)))

    def _definition(self, files: tuple[tuple[str, str], ...] = ()) -> ImageDefinition:
        """All steps, and a function's own source as the last one."""
        from potluck_images import definition

        steps = [getattr(definition, name)(*arguments) for name, arguments in self._steps]
        if files:
            steps.append(definition.Source(files))
        return definition.ImageDefinition(tuple(steps))

    def __repr__(self) -> str:
        return f"Image({', '.join(name for name, _ in self._steps)})"


def _is_variable(name: object, value: object) -> bool:
    if not isinstance(name, str) or not isinstance(value, str):
        return False
    return bool(name) and "=" not in name and "\0" not in name + value
