"""What nodes of one machine tell each other of the GPUs that they use."""

import fcntl
import os

import pytest

from potluck_node import gpu_claims
from potluck_node.gpu_claims import UNUSED_S, Believed, Claim, GpuClaims, claims_in, common_folder

S = 1_000_000


async def test_each_hears_what_the_others_use_until_they_are_gone(tmp_path):
    folder = tmp_path / gpu_claims.NAME
    ann, bob = GpuClaims(folder), GpuClaims(folder)
    for node in (ann, bob):
        await node.open()
        await node.open()
    ann.tell(["GPU-1"], 7)
    ann.tell(["GPU-1", "GPU-2"], 9)
    heard = bob.others()
    assert {uuid: [(each.pid, each.user, each.since_us) for each in claims] for uuid, claims in heard.items()} == {
        "GPU-1": [(os.getpid(), os.getuid(), 7)],
        "GPU-2": [(os.getpid(), os.getuid(), 9)],
    }
    assert ann.others() == {}
    bob.tell(["GPU-1"], 8)
    assert not bob.is_ours("GPU-1", heard["GPU-1"][0])
    assert ann.is_ours("GPU-1", ann.others()["GPU-1"][0])
    ann.tell([], 10)
    assert bob.others() == {}
    ann.tell(["GPU-1"], 11)
    assert bob.others()["GPU-1"][0].since_us == 11
    ann.close()
    assert bob.others() == {}
    bob.close()
    assert list(folder.iterdir()) == []


def write(path, text):
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    os.write(file, text)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


@pytest.mark.parametrize("text", [b"", b"x GPU-1=5", b"\xff", b"1", b"99999999 GPU-1=5", b"9" * 9999])
def test_nonsense_claims_nothing(tmp_path, text):
    file = write(tmp_path / "1-a", text)
    assert claims_in(tmp_path) == {}
    os.close(file)


def test_who_names_a_process_of_another_user_claims_nothing(tmp_path):
    proc = tmp_path / "proc"
    (proc / "5").mkdir(parents=True)
    folder = tmp_path / "claims"
    folder.mkdir()
    file = write(folder / "1-a", b"5 GPU-1=1 GPU-2=2")
    assert sorted(claims_in(folder, proc=proc)) == ["GPU-1", "GPU-2"]
    if os.getuid() == 0:
        os.chown(proc / "5", 1234, 1234)
        assert claims_in(folder, proc=proc) == {}
    # One that nobody holds is of a node that died.
    os.close(file)
    assert claims_in(folder, proc=proc) == {}


def test_a_stranger_cannot_keep_a_gpu_idle_for_ever():
    believed, own, strange = Believed(1000), Claim("a", 5, 1000, 1), Claim("b", 6, 1001, 1)
    root = Claim("c", 7, 0, 1)
    claims = {"GPU-1": [own, strange, root]}

    def at(second, *used):
        return believed.of(claims, {"GPU-1": used}, second * S)["GPU-1"]

    end = round(UNUSED_S)
    assert at(1) == [own, strange, root]
    assert at(end - 1) == [own, strange, root]
    assert at(end + 2) == [own, root]
    assert at(end + 3, 6) == [own, strange, root]
    assert at(2 * end) == [own, strange, root]
    assert at(3 * end) == [own, root]


def test_the_folder_is_where_all_users_may_write(tmp_path):
    assert common_folder(tmp_path) is None
    for place in reversed(gpu_claims.PLACES):
        (tmp_path / place).mkdir(parents=True)
        assert common_folder(tmp_path) != tmp_path / place / gpu_claims.NAME
        (tmp_path / place).chmod(0o1777)
        assert common_folder(tmp_path) == tmp_path / place / gpu_claims.NAME


async def test_without_a_folder_nobody_is_heard_and_that_is_said(tmp_path, caplog):
    nowhere, blocked, link = GpuClaims(None), GpuClaims(tmp_path / "file" / "x"), GpuClaims(tmp_path / "link")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for claims in (nowhere, blocked, link):
        await claims.open()
        claims.tell(["GPU-1"], 1)
        assert claims.others() == {}
        assert claims.broken
        claims.close()
    assert caplog.text.count("are not told") == 2
