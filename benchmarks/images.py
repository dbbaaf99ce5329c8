"""Packing and materialising an installed scientific stack, against tar and zstd in the same run. Prints JSON.

    python benchmarks/images.py [--folder /tmp/potluck-bench-stack] [--rounds 5]

The stack is installed once and kept in the folder. Each round runs every contender once, one after the other, so that
all see the same machine; figures are medians. "MB/s" counts the raw bytes of the files (1 MB = 1,000,000 bytes);
"cpu_seconds" is processor time, which other programs on the machine disturb less.
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
from collections.abc import Callable
from pathlib import Path

from potluck_images.config import ImageConfig
from potluck_images.disk import DiskStore
from potluck_images.image import put_config
from potluck_images.materialise import materialise
from potluck_images.pack import pack
from potluck_images.pip_install import find_uv
from potluck_images.tree import Tree

PACKAGES = ("numpy", "scipy", "scikit-learn", "pandas")


def install(folder: Path) -> Path:
    """The stack, installed once."""
    site = folder / "site"
    if not (folder / "installed").exists():
        command = [find_uv(), "pip", "install", "-q", "--python", sys.executable, "--target", str(site)]
        subprocess.run([*command, "--link-mode", "copy", "--only-binary", ":all:", *PACKAGES], check=True)
        (folder / "installed").touch()
    return site


def pack_into(store: DiskStore, site: Path) -> str:
    tree = Tree()
    tree.put_folder("", site)
    return put_config(store, ImageConfig((pack(tree, store),)))


Times = tuple[float, float]


def seconds(work: Callable[[], object]) -> Times:
    """Wall time and processor time, of this process and of those it runs."""
    start, used = time.perf_counter(), _cpu_seconds()
    work()
    return time.perf_counter() - start, _cpu_seconds() - used


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def shell(command: str) -> Callable[[], object]:
    return lambda: subprocess.run(command, shell=True, check=True)


def one_round(site: Path, work: Path) -> dict[str, Times]:
    store = DiskStore(work / "store")
    archive, out, home = work / "archive", work / "out", work / "home"
    out.mkdir()
    times = {
        "tar_zstd_pack": seconds(shell(f"tar -C {site} -cf - . | zstd -q -3 -T0 -o {archive}")),
        "tar_zstd_pack_synced": seconds(
            shell(f"tar -C {site} -cf - . | zstd -q -3 -T0 -o {archive}2; sync {archive}2")
        ),
        "pack": seconds(lambda: pack_into(store, site)),
        "pack_again": seconds(lambda: pack_into(store, site)),
        "tar_zstd_unpack": seconds(shell(f"zstd -q -d -c {archive} | tar -C {out} -xf -")),
    }
    image = pack_into(store, site)
    times["materialise_cold"] = seconds(lambda: materialise(store, image, home).release())
    for root in home.glob("*/roots/*"):
        shutil.rmtree(root)
    times["materialise_from_file_cache"] = seconds(lambda: materialise(store, image, home).release())
    times["materialise_again"] = seconds(lambda: materialise(store, image, home).release())
    store.close()
    return times


def measure(site: Path, rounds: int) -> dict[str, object]:
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    runs = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="potluck-bench-") as work:
            runs.append(one_round(site, Path(work)))
    medians = {name: statistics.median(run[name][0] for run in runs) for name in runs[0]}
    cpu = {name: statistics.median(run[name][1] for run in runs) for name in runs[0]}
    return {
        "packages": PACKAGES,
        "megabytes": round(size / 1e6, 1),
        "files": sum(path.is_file() for path in site.rglob("*")),
        "cores": os.cpu_count(),
        "rounds": rounds,
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "cpu_seconds": {name: round(value, 2) for name, value in cpu.items()},
        "mb_per_s": {name: round(size / 1e6 / value) for name, value in medians.items()},
        "ratio_to_tar_zstd": {
            "pack": round(medians["tar_zstd_pack"] / medians["pack"], 2),
            "pack_synced": round(medians["tar_zstd_pack_synced"] / medians["pack"], 2),
            "materialise_cold": round(medians["tar_zstd_unpack"] / medians["materialise_cold"], 2),
            "materialise_from_file_cache": round(
                medians["tar_zstd_unpack"] / medians["materialise_from_file_cache"], 2
            ),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "potluck-bench-stack"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(json.dumps(measure(install(options.folder), options.rounds), indent=2))


if __name__ == "__main__":
    main()
