"""Memory files: saved, opened, appended to and resumed, a session gives the same answers."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from infllm.engine import (
    Engine,
    MemoryWriter,
    Session,
    attach,
    fingerprint,
    memory_file,
    storage,
    tensor_file,
    verify,
)
from infllm.engine.errors import EngineError, MemoryFileError
from infllm.engine.manifest import MANIFEST, read_extra, read_manifest
from tests.engine.served import (
    CHUNK,
    POLICIES,
    SMALL_MEMORY,
    Served,
    assert_same_state,
    serve,
)
from tests.engine.tiny_models import build, ids

TEXT = ids(150)  # nine chunks and six tokens that wait
MORE = ids(70, seed=1)
QUESTIONS = [ids(9, seed=2), ids(5, seed=3), ids(17, seed=4)]


def read(served: Served, text: list[int] = TEXT, **overrides: Any) -> Session:
    session = served.session(**overrides)
    session.read(text)
    return session


def answer(session: Session, question: list[int]) -> tuple[Tensor, list[int]]:
    """Logits of the question and some generated ids; the session stays as it is."""
    own = session.fork()
    rows = own.score(question)
    return rows, [token.id for token in own.generate(4, stop_ids=())]


def assert_same_answers(a: Session, b: Session) -> None:
    """Bit for bit, in any order of questions, and after reading on."""
    assert_same_state(a.fork(), b.fork())
    mine = [answer(a, question) for question in QUESTIONS]
    theirs = [answer(b, question) for question in reversed(QUESTIONS)]
    for (rows, tokens), (others, other_tokens) in zip(mine, reversed(theirs), strict=True):
        assert torch.equal(rows, others)
        assert tokens == other_tokens
    on = a.fork(), b.fork()
    for session in on:
        session.read(MORE)
    assert torch.equal(on[0].score(QUESTIONS[0]), on[1].score(QUESTIONS[0]))
    assert_same_state(*on)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def reason(error: pytest.ExceptionInfo[MemoryFileError]) -> str:
    return error.value.reason


# ---- the same answers ---------------------------------------------------------------------------

WAYS: list[dict[str, Any]] = [
    {},
    {"repr_score": "dot"},
    {"repr_heads": "group"},
    {"unit_score": "keys", "kv_dtype": "int8"},
    {"perhead": True},
    {"chunk_topk_calc": 16},
    {"keep_units": True},
    {"far_position": "exact", "unit_score": "keys"},
    *({"kv_dtype": kv} for kv in ("fp32", "bf16", "fp16", "int8", "fp8")),
    *({"type": policy} for policy in POLICIES if policy != "inf-llm"),
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_opened_session_is_the_one_that_was_saved(
    llama: Served, tmp_path: Path, way: dict[str, Any]
) -> None:
    session = read(llama, **way)
    session.save(tmp_path)
    opened = llama.engine.open(tmp_path, overrides=way)
    assert_same_answers(session, opened)
    verify(tmp_path)


@pytest.mark.parametrize("kind", ["gemma2", "smollm3", "gpt_oss"])
def test_models_whose_layers_differ(tmp_path: Path, kind: str) -> None:
    """Sliding-window layers, layers without rotation, attention sinks."""
    with serve(kind).engine as engine:
        session = engine.session()
        session.read(TEXT)
        session.save(tmp_path)
        assert_same_answers(session, engine.open(tmp_path))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("policy", ["inf-llm", "origin"])
def test_models_of_other_dtypes(tmp_path: Path, dtype: torch.dtype, policy: str) -> None:
    config = {"model": {**SMALL_MEMORY, "type": policy}, "chunk_size": CHUNK}
    with attach(build("llama", {}).to(dtype), config=config, check=False) as engine:
        session = engine.session()
        session.read(TEXT)
        session.save(tmp_path)
        assert_same_answers(session, engine.open(tmp_path))


def test_faiss_is_built_again(llama: Served, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    session = read(llama, faiss=True)
    session.save(tmp_path)
    assert_same_answers(session, llama.engine.open(tmp_path, overrides={"faiss": True}))


@pytest.mark.parametrize("n", [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK])
def test_sessions_of_hardly_anything(llama: Served, tmp_path: Path, n: int) -> None:
    session = read(llama, TEXT[:n])
    session.save(tmp_path)
    opened = llama.engine.open(tmp_path)
    assert_same_answers(session, opened)
    assert (opened.stats.tokens_given, opened.stats.tokens_pending) == (n, n % CHUNK)


def test_where_a_session_started_is_kept(llama: Served, tmp_path: Path) -> None:
    session = llama.session(start=10**7)
    session.read(TEXT)
    session.save(tmp_path)
    opened = llama.engine.open(tmp_path)
    assert opened.position == session.position == 10**7 + len(TEXT)
    assert_same_answers(session, opened)


def test_a_session_is_saved_after_an_answer(llama: Served, tmp_path: Path) -> None:
    session = read(llama)
    list(session.generate(5, stop_ids=()))
    session.save(tmp_path)
    opened = llama.engine.open(tmp_path)
    assert opened.stats.tokens_pending == 1
    assert_same_answers(session, opened)


def test_forks_are_saved_apart(llama: Served, tmp_path: Path) -> None:
    session = read(llama)
    fork = session.fork()
    fork.read(MORE)
    session.read(QUESTIONS[2])
    session.save(tmp_path / "session")
    fork.save(tmp_path / "fork")
    assert_same_answers(session, llama.engine.open(tmp_path / "session"))
    assert_same_answers(fork, llama.engine.open(tmp_path / "fork"))


def test_an_opened_session_is_read_on_and_saved_again(llama: Served, tmp_path: Path) -> None:
    """Only what is new is written where the rest is, and all of it elsewhere."""
    whole, folder = read(llama), tmp_path / "a"
    whole.save(folder)
    before = contents(folder)
    opened = llama.engine.open(folder)
    for session in (whole, opened):
        session.read(MORE)
    opened.save(folder)
    (first,) = [name for name in before if name.startswith("units")]
    assert contents(folder)[first] == before[first]
    assert len(read_manifest(folder).segments) == 2
    assert_same_answers(whole, llama.engine.open(folder))
    again = llama.engine.open(folder)
    again.save(tmp_path / "b")
    assert len(read_manifest(tmp_path / "b").segments) == 1
    assert_same_answers(whole, llama.engine.open(tmp_path / "b"))
    assert_same_answers(whole, again)


def test_forks_of_an_opened_session_go_their_own_ways(llama: Served, tmp_path: Path) -> None:
    session = read(llama)
    session.save(tmp_path)
    opened = llama.engine.open(tmp_path)
    fork = opened.fork()
    fork.read(MORE)
    opened.read(QUESTIONS[2])
    session.read(QUESTIONS[2])
    assert_same_answers(session, opened)
    # The one that was forked writes behind the other's units, the fork to a slab of its own.
    twin = read(llama).fork()
    twin.read(MORE)
    assert torch.equal(fork.score(QUESTIONS[0]), twin.score(QUESTIONS[0]))


def test_many_slabs(llama: Served, tmp_path: Path) -> None:
    """64 units of four tokens fill the first slab."""
    session = read(llama, ids(700))
    with MemoryWriter(session, tmp_path) as writer:
        writer.checkpoint()
        writer.read(ids(300, seed=8))
        writer.finish()
    opened = llama.engine.open(tmp_path)
    assert len(read_manifest(tmp_path).segments) == 2
    assert_same_answers(session, opened)
    opened.read(ids(500, seed=9))
    session.read(ids(500, seed=9))
    assert_same_answers(session, opened)


def test_a_saved_session_goes_on(llama: Served, tmp_path: Path) -> None:
    session, untouched = read(llama), read(llama)
    session.save(tmp_path)
    assert_same_answers(session, untouched)


def test_stats(llama: Served, tmp_path: Path) -> None:
    session = read(llama, kv_dtype="int8")
    session.save(tmp_path)
    opened = llama.engine.open(tmp_path, overrides={"kv_dtype": "int8"})
    before, after = session.stats, opened.stats
    assert before.disk_bytes == 0
    assert after.host_bytes == 0
    assert after.disk_bytes == before.host_bytes > 0
    assert after.device_bytes < before.device_bytes  # the index is loaded when first used
    assert (after.tokens_given, after.tokens_read) == (before.tokens_given, before.tokens_read)
    assert after.units == before.units > 0
    opened.read(MORE)
    session.read(MORE)
    assert opened.stats.device_bytes == session.stats.device_bytes
    assert opened.stats.disk_bytes == after.disk_bytes
    assert opened.stats.host_bytes > 0


def test_units_are_not_read_before_they_are_looked_up(
    llama: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_file, "SUMMED", 1)
    read(llama).save(tmp_path)
    opened = llama.engine.open(tmp_path)
    seals = [
        run.seal
        for policy in opened.policies.values()
        for view in policy.units.views  # type: ignore[attr-defined]
        for run in view.slab.runs
    ]
    assert not any(seal.checked.any() for seal in seals)
    opened.score(QUESTIONS[0])
    assert all(0 < seal.checked.sum() < seal.checked.size for seal in seals)


# ---- the files ----------------------------------------------------------------------------------


def test_the_same_session_is_the_same_bytes(llama: Served, tmp_path: Path) -> None:
    one, two = read(llama), llama.session()
    for token in TEXT:
        two.read([token])
    one.save(tmp_path / "a", extra={"title": "é"}, extra_files={"text": b"words"})
    two.save(tmp_path / "b", extra={"title": "é"}, extra_files={"text": b"words"})
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    llama.engine.open(tmp_path / "a").save(tmp_path / "a")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_units_are_safetensors_keys_first(llama: Served, tmp_path: Path) -> None:
    session = read(llama, kv_dtype="int8")
    session.save(tmp_path)
    (segment,) = read_manifest(tmp_path).segments
    store = session.policies[1].units  # type: ignore[attr-defined]
    (view,) = store.views
    (run,) = view.runs(0, store.n)
    with safe_open(tmp_path / segment.file, "pt") as file:
        assert sorted(file.keys()) == sorted(
            ["sums", *(f"{i}.{x}" for i in (0, 1) for x in ("kv", "scale", "index"))]
        )
        for name, stored in (("1.kv", run.kv), ("1.scale", run.scale)):
            assert torch.equal(file.get_tensor(name), torch.cat([stored[:, :, 0], stored[:, :, 1]]))
        assert torch.equal(file.get_tensor("1.index"), view.slab.index[: view.count])
    with safe_open(tmp_path / read_manifest(tmp_path).state, "pt") as file:
        assert file.get_tensor("pending").tolist() == TEXT[-6:]


def test_what_the_manifest_tells(llama: Served, tmp_path: Path) -> None:
    session = read(llama)
    session.save(tmp_path, extra={"source": ["a.pdf", 3]})
    manifest = read_manifest(tmp_path)
    assert manifest.complete
    assert (manifest.tokens_given, manifest.tokens_read) == (150, 144)
    assert manifest.units == session.stats.units
    assert manifest.extra == {"source": ["a.pdf", 3]}
    assert manifest.key["settings"]["model.topk"] == 3
    assert manifest.size == sum(
        p.stat().st_size for p in tmp_path.iterdir() if p.name not in (MANIFEST, "lock")
    )


def test_files_are_private(llama: Served, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "er"
    read(llama).save(folder, extra_files={"text": b"words"})
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {0o600}


def test_extra_files_are_kept_and_checked(llama: Served, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(3 * 2**20))
    folder, session = tmp_path / "memory", read(llama)
    files = {"text.txt": b"words", "../spans": big, "empty": b""}
    session.save(folder, extra=1, extra_files=files)
    assert read_extra(folder, "text.txt") == b"words"
    assert read_extra(folder, "../spans") == big.read_bytes()
    assert read_extra(folder, "empty") == b""
    opened = llama.engine.open(folder)
    opened.read(MORE)
    opened.save(folder, extra_files={"text.txt": b"other words"})
    assert read_extra(folder, "text.txt") == b"other words"
    assert read_extra(folder, "../spans") == big.read_bytes()
    assert read_manifest(folder).extra == 1
    with pytest.raises(MemoryFileError, match="no index") as error:
        read_extra(folder, "index")
    assert reason(error) == "missing"
    # A session of its own that is saved there brings none of them along.
    read(llama).save(folder)
    assert read_manifest(folder).extra_files == {}
    assert len(list(folder.iterdir())) == 4  # manifest, lock, units, state


# ---- saved while reading ------------------------------------------------------------------------


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


# ---- killed writers -----------------------------------------------------------------------------

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


class Reading:
    """Sessions after each chunk of one reading: a killed run goes on without forward passes."""

    def __init__(self, engine: Engine, text: list[int]) -> None:
        self.engine = engine
        session = engine.session()
        self.steps = [session.fork()]
        for start in range(0, len(text), CHUNK):
            session.read(text[start : start + CHUNK])
            self.steps.append(session.fork())

    def save(self, folder: Path, start: Session, step: int) -> None:
        """Checkpoints every second chunk from `step` on, then the whole."""
        session = start
        with MemoryWriter(session, folder, extra_files={"text": b"words"}) as writer:
            for i in range(step + 1, len(self.steps)):
                then = self.steps[i].fork()
                then.manifest = writer.session.manifest
                writer.session = then
                if i % 2 == 0:
                    writer.checkpoint()
            writer.finish()


@pytest.fixture(scope="module")
def reading() -> Iterator[Reading]:
    with serve("llama", num_hidden_layers=1).engine as engine:
        yield Reading(engine, ids(13 * CHUNK))


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


# ---- damage -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(reading: Reading, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory of two unit files, a state and an extra file."""
    folder = tmp_path_factory.mktemp("saved") / "memory"
    reading.steps[6].fork().save(folder, extra_files={"text": b"words"})
    session = reading.engine.open(folder)
    session.read(TEXT)
    session.save(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def assert_never_used(engine: Engine, folder: Path, name: str) -> None:
    """`verify` refuses it, and so does opening or, at the latest, a question that needs it."""
    with pytest.raises(MemoryFileError, match=r"damaged|missing|newer") as error:
        verify(folder)
    assert name in error.value.message
    with pytest.raises(MemoryFileError):
        engine.open(folder, verify=True)
    with pytest.raises(MemoryFileError):
        look_up_all(engine, folder)


def look_up_all(engine: Engine, folder: Path) -> None:
    for policy in engine.open(folder).policies.values():
        store = policy.units  # type: ignore[attr-defined]
        for unit in range(store.n):
            store.fetch(torch.tensor([[[unit]]]))


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != "lock")


def test_truncated_files(reading: Reading, saved: Path, copy: Path) -> None:
    for name in files(saved):
        whole = (saved / name).read_bytes()
        for size in {0, 1, 3, len(whole) // 2, len(whole) - 1}:
            (copy / name).write_bytes(whole[:size])
            assert_never_used(reading.engine, copy, "" if name == MANIFEST else name)
            if size or name == MANIFEST:
                with pytest.raises(MemoryFileError):
                    reading.engine.open(copy)
        (copy / name).write_bytes(whole)
    verify(copy)


def test_flipped_bits(reading: Reading, saved: Path, copy: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for name in files(saved):
        whole = (saved / name).read_bytes()
        somewhere = torch.randint(len(whole), (12,), generator=generator).tolist()
        for i, place in enumerate({0, 8, len(whole) // 2, len(whole) - 1, *somewhere}):
            if place >= len(whole):
                continue
            flipped = bytearray(whole)
            flipped[place] ^= 1 << (i % 8)
            (copy / name).write_bytes(flipped)
            assert_never_used(reading.engine, copy, "" if name == MANIFEST else name)
        (copy / name).write_bytes(whole)
    verify(copy)


@pytest.mark.parametrize("kv_dtype", ["fp32", "int8"])
def test_every_tensor_is_checked(llama: Served, tmp_path: Path, kv_dtype: str) -> None:
    overrides = {"kv_dtype": kv_dtype, "unit_score": "keys"}
    read(llama, TEXT[: 9 * CHUNK], **overrides).save(tmp_path)
    for path in sorted(tmp_path.glob("*.safetensors")):
        whole = path.read_bytes()
        start = 8 + int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8:start])
        for name, at in header.items():
            if name == "__metadata__":
                continue
            flipped = bytearray(whole)
            flipped[start + at["data_offsets"][0]] ^= 1  # of the first unit's keys
            path.write_bytes(flipped)
            with pytest.raises(MemoryFileError, match=path.name):
                verify(tmp_path)
            with pytest.raises(MemoryFileError, match=path.name):
                llama.engine.open(tmp_path, overrides=overrides).score(QUESTIONS[1])
        path.write_bytes(whole)
    verify(tmp_path)


def test_every_bit_of_the_manifest_counts(copy: Path) -> None:
    path = copy / MANIFEST
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        with pytest.raises(MemoryFileError):
            read_manifest(copy)


def test_removed_and_swapped_files(reading: Reading, saved: Path, copy: Path) -> None:
    names = [name for name in files(saved) if name != MANIFEST]
    for name in names:
        (copy / name).unlink()
        assert_never_used(reading.engine, copy, name)
        shutil.copy(saved / name, copy / name)
    for name in names:
        for other in names:
            if name != other:
                shutil.copy(saved / other, copy / name)
                assert_never_used(reading.engine, copy, name)
        shutil.copy(saved / name, copy / name)
    verify(copy)


def test_files_of_another_memory(reading: Reading, saved: Path, copy: Path, tmp_path: Path) -> None:
    """Of the same sizes: only what is in them tells."""
    other = reading.engine.session()
    other.read(ids(6 * CHUNK, seed=5))
    other.save(tmp_path / "other", extra_files={"text": b"sword"})
    theirs = reading.engine.open(tmp_path / "other")
    theirs.read(MORE + TEXT[: len(TEXT) - len(MORE)])
    theirs.save(tmp_path / "other")
    for kind in ("units", "state", "extra"):
        for mine in sorted(saved.glob(f"{kind}-*")):
            for foreign in sorted((tmp_path / "other").glob(f"{kind}-*")):
                shutil.copy(foreign, copy / mine.name)
                with pytest.raises(MemoryFileError, match=mine.name):
                    reading.engine.open(copy)
            shutil.copy(mine, copy / mine.name)
    verify(copy)


def test_reading_again_mends_a_damaged_memory(reading: Reading, tmp_path: Path) -> None:
    session = reading.steps[6]
    session.fork().save(tmp_path)
    (units,) = tmp_path.glob("units-*")
    whole = units.read_bytes()
    units.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    session.fork().save(tmp_path)
    verify(tmp_path)


# ---- refusals -----------------------------------------------------------------------------------


def test_nothing_there(llama: Served, tmp_path: Path) -> None:
    for call in (llama.engine.open, llama.engine.resume, verify, read_manifest):
        with pytest.raises(MemoryFileError, match="holds no memory") as error:
            call(tmp_path / "nothing")
        assert reason(error) == "missing"


def test_another_model(llama: Served, tmp_path: Path) -> None:
    read(llama).save(tmp_path)
    config = {"model": SMALL_MEMORY, "chunk_size": CHUNK}
    with (
        attach(build("llama", {}, seed=1), config=config, check=False) as other,
        pytest.raises(MemoryFileError, match="another model") as error,
    ):
        other.open(tmp_path)
    assert reason(error) == "model"
    with attach(build("llama", {}), config=config, check=False) as same:
        assert_same_answers(read(llama), same.open(tmp_path))


def test_a_weight_of_the_model_changed(llama: Served, tmp_path: Path) -> None:
    read(llama).save(tmp_path)
    model = build("llama", {})
    with torch.no_grad():
        model.lm_head.weight[5, 7] += 1e-3
    config = {"model": SMALL_MEMORY, "chunk_size": CHUNK}
    with (
        attach(model, config=config, check=False) as other,
        pytest.raises(MemoryFileError, match="another model"),
    ):
        other.open(tmp_path)


def test_large_models_are_told_by_samples(
    llama: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "HASHED_WHOLE", 0)
    monkeypatch.setattr(fingerprint, "SAMPLES", 100)
    digest = fingerprint.model_digest(llama.engine.model)
    assert digest == fingerprint.model_digest(build("llama", {}))
    assert digest != fingerprint.model_digest(build("llama", {}, seed=1))
    assert digest != fingerprint.model_digest(build("llama", {}).bfloat16())


@pytest.mark.parametrize(
    "change",
    [{"topk": 4}, {"kv_dtype": "int8"}, {"type": "window"}, {"n_local": 24, "repr_topk": 1}],
    ids=str,
)
def test_settings_that_change_numbers(
    llama: Served, tmp_path: Path, change: dict[str, Any]
) -> None:
    read(llama).save(tmp_path)
    with pytest.raises(MemoryFileError, match="other settings") as error:
        llama.engine.open(tmp_path, overrides=change)
    assert reason(error) == "settings"
    for name, value in change.items():
        assert f"model.{name} " in error.value.message
        assert f"(now {value})" in error.value.message


def test_the_chunk_size_and_the_dtype(llama: Served, tmp_path: Path) -> None:
    read(llama).save(tmp_path)
    with (
        attach(
            build("llama", {}), config={"model": SMALL_MEMORY, "chunk_size": 32}, check=False
        ) as other,
        pytest.raises(MemoryFileError, match=r"chunk_size 16 \(now 32\)"),
    ):
        other.open(tmp_path)
    config = {"model": {**SMALL_MEMORY, "kv_dtype": "fp32"}, "chunk_size": CHUNK}
    with (
        attach(build("llama", {}).bfloat16(), config=config, check=False) as other,
        pytest.raises(MemoryFileError, match=r"model.dtype float32 \(now bfloat16\)"),
    ):
        other.open(tmp_path)


def test_settings_that_change_none(llama: Served, tmp_path: Path) -> None:
    session = read(llama)
    session.save(tmp_path)
    other = llama.engine.open(
        tmp_path, overrides={"max_cached_block": 9, "cache_strategy": "fifo", "score_decay": 0.5}
    )
    assert_same_answers(session, other)


def test_another_tokenizer(llama: Served, tmp_path: Path, monkeypatch: Any) -> None:
    session = read(llama)
    theirs = {**llama.engine.digests, "tokenizer": "a"}
    monkeypatch.setitem(llama.engine.__dict__, "digests", theirs)
    session.save(tmp_path)
    monkeypatch.setitem(llama.engine.__dict__, "digests", {**theirs, "tokenizer": "b"})
    with pytest.raises(MemoryFileError, match="another tokenizer") as error:
        llama.engine.open(tmp_path)
    assert reason(error) == "tokenizer"
    # Who has token ids alone may use it.
    monkeypatch.setitem(llama.engine.__dict__, "digests", {**theirs, "tokenizer": None})
    llama.engine.open(tmp_path)


def test_another_format(llama: Served, tmp_path: Path) -> None:
    session = read(llama)
    session.save(tmp_path)
    path = tmp_path / MANIFEST
    as_written = path.read_bytes()
    for number, told in ((3, "newer"), (1, "older")):
        path.write_bytes(as_written.replace(b'"format": 2', f'"format": {number}'.encode()))
        for call in (llama.engine.open, verify):
            with pytest.raises(MemoryFileError, match=f"format {number}; this .* 2") as error:
                call(tmp_path)
            assert reason(error) == told
        if told == "newer":
            with pytest.raises(MemoryFileError, match=r"format 3; this .* 2"):
                session.save(tmp_path)
    session.save(tmp_path)  # nothing that this version could use is lost
    assert path.read_bytes() == as_written
