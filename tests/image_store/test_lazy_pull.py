"""What a mounted image fetches: what readers wait for comes first, what nobody has is given up."""

from potluck_images.chunk import pack
from potluck_images.lazy_pull import STUCK_US_MAX, WAIT_US_MAX, LazyPull
from potluck_images.memory import MemoryStore
from potluck_images.sync import WINDOW_START, Ask, Missing, PeerJoined, Received, Store, Tick, Wanted

CHUNKS = {chunk.digest: chunk for chunk in (pack(bytes([number]) * 100) for number in range(20))}
NAMES = list(CHUNKS)


class World:
    """Runs a pull with one peer that lacks some chunks."""

    def __init__(self, lacks=(), peer="ann"):
        self.store, self.lacks, self.peer, self.asked = MemoryStore(), lacks, peer, []
        self.pull = LazyPull(self.store, 0, 0)
        assert self.pull.start() == []
        self.now_us = 1_000_000_000
        self.do(Tick(self.now_us))

    def do(self, event):
        for action in self.pull.handle(event):
            if isinstance(action, Ask):
                self.asked += action.digests
            elif isinstance(action, Store):
                self.store.put_chunk(action.chunk)

    def answer(self):
        """The peer answers what it was asked."""
        asked, self.asked = self.asked, []
        for digest in asked:
            lacked = digest in self.lacks
            self.do(Missing(self.peer, digest) if lacked else Received(self.peer, digest, CHUNKS[digest].frame))
        return asked

    def wait(self, us):
        self.now_us += us
        self.do(Tick(self.now_us))


def test_what_a_reader_waits_for_is_asked_before_all_that_is_read_ahead():
    world = World()
    world.do(PeerJoined("ann"))
    world.do(Wanted(tuple(NAMES[:15])))
    assert world.asked == NAMES[:WINDOW_START]
    world.do(Wanted((NAMES[14], NAMES[18]), urgent=True))
    world.answer()
    assert world.asked[:2] == [NAMES[14], NAMES[18]]
    while world.asked:
        world.answer()
    came, lost = world.pull.news()
    assert sorted(came) == sorted([*NAMES[:15], NAMES[18]])
    assert lost == []
    assert world.pull.news() == ([], [])


def test_what_is_here_is_told_at_once_and_not_fetched():
    world = World()
    world.do(PeerJoined("ann"))
    world.store.put_chunk(CHUNKS[NAMES[0]])
    world.do(Wanted((NAMES[0],), urgent=True))
    assert world.asked == []
    assert world.pull.news() == ([NAMES[0]], [])


def test_what_nobody_has_is_given_up_after_a_while_and_can_be_asked_for_again():
    world = World(lacks=(NAMES[0],))
    world.do(PeerJoined("ann"))
    world.do(Wanted((NAMES[0],), urgent=True))
    world.answer()
    world.wait(STUCK_US_MAX - 1)
    assert world.pull.news() == ([], [])
    world.wait(2)
    assert world.pull.news() == ([], [NAMES[0]])
    world.lacks = ()
    world.peer = "bob"
    world.do(Wanted((NAMES[0],), urgent=True))
    world.do(PeerJoined("bob"))
    assert world.answer() == [NAMES[0]]
    assert world.pull.news() == ([NAMES[0]], [])


def test_a_reader_never_waits_for_ever_even_where_peers_are_busy():
    world = World()
    world.do(Wanted((NAMES[0],), urgent=True))
    world.do(PeerJoined("ann"))
    for _ in range(WAIT_US_MAX // 5_000_000 + 1):
        world.wait(5_000_000)
    assert world.pull.news()[1] == [NAMES[0]]


def test_without_any_peer_a_reader_gets_an_error_too():
    pull = LazyPull(MemoryStore(), 0, 0)
    pull.handle(Wanted((NAMES[0],), urgent=True))  # before the first tick
    pull.handle(Tick(1_000_000_000))
    assert pull.news() == ([], [])
    pull.handle(Tick(1_000_000_001 + STUCK_US_MAX))
    assert pull.news() == ([], [NAMES[0]])
