"""What a mailbox builds on, on each backend: one create wins, reads are bounded, ages are the store's."""

from __future__ import annotations

import threading
import time

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from hepipe.errors import MalformedFrame, StoreFailed, Unsupported
from hepipe.service import mailbox_store
from hepipe.service.mailbox_store import Store


def test_of_many_creates_one_wins_and_its_object_is_whole(box):
    stores = [box.store() for _ in range(4)]
    bodies = [bytes([65 + i]) * 300_000 for i in range(8)]
    won: list[int] = []
    start = threading.Barrier(len(bodies))

    def create(i: int) -> None:
        start.wait()
        if stores[i % 4].create("jobs/one", bodies[i]):
            won.append(i)

    threads = [threading.Thread(target=create, args=(i,)) for i in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = won
    assert box.store().read("jobs/one", 300_000) == bodies[winner]


def test_a_create_that_is_sent_twice_is_the_same_create(box):
    store = box.store()
    assert store.create("a/b", b"mine")
    assert store.create("a/b", b"mine")
    assert not store.create("a/b", b"your")
    assert not store.create("a/b", b"longer")
    assert store.read("a/b", 4) == b"mine"


def test_an_object_over_the_limit_or_empty_is_not_read(box):
    store = box.store()
    store.put("a/large", b"12345")
    store.put("a/empty", b"")
    for name, limit in (("a/large", 4), ("a/empty", 4)):
        with pytest.raises(MalformedFrame, match="at most 4"):
            store.read(name, limit)
    assert store.read("a/large", 5) == b"12345"
    assert store.read("a/none", 5) is None


def test_objects_are_listed_by_name_and_deleted_once(box):
    store = box.store()
    assert store.list("a") == set()
    for name in ("a/x", "a/y", "b/z", "a/.hidden"):
        store.put(name, b"1")
    assert store.list("a") == {"x", "y"}
    store.delete(["a/x", "a/x", "a/never", "a/.hidden"])
    assert store.list("a") == {"y"}
    assert store.list("b") == {"z"}


def test_ages_are_taken_by_the_clock_of_the_store(box, monkeypatch):
    store = box.store()
    store.put("a/old", b"1")
    time.sleep(3.1)  # S3 keeps whole seconds, so that an age is wrong by one, and the two writes below take a moment
    if "memory" not in box.url:  # its clock is this process's
        monkeypatch.setattr(time, "time", lambda: 0.0)
    store.put("a/new", b"1")
    assert store.older("a", 2.5) == {"old"}
    assert store.older("a", 3600) == set()
    assert store.list("a") == {"old", "new"}


def test_opening_a_store_leaves_nothing_in_it(tmp_path):
    Store(f"file://{tmp_path / 'box'}")
    assert list((tmp_path / "box").iterdir()) == []


def test_wrong_credentials_are_refused(s3):
    with pytest.raises(StoreFailed, match="credentials"):
        Store("s3://bucket/box", s3.options("a-wrong-secret"))


@pytest.mark.parametrize("url", ["http://127.0.0.1/box", "zip://box", "gs://bucket/box", "box::file:///tmp/x"])
def test_a_backend_without_an_exclusive_create_is_refused(url):
    with pytest.raises(Unsupported, match="exclusive creates are known of file, memory, s3 only"):
        Store(url)


def test_a_server_that_ignores_the_condition_is_found_out(monkeypatch):
    def careless(fs: MemoryFileSystem, path: str, data: bytes) -> None:
        fs.pipe_file(path, data)

    monkeypatch.setitem(mailbox_store._CREATE, "memory", careless)
    with pytest.raises(Unsupported, match="overwrites what exists"):
        Store("memory://careless")
    assert not fsspec.filesystem("memory").find("/careless")


def test_a_folder_that_cannot_be_written_is_a_typed_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreFailed):
        Store(f"file://{tmp_path / 'file'}")
