"""Chunk sync as a property: with any mix of peers it ends as it should, and asks no more than it must."""

from __future__ import annotations

import random
from collections import Counter, deque

from hypothesis import given, settings
from hypothesis import strategies as st

from potluck_images.chunk import pack
from potluck_images.digest import digest
from potluck_images.sync import (
    LACKS_FOR_US,
    RUN,
    SILENCE_US_MAX,
    TAKE_OVER_AFTER_US,
    WINDOW_MAX,
    WINDOW_START,
    Ask,
    ChunkSync,
    Done,
    Drop,
    Missing,
    PeerFailed,
    PeerJoined,
    Received,
    Store,
    Stuck,
    Tick,
    scattered,
)

CHUNKS = {pack(b"%d" % number).digest: pack(b"%d" % number) for number in range(400)}
NAMES = list(CHUNKS)


class World:
    """Peers that answer in a random order: honest, corrupt, dying after some answers, or silent."""

    def __init__(self, peers, wanted, seed):
        self.rng = random.Random(seed)
        self.peers = peers
        self.sync = ChunkSync()
        self.queues = {name: deque() for name in peers}
        self.answers = Counter()
        self.asked = Counter()
        self.stored = []
        self.dropped = set()
        self.ends = []
        self.now_us = 10**12
        self.apply(self.sync.want(wanted))
        self.ends.clear()

    def run(self):
        self.apply(self.sync.handle(Tick(self.now_us)))
        for name in self.peers:
            self.apply(self.sync.handle(PeerJoined(name)))
        for _ in range(20_000):
            if self.ends:
                return self.ends[-1]
            ready = [name for name, queue in self.queues.items() if queue and self.peers[name][0] != "silent"]
            if ready:
                self.answer(self.rng.choice(ready))
            else:
                self.now_us += 1_000_000
                self.apply(self.sync.handle(Tick(self.now_us)))
        raise AssertionError("it never ends")

    def answer(self, name):
        kind, has, limit = self.peers[name]
        self.answers[name] += 1
        wanted = self.queues[name].popleft()
        if kind == "dying" and self.answers[name] > limit:
            self.queues[name].clear()
            event = PeerFailed(name)
        elif wanted not in has:
            event = Missing(name, wanted)
        elif kind == "corrupt" and self.answers[name] > limit:
            event = Received(name, wanted, self.rng.choice([b"junk", pack(b"other").frame]))
        else:
            event = Received(name, wanted, CHUNKS[wanted].frame)
        self.apply(self.sync.handle(event))

    def apply(self, actions):
        for action in actions:
            match action:
                case Ask(peer, digests):
                    assert peer not in self.dropped
                    assert len(self.queues[peer]) + len(digests) <= WINDOW_MAX
                    self.queues[peer].extend(digests)
                    self.asked.update(digests)
                case Store(chunk):
                    self.stored.append(chunk.digest)
                case Drop(peer, why):
                    assert why
                    self.dropped.add(peer)
                    self.queues[peer].clear()
                case Done() | Stuck():
                    self.ends.append(action)


PEERS = st.lists(
    st.tuples(
        st.sampled_from(["honest", "honest", "corrupt", "dying", "silent"]),
        st.one_of(st.just(frozenset(NAMES)), st.frozensets(st.sampled_from(NAMES[:60]))),
        st.integers(0, 30),
    ),
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(PEERS, st.integers(0, 60), st.integers())
def test_ends_done_when_honest_peers_have_everything(kinds, count, seed):
    world = World({f"p{number}": peer for number, peer in enumerate(kinds)}, NAMES[:count], seed)
    if not kinds:
        return
    end = world.run() if count else Done()
    honest = set().union(*(has for kind, has, _ in kinds if kind == "honest"))
    assert len(world.stored) == len(set(world.stored))
    if isinstance(end, Stuck):
        assert set(end.missing) | set(world.stored) == set(NAMES[:count])
        assert not set(end.missing) & honest
    else:
        assert set(world.stored) == set(NAMES[:count]) or not count
    assert not any(kinds[int(name[1:])][0] in ("honest", "dying") for name in world.dropped)


def test_each_chunk_is_asked_once_and_the_load_is_spread():
    everything = frozenset(NAMES)
    world = World(dict.fromkeys("abc", ("honest", everything, 0)), NAMES, seed=1)
    assert world.run() == Done()
    assert set(world.asked.values()) == {1}
    assert min(world.answers.values()) > len(NAMES) / 6


def test_rare_chunks_come_first():
    sync = ChunkSync()
    sync.want(NAMES[:20])
    (ask,) = sync.handle(PeerJoined("poor"))
    sync.handle(Missing("poor", ask.digests[2]))
    (rich,) = [action for action in sync.handle(PeerJoined("rich")) if action.peer == "rich"]
    assert rich.digests[0] == ask.digests[2]


def test_a_peer_that_lacked_chunks_is_asked_again_after_a_while_as_long_as_another_sends():
    sync = ChunkSync()
    sync.want(NAMES[: 5 * WINDOW_START])
    sync.handle(Tick(0))
    (slow,) = sync.handle(PeerJoined("slow"))
    asks, lacked = deque(sync.handle(PeerJoined("poor"))), []
    while asks:
        for name in asks.popleft().digests:
            lacked.append(name)
            asks += sync.handle(Missing("poor", name))
    assert set(lacked) == set(NAMES[: 5 * WINDOW_START]) - set(slow.digests)
    assert sync.handle(Tick(LACKS_FOR_US // 2)) == []
    (again,) = sync.handle(Tick(LACKS_FOR_US + 1))
    assert again.peer == "poor"
    assert set(again.digests) <= set(lacked)


def test_peers_that_lack_everything_cost_little():
    """A look at each chunk for each peer, not for each answer: else an image of 80,000 chunks takes hours."""
    looks = 0

    class Counted(dict):
        def __contains__(self, key):
            nonlocal looks
            looks += 1
            return super().__contains__(key)

    sync, poor = ChunkSync(), [f"poor {number}" for number in range(8)]
    sync._rare = Counted()
    queue = deque(sync.want(NAMES))
    for name in poor:
        queue.extend(sync.handle(PeerJoined(name)))
    answers = 0
    while queue:
        action = queue.popleft()
        for name in action.digests if isinstance(action, Ask) else ():
            answers += 1
            queue.extend(sync.handle(Missing(action.peer, name)))
    assert answers == len(poor) * len(NAMES)
    assert looks < 12 * answers


def test_each_node_fetches_in_an_order_of_its_own_in_runs():
    one, other = scattered(NAMES, b"one"), scattered(NAMES, b"other")
    assert sorted(one) == sorted(NAMES)
    assert one == scattered(iter(NAMES), b"one")
    assert one[:RUN] != other[:RUN]
    first = NAMES.index(one[0])
    assert one[:RUN] == NAMES[first : first + RUN]


def test_a_liar_is_dropped_for_good_and_its_chunks_go_elsewhere():
    sync = ChunkSync()
    sync.want(NAMES[:3])
    (ask,) = sync.handle(PeerJoined("liar"))
    sync.handle(PeerJoined("other"))
    drop, again = sync.handle(Received("liar", ask.digests[0], b"junk"))
    assert isinstance(drop, Drop)
    assert drop.peer == "liar"
    assert again == Ask("other", ask.digests)
    assert isinstance(sync.handle(PeerJoined("liar"))[0], Drop)


def test_other_bytes_than_those_asked_for_are_a_lie():
    sync = ChunkSync()
    sync.want(NAMES[:2])
    sync.handle(PeerJoined("liar"))
    drop, stuck = sync.handle(Received("liar", NAMES[0], CHUNKS[NAMES[1]].frame))
    assert isinstance(drop, Drop)
    assert isinstance(stuck, Stuck)
    assert set(stuck.missing) == set(NAMES[:2])


def test_what_was_not_asked_for_costs_the_connection():
    sync = ChunkSync()
    sync.want(NAMES[:1])
    sync.handle(PeerJoined("flooder"))
    (drop, stuck) = sync.handle(Received("flooder", NAMES[9], CHUNKS[NAMES[9]].frame))
    assert isinstance(drop, Drop)
    assert stuck == Stuck((NAMES[0],))


def test_a_slow_peer_is_overtaken_and_its_late_answer_is_harmless():
    sync = ChunkSync()
    sync.want(NAMES[: WINDOW_START + 1])
    sync.handle(Tick(5))
    (slow,) = sync.handle(PeerJoined("slow"))
    (quick,) = sync.handle(PeerJoined("quick"))
    sync.handle(Received("quick", quick.digests[0], CHUNKS[quick.digests[0]].frame))
    (over,) = sync.handle(Tick(6 + TAKE_OVER_AFTER_US))
    assert over == Ask("quick", slow.digests)
    # The slow one has been asked for these already: they do not go back and forth.
    assert sync.handle(Tick(7 + 2 * TAKE_OVER_AFTER_US)) == []
    first, *rest = slow.digests
    assert sync.handle(Received("slow", first, CHUNKS[first].frame)) == [Store(CHUNKS[first])]
    assert sync.handle(Received("quick", first, CHUNKS[first].frame)) == []
    for name in rest[:-1]:
        sync.handle(Received("quick", name, CHUNKS[name].frame))
    assert sync.handle(Received("quick", rest[-1], CHUNKS[rest[-1]].frame)) == [Store(CHUNKS[rest[-1]]), Done()]
    assert sync.handle(Received("slow", rest[0], CHUNKS[rest[0]].frame)) == []


def test_silence_costs_the_connection_but_not_for_good():
    sync = ChunkSync()
    sync.want(NAMES[:1])
    sync.handle(Tick(0))
    sync.handle(PeerJoined("asleep"))
    drop, stuck = sync.handle(Tick(SILENCE_US_MAX + 1))
    assert isinstance(drop, Drop)
    assert stuck == Stuck((NAMES[0],))
    assert sync.handle(PeerJoined("asleep")) == [Ask("asleep", (NAMES[0],))]


def test_nothing_wanted_is_done_and_digests_are_those_of_the_data():
    assert ChunkSync().want([]) == [Done()]
    assert digest(b"7") in CHUNKS
