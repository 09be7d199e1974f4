"""A memory that is checked as it is opened: no byte of it can be wrong, and none is read twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infllm.engine import Engine, Session, Verification, verify
from infllm.engine.errors import MemoryFileError
from infllm.engine.files import MANIFEST, read_manifest, verification
from infllm.engine.files.tensor_file import Half, Seal
from tests.engine.served import CHUNK, Served, assert_same_state
from tests.engine.tiny_models import ids

SETTINGS: dict[str, Any] = {"kv_dtype": "int8"}  # which has scales
TEXT, MORE = ids(9 * CHUNK + 5), ids(5 * CHUNK, seed=1)


@pytest.fixture(scope="module")
def saved(llama: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory of two unit files, a state and an extra file."""
    folder = tmp_path_factory.mktemp("saved") / "memory"
    session = llama.session(**SETTINGS)
    for text in (TEXT, MORE):
        session.read(text)
        session.save(folder, extra_files={"text": b"words"})
    assert len(read_manifest(folder).segments) == 2
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def regions(path: Path) -> Iterator[tuple[str, int, int]]:
    """Names and bytes, start and stop, of all that a file holds."""
    size = path.stat().st_size
    if path.suffix != ".safetensors":
        yield "all", 0, size
        return
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    yield "length of the header", 0, 8
    yield "header", 8, start
    stop = start
    for name, at in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, stop = (start + offset for offset in at["data_offsets"])
            middle = (first + stop) // 2
            if name.endswith(("kv", "scale")):
                yield f"{name} keys", first, middle
                yield f"{name} values", middle, stop
            elif first < stop:
                yield name, first, stop
    assert stop == size  # nothing is left over


def opened(engine: Engine, folder: Path) -> Session:
    """As a command opens a memory that its user named."""
    return engine.open(Verification(folder), overrides=SETTINGS)


def seals(session: Session) -> list[Seal]:
    policies: Any = session.policies.values()
    runs = [run for p in policies for view in p.units.views for run in view.slab.runs]
    return [run.seal for run in runs]


def assert_refused(engine: Engine, folder: Path, name: str) -> None:
    with pytest.raises(MemoryFileError) as error:
        verify(folder)
    assert name == MANIFEST or name in error.value.message
    with pytest.raises(MemoryFileError) as told:
        opened(engine, folder)
    assert (told.value.message, told.value.hint) == (error.value.message, error.value.hint)


def flip_units(folder: Path) -> Path:
    """Flip a bit of the first unit's keys; gives the file."""
    path = folder / read_manifest(folder).segments[0].file
    data = bytearray(path.read_bytes())
    (start,) = [start for name, start, _ in regions(path) if name == "1.kv keys"]
    data[start] ^= 1
    path.write_bytes(data)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "lock")


# ---- every byte ---------------------------------------------------------------------------------


def test_a_whole_memory_is_opened_and_hashed_once(
    llama: Served, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(llama.engine, saved)
    assert all(seal.checked.all() for seal in seals(session))
    plain = llama.engine.open(saved, overrides=SETTINGS)
    assert not any(seal.checked.any() for seal in seals(plain))
    assert_same_state(session, plain)
    monkeypatch.setattr(Half, "sum", None)
    session.score(MORE)


def test_a_flipped_bit_of_any_region_is_refused(llama: Served, saved: Path, copy: Path) -> None:
    seen = set()
    for name in names(saved):
        whole = (saved / name).read_bytes()
        for region, start, stop in regions(saved / name):
            seen.add(region.partition(".")[2] or region)
            for place in {start, (start + stop) // 2, stop - 1}:
                flipped = bytearray(whole)
                flipped[place] ^= 1 << (place % 8)
                (copy / name).write_bytes(flipped)
                assert_refused(llama.engine, copy, name)
        (copy / name).write_bytes(whole)
    assert seen >= {"kv keys", "kv values", "scale keys", "scale values", "index", "sums", "header"}
    opened(llama.engine, copy)


def test_truncated_missing_and_swapped_files_are_refused(
    llama: Served, saved: Path, copy: Path
) -> None:
    everything = names(saved)
    for name in everything:
        whole = (saved / name).read_bytes()
        for size in (0, 1, len(whole) // 2, len(whole) - 1):
            (copy / name).write_bytes(whole[:size])
            assert_refused(llama.engine, copy, name)
        (copy / name).unlink()
        assert_refused(llama.engine, copy, name)
        for other in everything:
            if other != name:
                shutil.copy(saved / other, copy / name)
                assert_refused(llama.engine, copy, name)
        (copy / name).write_bytes(whole)
    opened(llama.engine, copy)


def test_a_damaged_checkpoint_is_not_resumed(llama: Served, copy: Path) -> None:
    units = flip_units(copy)
    with pytest.raises(MemoryFileError, match=units.name):
        llama.engine.resume(copy, verify=True, overrides=SETTINGS)


# ---- a check that runs beside other work --------------------------------------------------------


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Checks wait until it is set."""
    event, check_files = threading.Event(), verification.check_files

    def waiting(*arguments: Any) -> None:
        assert event.wait(60)
        check_files(*arguments)

    monkeypatch.setattr(verification, "check_files", waiting)
    yield event
    event.set()


def replace(folder: Path, llama: Served, text: list[int]) -> Session:
    session = llama.session(**SETTINGS)
    session.read(text)
    session.save(folder)
    return session


def test_opening_waits_for_the_check(llama: Served, copy: Path, gate: threading.Event) -> None:
    check = Verification(copy)
    timer = threading.Timer(0.2, gate.set)
    timer.start()
    session = llama.engine.open(check, overrides=SETTINGS)
    assert gate.is_set()
    assert all(seal.checked.all() for seal in seals(session))


def test_a_memory_that_is_replaced_meanwhile_is_checked_again(
    llama: Served, copy: Path, gate: threading.Event
) -> None:
    check = Verification(copy)
    new = replace(copy, llama, MORE)  # the files of the old one are gone
    gate.set()
    session = llama.engine.open(check, overrides=SETTINGS)
    assert_same_state(session, new)
    assert all(seal.checked.all() for seal in seals(session))


def test_damage_of_what_replaced_it_is_found(
    llama: Served, copy: Path, gate: threading.Event
) -> None:
    check = Verification(copy)
    replace(copy, llama, MORE)
    units = flip_units(copy)
    gate.set()
    with pytest.raises(MemoryFileError, match=units.name):
        llama.engine.open(check, overrides=SETTINGS)


def test_a_memory_that_was_checked_before_it_was_replaced(llama: Served, copy: Path) -> None:
    check = Verification(copy)
    old = llama.engine.open(check, overrides=SETTINGS)
    new = replace(copy, llama, MORE)
    assert_same_state(llama.engine.open(check, overrides=SETTINGS), new)
    assert old.position > new.position


def test_sessions_of_one_check_are_apart(llama: Served, saved: Path) -> None:
    check = Verification(saved)
    one, two = (llama.engine.open(check, overrides=SETTINGS) for _ in range(2))
    one.read(MORE)
    assert_same_state(two, opened(llama.engine, saved))


def test_what_the_manifest_tells_is_told_at_once(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(MemoryFileError, match="holds no memory"):
        Verification(tmp_path / "nothing")
    (copy / MANIFEST).write_text("{}")
    with pytest.raises(MemoryFileError, match="damaged"):
        Verification(copy)


def test_a_check_keeps_no_process_alive(saved: Path) -> None:
    """It waits for ever here, and would be joined if it were a thread of a pool."""
    code = (
        "import sys, threading, infllm.engine.files.verification as v\n"
        "v.check_files = lambda *_: threading.Event().wait()\n"
        f"v.Verification({str(saved)!r})\n"
        "assert 'torch' not in sys.modules\n"
        "raise KeyboardInterrupt"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.endswith("KeyboardInterrupt\n")


# ---- too large to be checked whole --------------------------------------------------------------


def test_units_of_a_large_memory_are_checked_when_used(
    llama: Served, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "CHECKED_WHOLE", read_manifest(copy).size - 1)
    session = opened(llama.engine, copy)
    assert not any(seal.checked.any() for seal in seals(session))
    units = flip_units(copy)
    session = opened(llama.engine, copy)
    with pytest.raises(MemoryFileError, match=units.name):
        session.policies[1].units.gather([0])  # type: ignore[attr-defined]
    with pytest.raises(MemoryFileError, match=units.name):
        llama.engine.open(Verification(copy), verify=True, overrides=SETTINGS)
    with pytest.raises(MemoryFileError, match=units.name):
        verify(copy)
