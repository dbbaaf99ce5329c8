"""A build step in the making: commands that run one after the other, and the layer they leave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from potluck_images.changes import Skip, changed_tree
from potluck_images.errors import ImageBuildError
from potluck_images.process import Ended, Say
from potluck_images.secrecy import check_result
from potluck_images.tree import HostFile, Tree
from potluck_images.workshop import StepCommand, Workshop

# Where the tools of a step are mounted: in RAM that goes with the step.
TOOLS = "/run/potluck-build"

# 1980-01-01, as all files of an image: tools that write down dates then write this one.
_ENV = {
    "SOURCE_DATE_EPOCH": "315532800",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
    "APT_CONFIG": f"{TOOLS}/apt.conf",
    "DEBIAN_FRONTEND": "noninteractive",
}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# apt's download user does not exist in a sandbox with one user. Nobody needs the packages' files to survive a crash.
_APT_CONF = 'APT::Sandbox::User "root";\nDpkg::Options:: "--force-unsafe-io";\nDpkg::Use-Pty "0";\n'

# A program that was not found: of the shell, of bwrap.
_NO_SUCH_PROGRAM = 127

# Each group is compiled by a fresh process, the same on every machine: see `bytecode`.
_COMPILE = """
import json, multiprocessing, py_compile, sys

def compile_group(paths):
    for path in paths:
        try:
            py_compile.compile(path, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        except Exception:
            pass

paths = json.load(open(sys.argv[1]))
groups = [paths[start:start + 64] for start in range(0, len(paths), 64)]
with multiprocessing.get_context("fork").Pool(maxtasksperchild=1) as pool:
    pool.map(compile_group, groups, chunksize=1)
"""


@dataclass(frozen=True)
class Grant:
    """What a step's own commands get besides the image: variables that nobody may see, and GPUs that it asks for."""

    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    gpu: tuple[str, ...] = ()


class Bench:
    """`root` is the tree below, `work` an empty folder that lasts until the layer is packed. `image` is the id of what
    is below, for whoever wants to look at it when a command failed."""

    def __init__(
        self, workshop: Workshop, root: Path, work: Path, env: Mapping[str, str], workdir: str, image: str = "",
        grant: Grant = Grant(),
    ) -> None:  # fmt: skip
        self._workshop, self._root, self._env, self._workdir = workshop, root, env, workdir
        self._image, self._grant = image, grant
        self._upper, self._scratch, self.tools = work / "upper", work / "scratch", work / "tools"
        for folder in (self._upper, self._scratch, self.tools):
            folder.mkdir(mode=0o755)
        self.write("apt.conf", _APT_CONF.encode())

    @property
    def secrets(self) -> Mapping[str, str]:
        return self._grant.secrets

    def write(self, name: str, data: bytes) -> str:
        """A file for the commands to read; its path inside."""
        (self.tools / name).write_bytes(data)
        (self.tools / name).chmod(0o644)
        return f"{TOOLS}/{name}"

    def lend(self, source: Path, name: str = "") -> str:
        """A copy of a file, as commands can read or run it; its path inside."""
        target = self.tools / (name or source.name)
        target.parent.mkdir(mode=0o755, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755)
        return f"{TOOLS}/{target.relative_to(self.tools)}"

    def command(
        self, argv: tuple[str, ...], *, network: bool, env: Mapping[str, str] | None = None, timeout_s: float = 0
    ) -> StepCommand:
        """What is to be run."""
        base = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
        return StepCommand(
            root=self._root,
            upper=self._upper,
            scratch=self._scratch,
            argv=argv,
            env=base | dict(self._env) | _ENV | dict(env or {}),
            workdir=self._workdir,
            network=network,
            binds=((self.tools, TOOLS),),
            timeout_s=timeout_s,
        )

    def run(
        self,
        argv: tuple[str, ...],
        say: Say,
        what: str,
        *,
        network: bool = True,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 0,
    ) -> Ended:
        """Raises `ImageBuildError` with the last lines when it fails; `what` names it there.

        What has the network is the step's own, and gets what the step is granted.
        """
        command = self.command(argv, network=network, env=env, timeout_s=timeout_s)
        if network:
            command = replace(command, secrets=self._grant.secrets, gpu=self._grant.gpu)
        ended = self._workshop.run(command, say)
        if ended.status:
            raise _failed(what, ended, self._image)
        return ended

    def tree(self, told: Say, skip: Skip = lambda path: False) -> Tree:
        """All that changed so far. Raises `ImageBuildError` when a secret is in it."""
        changed = changed_tree(self._upper, self._root, told, skip)
        check_result(changed, self._grant.secrets)
        return changed

    def compile(self, python: str, say: Say, paths: Sequence[str] | None = None) -> None:
        """Byte code for every module among `paths`, or among what was written, in place of what its package manager
        made."""
        if paths is None:
            paths = [path for path, node in self.tree(lambda text: None).sorted() if isinstance(node, HostFile)]
        found = [f"/{path}" for path in paths if path.endswith(".py")]
        if found:
            listed = self.write("modules.json", json.dumps(found).encode())
            say(f"byte code for {len(found)} modules")
            argv = (python, "-I", "-c", _COMPILE, listed)
            self.run(argv, lambda line: say(line or "byte code"), "Compiling", network=False)


def _failed(what: str, ended: Ended, image: str) -> ImageBuildError:
    fix = f"For a shell in the state before this step: potluck shell {image}" if image else "See the lines above."
    if ended.status == _NO_SUCH_PROGRAM or any("execvp" in line for line in ended.lines):
        fix = "A program is missing in the image: install it in an earlier step, or choose another base or shell()."
    return ImageBuildError(f"{what} failed with status {ended.status}.", why="\n".join(ended.lines), fix=fix)
