"""A volume where a function runs: what of its folder is committed, brought up to date, and refused."""

import os
import shutil
import tempfile
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.meshnode.test_volumes import World, serving

from potluck import wire
from potluck.errors import Error, InvalidError, RefusedError, ResourceExceededError, StoreFullError
from potluck.wire import FunctionSpec
from potluck.wire import volumes as messages
from potluck.wire.common import VolumeMount
from potluck.wire.state import StateAsked, StateDropped, StateTold
from potluck_images.memory import MemoryStore
from potluck_images.pack import pack
from potluck_images.volume_scan import scan
from potluck_node.core.relay import Relay
from potluck_node.sandbox.unprivileged import UNPRIVILEGED_UID
from potluck_node.volumes import folder as folder_module
from potluck_node.volumes import mounts as mounts_module
from potluck_node.volumes.asks import NodeAsks
from potluck_node.volumes.mounts import Mounts

GIB = 1 << 30


class Node(World):
    """Owner and provider in one."""

    def __init__(self, folder, place, bytes_max=GIB):
        super().__init__(folder, place)
        self.mounts, self.said, self.broken = Mounts(folder, self.images, bytes_max), [], []

    async def answer(self, payload):
        return wire.encode(await self.ask(wire.decode(payload, messages.VolumeRequest), self.worker))

    @asynccontextmanager
    async def mounted(self, *volumes):
        function = FunctionSpec("app", "f", "image", "3.11", volumes=volumes)
        opened = self.mounts.open(function, self.key.peer, self.answer, self.broken.append, self.said.append)
        async with opened as mounted:
            yield mounted


@pytest.fixture
async def node(tmp_path):
    made = Node(tmp_path / "node", tmp_path / "state.sqlite")
    async with serving(made):
        yield made


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


async def test_only_what_changed_is_committed(node):
    volume = await node.make()
    await node.put(volume, {"a": b"1", "sub/b": b"2"})
    async with node.mounted(VolumeMount("/data", volume)) as mounted:
        ((folder, place, read_only),) = mounted.binds
        assert (place, read_only, names(folder)) == ("/data", False, ["a", "sub", "sub/b"])
        await mounted.commit("nothing")
        assert (await node.ask(messages.AskHead(volume))).version == 1
        (folder / "a").write_text("changed")
        (folder / "sub/b").unlink()
        (folder / "new").mkdir()
        await mounted.commit("once")
        assert await node.files(volume) == {"a": "changed"}
        # What another one committed meanwhile stays, and comes with a reload.
        await node.put(volume, {"other": b"3"})
        (folder / "a").write_text("again")
        assert await mounted.of(volume).reload() == 4
        assert names(folder) == ["a", "new", "other", "sub"]
        await mounted.commit("nothing")
        assert (await node.ask(messages.AskHead(volume))).version == 4
        assert await node.files(volume) == {"a": "again", "other": "3"}
    assert list((folder.parents[1]).iterdir()) == []


async def test_a_reload_is_no_change_of_ones_own(node):
    """It must not write over what others commit later."""
    volume = await node.make()
    async with node.mounted(VolumeMount("/data", volume)) as mounted:
        await node.put(volume, {"a": b"1"})
        await mounted.of(volume).reload()
        await node.put(volume, {"a": b"2"})
        await mounted.commit("nothing")
        assert await node.files(volume) == {"a": "2"}


async def test_what_stays_behind_is_told_once(node):
    volume = await node.make()
    async with node.mounted(VolumeMount("/data", volume)) as mounted:
        folder = mounted.binds[0][0]
        (folder / "secret").symlink_to("/etc/shadow")
        (folder / "ok").write_text("1")
        await mounted.commit("one")
        (folder / "ok").write_text("2")
        await mounted.commit("two")
        assert await node.files(volume) == {"ok": "2"}
        assert len(node.said) == 1
        assert "/data/secret" in node.said[0]


async def test_a_commit_that_fails_is_made_up_for(node):
    volume = await node.make()
    async with node.mounted(VolumeMount("/data", volume)) as mounted:
        (mounted.binds[0][0] / "a").write_text("1")
        answer = node.answer

        async def refuse(payload):
            raise RefusedError("no")

        node.answer = refuse
        mounted._mounts[0]._asker._ask = refuse
        with pytest.raises(RefusedError):
            await mounted.commit("fails")
        mounted._mounts[0]._asker._ask = answer
        await mounted.commit("works")
        assert await node.files(volume) == {"a": "1"}


async def test_no_volume_but_the_functions_own(node):
    mine, other = await node.make("mine"), await node.make("other")
    async with node.mounted(VolumeMount("/data", mine)) as mounted:
        with pytest.raises(InvalidError, match="not mounted here"):
            mounted.of(other)


async def test_read_only_and_parts(node):
    volume = await node.make()
    await node.put(volume, {"a": b"1", "sub/deep/b": b"2"})
    async with node.mounted(VolumeMount("/data", volume, read_only=True, sub_path="sub/deep")) as mounted:
        ((folder, _, read_only),) = mounted.binds
        assert (read_only, names(folder)) == (True, ["b"])
        with pytest.raises(InvalidError, match="only be read"):
            await mounted.of(volume).commit("no")
        assert await mounted.of(volume).reload() == 1
        shared = (folder / "b").stat()
        assert shared.st_nlink > 2  # here, in the tree that all workers share, and where that has it from
        await node.put(volume, {"a": b"2", "sub/deep/new": b"3"})
        assert await mounted.of(volume).reload() == 2
        assert names(folder) == ["b", "new"]
        await node.ask(messages.ChangeVolume(volume, (messages.RemovePath("sub/deep/new"),)))
        assert await mounted.of(volume).reload() == 3
        assert names(folder) == ["b"]
    async with node.mounted(VolumeMount("/data", volume, sub_path="sub/made")) as mounted:
        (mounted.binds[0][0] / "c").write_text("3")
        await mounted.commit("one")
    assert await node.files(volume) == {"a": "2", "sub/deep/b": "2", "sub/made/c": "3"}
    for sub_path, read_only in (("../..", False), ("a", False), ("../..", True), ("missing", True)):
        with pytest.raises((InvalidError, ExceptionGroup)):
            async with node.mounted(VolumeMount("/data", volume, read_only=read_only, sub_path=sub_path)):
                pass


async def test_one_that_takes_too_much_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(mounts_module, "LOOK_S", 0.01)
    node = Node(tmp_path / "node", tmp_path / "state.sqlite", bytes_max=1 << 20)
    async with serving(node):
        volume = await node.make()
        async with node.mounted(VolumeMount("/data", volume)) as mounted:
            (mounted.binds[0][0] / "large").write_bytes(bytes(2 << 20))
            with trio.fail_after(10):
                while not node.broken:
                    await trio.sleep(0.01)
    assert isinstance(node.broken[0], ResourceExceededError)
    assert "volume_gib" in node.broken[0].fix


async def test_a_disk_that_is_nearly_full_ends_the_function(node, monkeypatch):
    monkeypatch.setattr(folder_module, "DISK_FREE_BYTES_MIN", 1 << 60)
    volume = await node.make()
    async with node.mounted(VolumeMount("/data", volume)) as mounted:
        folder = mounted._mounts[0].folder
        assert "too little of the machine's disk" in folder_module.check_room(folder.top, folder.bytes_max)


def as_the_codes_user(action):
    """Run it as the user to whom a volume's files belong; returns how that ended. Root may look everywhere."""
    if not (child := os.fork()):
        if os.geteuid() == 0:
            os.setgid(UNPRIVILEGED_UID)
            os.setuid(UNPRIVILEGED_UID)
        try:
            os._exit(action())
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def theirs():
    """A folder that the code's user owns, where it can reach it."""
    place = Path(tempfile.mkdtemp(prefix="potluck-volume-"))
    if os.geteuid() == 0:
        os.chown(place, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def test_a_closed_folder_hides_nothing_and_goes(theirs):
    outside = theirs / "outside"

    def act():
        outside.mkdir()
        inside = theirs / "files/sub"
        inside.mkdir(parents=True)
        (inside / "large").write_bytes(bytes(1000))
        (theirs / "files/link").symlink_to(outside)
        outside.chmod(0o500)
        inside.chmod(0o300)
        if "closed folder" not in folder_module.check_room(theirs / "files", GIB):
            return 98
        folder_module.remove(theirs / "files")
        return int((theirs / "files").exists()) + 2 * int(outside.stat().st_mode & 0o777 != 0o500)

    assert as_the_codes_user(act) == 0


async def test_uploads_have_a_bound(node):
    node.volumes._uploads._bytes_max = 10
    with pytest.raises(StoreFullError):
        await node.put(await node.make(), {"a": bytes(11)})


def test_a_folder_that_turns_into_a_link_all_the_time_shows_nothing_of_the_machine(tmp_path):
    """A function races with the node that looks at what it wrote."""
    folder, staging, secrets = tmp_path / "files", tmp_path / "staging", tmp_path / "secrets"
    for path in (folder, staging, secrets, folder / "real"):
        path.mkdir()
    (secrets / "key").write_text("secret")
    (folder / "real/key").write_text("mine")
    (folder / "link").symlink_to(secrets)
    over = threading.Event()

    def swap():
        while not over.is_set():
            os.rename(folder / "real", folder / "held")
            os.rename(folder / "link", folder / "real")
            os.rename(folder / "real", folder / "link")
            os.rename(folder / "held", folder / "real")

    racing = threading.Thread(target=swap)
    racing.start()
    try:
        found = set()
        for _ in range(300):
            for left in staging.iterdir():
                left.unlink()
            seen = scan(folder, {}, staging)
            found |= {path.read_text() for path in staging.iterdir()}
            pack(seen.fresh, MemoryStore())
        assert found <= {"mine"}
        assert found
    finally:
        over.set()
        racing.join()


class Posted:
    def __init__(self, is_open=True):
        self.messages, self.is_open = [], is_open

    def __call__(self, lease, message):
        self.messages.append((lease, message))
        return self.is_open


async def test_what_a_node_asks_is_answered_or_dropped():
    relay, post = Relay(), Posted()
    asks = NodeAsks(relay, post)
    answers = []

    async def ask():
        answers.append(await asks.ask("pool", "w", ["lease"], b"question"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        ((lease, asked),) = post.messages
        assert (lease, asked) == ("lease", StateAsked(1, b"question"))
        origin = relay.told(("lease", 1))
        assert asks.told(origin, StateTold(1, b"answer"))
        assert not asks.told(origin._replace(number=9), StateTold(1, b"answer"))
    assert answers == [b"answer"]
    # Nobody waits any more.
    with trio.move_on_after(0.01):
        await asks.ask("pool", "w", ["lease"], b"question")
    assert post.messages[-1] == ("lease", StateDropped(2))
    with pytest.raises(RefusedError):
        await NodeAsks(relay, Posted(is_open=False)).ask("pool", "w", ["lease"], b"question")
    with pytest.raises(Error):
        await asks.ask("pool", "w", [], b"question")
