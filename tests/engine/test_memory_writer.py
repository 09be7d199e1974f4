"""Checkpoints of a reading, and folders that stay whole whatever stops a writer."""

from __future__ import annotations

import errno
import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from infllm.engine import MemoryWriter, Session, verify
from infllm.engine.errors import EngineError, MemoryFileError
from infllm.engine.files import MANIFEST, read_extra, read_manifest, storage
from infllm.engine.files import writer as memory_file
from tests.engine.memories import MORE, TEXT, Reading, assert_same_answers, contents, read, reason
from tests.engine.served import CHUNK, Served, assert_same_state


def long_read(session: Session, folder: Path, text: list[int], every: int = 40) -> None:
    with MemoryWriter(session, folder, every=every, extra_files={"text": b"words"}) as writer:
        writer.read(text)
        writer.finish(extra="done")


def test_checkpoints_add_files_and_rewrite_none(llama: Served, tmp_path: Path) -> None:
    session, seen = llama.session(), []
    with MemoryWriter(session, tmp_path, every=2 * CHUNK) as writer:
        writer.read(TEXT, lambda: seen.append({p.name for p in tmp_path.glob("units-*")}))
        assert read_manifest(tmp_path).complete is False
        writer.finish()
    assert all(a <= b for a, b in pairwise(seen))
    assert len(seen[-1]) == 4
    manifest = read_manifest(tmp_path)
    assert [s.first for s in manifest.segments[1:]] == [
        s.first + s.count for s in manifest.segments[:-1]
    ]
    assert_same_answers(read(llama), llama.engine.open(tmp_path))
    verify(tmp_path)


def test_checkpoints_do_not_depend_on_how_ids_were_cut(llama: Served, tmp_path: Path) -> None:
    long_read(llama.session(), tmp_path / "a", TEXT)
    with MemoryWriter(
        llama.session(), tmp_path / "b", every=40, extra_files={"text": b"words"}
    ) as writer:
        for start in range(0, len(TEXT), 7):
            writer.read(TEXT[start : start + 7])
        writer.finish(extra="done")
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a == b


def test_short_readings_are_saved_once(llama: Served, tmp_path: Path) -> None:
    with MemoryWriter(llama.session(), tmp_path) as writer:
        writer.read(TEXT)
        assert not (tmp_path / MANIFEST).exists()
        writer.finish()
    assert read_manifest(tmp_path).complete


def test_checkpoints_wait_until_saving_is_cheap(
    llama: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_file, "LEAST_TOKENS", 2 * CHUNK)
    with MemoryWriter(llama.session(), tmp_path) as writer:
        writer.read(TEXT[: 3 * CHUNK])
        assert read_manifest(tmp_path).tokens_given == 2 * CHUNK
        writer._cost = 3600.0  # seconds: the next is due after a day
        writer.read(TEXT[3 * CHUNK :])
        assert read_manifest(tmp_path).tokens_given == 2 * CHUNK


def test_a_checkpoint_is_resumed_and_not_opened(llama: Served, tmp_path: Path) -> None:
    with MemoryWriter(llama.session(), tmp_path / "a", every=40) as writer:
        writer.read(TEXT[:100])
    with pytest.raises(MemoryFileError) as error:
        llama.engine.open(tmp_path / "a")
    assert reason(error) == "unfinished"
    session, n = llama.engine.resume(tmp_path / "a")
    assert n == 96
    with MemoryWriter(session, tmp_path / "a", every=40) as writer:
        writer.read(TEXT[n:])
        writer.finish()
    with MemoryWriter(llama.session(), tmp_path / "b", every=40) as writer:
        writer.read(TEXT)
        writer.finish()
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_writer_at_an_interrupted_session_saves_nothing(llama: Served, tmp_path: Path) -> None:
    session = read(llama)
    session._broken = True
    with pytest.raises(EngineError, match="interrupted"):
        session.save(tmp_path)
    assert not (tmp_path / MANIFEST).exists()


WRITES = ("make_folder", "create", "write", "fsync", "close", "replace", "sync_folder", "unlink")


class Killed(BaseException):
    """The writer's process is gone."""


class Disk:
    """The file operations of `storage`, of which all from the n-th on fail."""

    def __init__(self, patch: pytest.MonkeyPatch, error: BaseException | None = None) -> None:
        self.calls = 0
        self.fatal: int | None = None
        self.error = error  # raised once by the n-th call; None: the process dies there
        patch.setattr(os, "fsync", lambda descriptor: None)  # slow, and seen by no other process
        for name in WRITES:
            patch.setattr(storage, name, self._stopping(name, getattr(storage, name)))

    def arm(self, n: int | None) -> None:
        self.calls, self.fatal = 0, n

    def _stopping(self, name: str, call: Any) -> Any:
        def stop(*args: Any) -> Any:
            self.calls += 1
            if self.fatal is None or self.calls < self.fatal:
                return call(*args)
            if self.error is not None and self.calls > self.fatal:
                return call(*args)
            if name == "write":  # some of it had come to the disk
                call(args[0], bytes(args[1])[: self.calls % 97])
            if name == "close":
                call(*args)
            if self.error is not None:
                raise self.error
            raise Killed

        return stop


def test_a_writer_may_be_killed_at_any_moment(
    reading: Reading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    reading.save(tmp_path / "whole", reading.steps[0].fork(), 0)
    whole, total = contents(tmp_path / "whole"), disk.calls
    for n in range(1, total + 1):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        disk.arm(n)
        with pytest.raises(Killed):
            reading.save(folder, reading.steps[0].fork(), 0)
        disk.arm(None)
        if (folder / MANIFEST).exists():
            session, given = reading.engine.resume(folder)
            assert given % CHUNK == 0
            verify(folder)
        else:
            session, given = reading.steps[0].fork(), 0
        there = reading.steps[given // CHUNK]
        assert_same_state(session.fork(), there.fork())
        reading.save(folder, session, given // CHUNK)
        assert contents(folder) == whole
    assert total >= 200


def test_the_old_memory_is_whole_while_a_new_one_is_written(
    reading: Reading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any call, an opened memory that is saved again is the old one or the new one."""
    reading.steps[4].fork().save(tmp_path / "old", extra_files={"text": b"old"})
    disk = Disk(monkeypatch)
    n = 0
    while True:
        n += 1
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "old", folder)
        session = reading.steps[9].fork()
        session.manifest = read_manifest(folder)
        disk.arm(n)
        try:
            session.save(folder, extra_files={"text": b"new"})
        except Killed:
            disk.arm(None)
            found = reading.engine.open(folder, verify=True)
            new = found.stats.tokens_given == 9 * CHUNK
            assert read_extra(folder, "text") == (b"new" if new else b"old")
            assert_same_state(found, reading.steps[9 if new else 4].fork())
        else:
            break
    assert n > 10


@pytest.mark.parametrize("number", ["ENOSPC", "EIO"])
def test_a_disk_that_refuses_leaves_the_old_memory(
    reading: Reading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    code = getattr(errno, number)
    folder = tmp_path / "memory"
    reading.steps[4].fork().save(folder)
    old = contents(folder)
    disk = Disk(monkeypatch, OSError(code, os.strerror(code)))
    session = reading.steps[9].fork()
    reasons: list[str] = []
    with MemoryWriter(session, folder, extra_files={"text": b"new"}) as writer:
        while True:
            disk.arm(len(reasons) + 1)
            try:
                writer.finish()
            except MemoryFileError as error:
                reasons.append(error.reason)
            else:
                break
            disk.arm(None)
            verify(folder)
            if read_manifest(folder).tokens_given == 4 * CHUNK:
                assert contents(folder) == old  # and nothing half written beside it
    assert len(reasons) > 8
    assert set(reasons) == {"full" if number == "ENOSPC" else "storage"}
    assert_same_state(reading.engine.open(folder), session.fork())


def test_room_is_looked_for_before_writing(
    llama: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "free_bytes", lambda path: 100_000)
    monkeypatch.setattr(storage, "create", None)
    with pytest.raises(MemoryFileError, match="MiB are free") as error:
        read(llama).save(tmp_path)
    assert reason(error) == "full"


def test_two_writers(llama: Served, tmp_path: Path) -> None:
    session = read(llama)
    with MemoryWriter(session, tmp_path) as writer:
        with pytest.raises(MemoryFileError, match="someone else") as error:
            session.save(tmp_path)
        assert reason(error) == "locked"
        writer.finish()
        assert_same_state(llama.engine.open(tmp_path), session.fork())
    session.save(tmp_path)
    with pytest.raises(MemoryFileError, match="not held"):
        writer.finish()


def test_a_memory_is_opened_while_it_is_written(llama: Served, tmp_path: Path) -> None:
    """What an open session has mapped stays, also when its files are gone."""
    session = read(llama)
    session.save(tmp_path)
    opened = llama.engine.open(tmp_path)
    read(llama, MORE).save(tmp_path)
    assert_same_answers(session, opened)
    opened.save(tmp_path)  # all of it: what is there is of another session
    assert_same_answers(session, llama.engine.open(tmp_path))


def test_folders_of_others_are_left_alone(llama: Served, tmp_path: Path) -> None:
    session = read(llama, TEXT[:40])
    (tmp_path / "notes.txt").write_text("mine")
    for name in (None, MANIFEST):
        if name:
            (tmp_path / name).write_text("{}")
        with pytest.raises(MemoryFileError, match=r"notes\.txt") as error:
            session.save(tmp_path)
        assert reason(error) == "foreign"
        assert not (tmp_path / "lock").exists()
    with pytest.raises(MemoryFileError, match="is a file") as error:
        session.save(tmp_path / "notes.txt")
    assert reason(error) == "foreign"


def test_a_folder_that_may_not_be_written(
    llama: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError(13, "Permission denied", str(args[0]))

    monkeypatch.setattr(storage, "create", refuse)
    with pytest.raises(MemoryFileError, match="Permission denied") as error:
        read(llama).save(tmp_path)
    assert reason(error) == "storage"
