"""The image store against tar with zstd, borg, casync and ostree, on an installed stack. Prints JSON.

    python benchmarks/image_tools.py [--packages numpy scipy pandas==2.2.2] [--upgrade pandas==2.2.3] [--rounds 3]
                                     [--find-links WHEELS]

With `--packages torch==2.13.0 numpy==2.3.4 transformers==4.57.1 --upgrade transformers==4.57.3`, and the CPU wheel of
torch in WHEELS, the stack has 894 MB in 18,777 files.

Each round stores the stack, restores it, and stores the stack with one package upgraded; every contender once, one
after the other, so that all see the same machine. Figures are medians. Ingest and restore count the raw bytes of the
files (1 MB = 1,000,000 bytes) and the start of the program; "upgrade_mb" is what its store grew by for the second
version, which is what a peer that has the first one would have to fetch; "cpu_s" is processor time, which other
programs on the machine disturb less. Each is used as its manual says, with zstd where it has it; what is not installed
is left out. Peak memory is that of the largest process. Nothing is removed before the end (some 20 GB for three rounds
of torch): ext4 avoids the inodes of files that were deleted a moment ago, which slows whoever comes next.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from potluck_images.config import ImageConfig
from potluck_images.disk import DiskStore
from potluck_images.image import put_config
from potluck_images.materialise import materialise
from potluck_images.pack import pack
from potluck_images.pip_install import find_uv
from potluck_images.tree import Tree

PACKAGES = ("numpy", "scipy", "pandas==2.2.2")
UPGRADE = "pandas==2.2.3"

_OURS = f"{sys.executable} {Path(__file__).resolve()}"


class Tool(NamedTuple):
    """Shell commands in a fresh folder; {site} is what to store, {name} its version, `store` where the bytes lie."""

    program: str
    prepare: str
    ingest: str
    restore: str
    store: str


TOOLS = {
    "potluck": Tool(
        sys.executable, "true", f"{_OURS} --ingest {{site}} {{name}}", f"{_OURS} --restore a", "store/packs"
    ),
    "tar_zstd": Tool(
        "zstd", "mkdir store", "tar -C {site} -cf - . | zstd -q -3 -T0 -o store/{name}",
        "mkdir out; zstd -q -d -c store/a | tar -C out -xf -", "store",
    ),
    "borg": Tool(
        "borg", "borg init -e none store",
        "cd {site} && borg create --compression zstd,3 $OLDPWD/store::{name} .",
        "mkdir out; cd out; borg extract ../store::a", "store",
    ),
    "casync": Tool(
        "casync", "mkdir store", "casync make --store=store {name}.caidx {site} > /dev/null",
        "casync extract --store=store a.caidx out", "store",
    ),
    "ostree": Tool(
        "ostree", "ostree init --repo=store --mode=archive",
        "ostree commit --repo=store --branch={name} --tree=dir={site} > /dev/null",
        "ostree checkout --repo=store -U --disable-cache a out", "store",
    ),
}  # fmt: skip


class Took(NamedTuple):
    """Seconds of wall time and of processor time, and the largest process' memory in MB."""

    seconds: float
    cpu_seconds: float
    memory_mb: float


def run(command: str, folder: Path) -> Took:
    """In a shell of its own, so that its memory is its own."""
    env = os.environ | {"BORG_BASE_DIR": str(folder), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
    start = time.perf_counter()
    process = subprocess.Popen(["bash", "-c", f"set -eo pipefail; {command}"], cwd=folder, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"this failed: {command}")
    return Took(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


def bytes_in(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def one_round(tool: Tool, old: Path, new: Path, work: Path) -> dict[str, float]:
    work.mkdir()
    size, store = bytes_in(old) / 1e6, work / tool.store
    run(tool.prepare, work)
    ingest = run(tool.ingest.format(site=old, name="a"), work)
    stored = bytes_in(store) / 1e6
    restore = run(tool.restore, work)
    before = bytes_in(store) / 1e6
    upgrade = run(tool.ingest.format(site=new, name="b"), work)
    grown = bytes_in(store) / 1e6 - before
    return {
        "ingest_mb_per_s": size / ingest.seconds,
        "restore_mb_per_s": size / restore.seconds,
        "ingest_cpu_s": ingest.cpu_seconds,
        "restore_cpu_s": restore.cpu_seconds,
        "upgrade_s": upgrade.seconds,
        "upgrade_mb": grown,
        "ratio": stored / size,
        "peak_memory_mb": max(ingest.memory_mb, restore.memory_mb, upgrade.memory_mb),
    }


def measure(old: Path, new: Path, rounds: int, only: list[str]) -> dict[str, dict[str, float]]:
    present = {name: tool for name, tool in TOOLS.items() if shutil.which(tool.program) and (not only or name in only)}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in present}
    with tempfile.TemporaryDirectory(prefix="potluck-bench-") as folder:
        for number in range(rounds):
            for name, tool in present.items():
                runs[name].append(one_round(tool, old, new, Path(folder, f"{name}-{number}")))
    return {
        name: {key: round(statistics.median(each[key] for each in those), 3) for key in those[0]}
        for name, those in runs.items()
    }


def install(folder: Path, packages: list[str], find_links: str | None) -> Path:
    """The packages, installed once for each list of them."""
    site = folder / "-".join(packages).replace("==", "-").replace("/", "-")
    done = site.with_name(f"{site.name}.done")
    if not done.exists():
        command = [find_uv(), "pip", "install", "-q", "--python", sys.executable, "--target", str(site)]
        command += ["--find-links", find_links] if find_links else []
        subprocess.run([*command, "--link-mode", "copy", "--only-binary", ":all:", *packages], check=True)
        # Two installations differ in their times alone, which some of the others store between the bytes of files.
        for path in site.rglob("*"):
            os.utime(path, (0, 0), follow_symlinks=False)
        done.touch()
    return site


def upgraded(packages: list[str], upgrade: str) -> list[str]:
    name = upgrade.partition("=")[0]
    return [upgrade if package.partition("=")[0] == name else package for package in packages]


def ingest(site: str, name: str) -> None:
    """Our side of a round, in the current folder."""
    store, tree = DiskStore("store"), Tree()
    tree.put_folder("", Path(site))
    Path(f"{name}.image").write_text(put_config(store, ImageConfig((pack(tree, store),))))
    store.close()


def restore(name: str) -> None:
    store = DiskStore("store")
    materialise(store, Path(f"{name}.image").read_text(), Path("home")).release()
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", nargs="+", default=PACKAGES)
    parser.add_argument("--upgrade", default=UPGRADE)
    parser.add_argument("--find-links", help="a folder with wheels")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "potluck-bench-tools"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], choices=TOOLS, help="these contenders")
    parser.add_argument("--ingest", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--restore", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ingest:
        ingest(*options.ingest)
    elif options.restore:
        restore(options.restore)
    else:
        packages = list(options.packages)
        old, new = (
            install(options.folder, each, options.find_links)
            for each in (packages, upgraded(packages, options.upgrade))
        )
        head = {"packages": packages, "upgrade": options.upgrade, "cores": os.cpu_count(), "rounds": options.rounds}
        head |= {"megabytes": round(bytes_in(old) / 1e6, 1), "files": sum(path.is_file() for path in old.rglob("*"))}
        print(json.dumps(head | {"tools": measure(old, new, options.rounds, options.only)}, indent=2))


if __name__ == "__main__":
    main()
