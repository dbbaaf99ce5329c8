import hashlib
import os
import subprocess
import sys

import pytest


def trace_of(tmp_path, seed, hash_seed):
    """Digest of a trace that a process of its own wrote."""
    path = tmp_path / f"{seed}-{hash_seed}"
    command = [sys.executable, "-m", "potluck_netsim", "lab", "--seed", str(seed), "--trace", str(path)]
    # Many cancelled maps: what a core does at a cancel it does for many leases at once.
    options = ["--nodes", "12", "--minutes", "2", "--cancelled-milli", "600"]
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    subprocess.run([*command, *options], env=environment, check=True, timeout=60)
    data = path.read_bytes()
    assert data.count(b"\n") > 1000
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("seed", [4, 11])
def test_a_seed_gives_the_same_bytes_in_every_process(tmp_path, seed):
    assert len({trace_of(tmp_path, seed, hash_seed) for hash_seed in (1, 2)}) == 1


def test_another_seed_gives_another_history(tmp_path):
    assert trace_of(tmp_path, 4, 1) != trace_of(tmp_path, 5, 1)
