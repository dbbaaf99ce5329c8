"""What every chunk store must do. Plain functions: `check_store(make)` runs them all, each on a fresh store."""

from __future__ import annotations

import threading
from collections.abc import Callable

import zstandard

from potluck_images import chunk
from potluck_images.chunk import CHUNK_BYTES_MAX
from potluck_images.digest import digest
from potluck_images.errors import CorruptDataError, ImageStoreError, NotFoundError
from potluck_images.store import ChunkStore

Make = Callable[[], ChunkStore]


def check_store(make: Make) -> None:
    """Raises `AssertionError` at the first promise that the store breaks."""
    for check in CHECKS:
        store = make()
        try:
            check(store)
        finally:
            store.close()


def raises(kind: type[ImageStoreError], call: Callable[[], object]) -> ImageStoreError:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def returns_what_was_put(store: ChunkStore) -> None:
    frame = chunk.pack(b"hello").frame
    name = store.put(frame)
    assert name == digest(b"hello")
    assert store.get(name) == b"hello"
    assert store.get_frame(name) == frame
    assert store.has(name)


def put_twice_is_put_once(store: ChunkStore) -> None:
    first = store.put(zstandard.ZstdCompressor(level=1).compress(b"a" * 1000))
    second = store.put(zstandard.ZstdCompressor(level=9).compress(b"a" * 1000))
    store.put_chunk(chunk.pack(b"a" * 1000))
    assert first == second == store.add(b"a" * 1000)
    assert store.get(first) == b"a" * 1000


def unknown_is_not_found(store: ChunkStore) -> None:
    assert not store.has(digest(b"unknown"))
    error = raises(NotFoundError, lambda: store.get(digest(b"unknown")))
    assert error.kind == "not-found"
    assert error.fix
    raises(NotFoundError, lambda: store.get_frame(digest(b"unknown")))


def missing_keeps_the_order(store: ChunkStore) -> None:
    there = store.add(b"there")
    first, second = digest(b"first"), digest(b"second")
    assert store.missing([second, there, first, second]) == [second, first]
    assert store.missing([]) == []
    many = [digest(b"%d" % number) for number in range(2000)]
    assert store.missing([*many, there]) == many


def refuses_what_is_no_chunk(store: ChunkStore) -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(64 << 20))
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(b"no size declared")
    two = chunk.pack(b"one").frame + chunk.pack(b"two").frame
    torn = chunk.pack(b"x" * 10_000).frame[:-3]
    for frame in (b"", b"garbage", bomb, unsized, two, torn, zstandard.ZstdCompressor().compress(b"")):
        raises(CorruptDataError, lambda frame=frame: store.put(frame))
    assert store.verify() == []


def refuses_a_frame_that_lies_about_its_size(store: ChunkStore) -> None:
    """The declared size is small, the content is not."""
    frame = bytearray(zstandard.ZstdCompressor(level=3).compress(bytes(200)))
    assert zstandard.get_frame_parameters(bytes(frame)).content_size == 200
    frame[frame.index(200, 4)] = 7
    raises(CorruptDataError, lambda: store.put(bytes(frame)))


def keeps_the_largest_chunk(store: ChunkStore) -> None:
    data = bytes(CHUNK_BYTES_MAX)
    assert store.get(store.add(data)) == data


def batch_is_readable_at_once(store: ChunkStore) -> None:
    with store.batch():
        names = [store.add(b"%d" % number) for number in range(300)]
        assert store.get(names[7]) == b"7"
        assert store.has(names[8])
        assert store.missing(names) == []
    assert [store.get(name) for name in names] == [b"%d" % number for number in range(300)]


def a_failed_batch_keeps_what_was_put(store: ChunkStore) -> None:
    try:
        with store.batch():
            name = store.add(b"kept")
            raise ZeroDivisionError
    except ZeroDivisionError:
        assert store.get(name) == b"kept"


def discard_spares_what_is_pinned(store: ChunkStore) -> None:
    kept, gone = store.add(b"kept"), store.add(b"gone")
    store.pin([kept])
    store.pin([kept])
    assert store.discard([kept, gone, digest(b"never there")]) == [gone]
    assert store.get(kept) == b"kept"
    assert not store.has(gone)
    store.unpin([kept])
    assert store.discard([kept]) == []
    store.unpin([kept])
    assert store.discard([kept]) == [kept]
    assert store.get(store.add(b"gone")) == b"gone"


def many_threads_at_once(store: ChunkStore) -> None:
    failures: list[BaseException] = []

    def work(start: int) -> None:
        try:
            with store.batch():
                for number in range(start, start + 100):
                    name = store.add(b"%d" % (number % 150))
                    assert store.get(name) == b"%d" % (number % 150)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 50, 100, 150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert store.missing(digest(b"%d" % number) for number in range(150)) == []
    assert store.verify() == []


CHECKS: tuple[Callable[[ChunkStore], None], ...] = (
    returns_what_was_put,
    put_twice_is_put_once,
    unknown_is_not_found,
    missing_keeps_the_order,
    refuses_what_is_no_chunk,
    refuses_a_frame_that_lies_about_its_size,
    keeps_the_largest_chunk,
    batch_is_readable_at_once,
    a_failed_batch_keeps_what_was_put,
    discard_spares_what_is_pinned,
    many_threads_at_once,
)
