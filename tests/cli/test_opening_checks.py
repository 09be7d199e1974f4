"""Commands that open a memory check every byte of it, once; of a damaged one they print nothing."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from infllm.engine.files import read_manifest, verification
from tests.cli.stories import fact, question, story

HARBOUR, ANSWER = question("vague-harbor"), "7281934"


@pytest.fixture
def checks(monkeypatch) -> list[tuple[str, bool]]:
    """Unit files of which a layer was checked, and whether it had been before."""
    seen: list[tuple[str, bool]] = []
    check = verification.Seal.check_all

    def noted(seal) -> None:
        seen.append((seal.file.path.name, bool(seal.checked.all())))
        check(seal)

    monkeypatch.setattr(verification.Seal, "check_all", noted)
    return seen


def regions(path: Path) -> Iterator[tuple[int, int]]:
    """Start and stop of the parts of a file; keys and values, which are one tensor, apart."""
    data = path.read_bytes()
    if path.suffix != ".safetensors":
        yield 0, len(data)
        return
    start = 8 + int.from_bytes(data[:8], "little")
    yield 0, start
    for name, at in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, stop = (start + offset for offset in at["data_offsets"])
            yield first, (first + stop) // 2
            yield (first + stop) // 2, stop


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def units_of(folder: Path) -> Path:
    return folder / read_manifest(folder).segments[0].file


def test_a_flipped_bit_anywhere_is_refused(infllm, harbour, shelf):
    whole = shelf / "harbour.mem"
    for path in sorted(whole.iterdir()):
        if path.name in ("lock", "reading.json"):
            continue
        for start, stop in regions(path):
            if start == stop:
                continue
            flip(harbour / path.name, (start + stop) // 2)
            asked = infllm("ask", harbour, HARBOUR)
            assert (asked.code, asked.out) == (1, "")
            assert asked.err.startswith(f"error: {harbour / path.name} is damaged: ")
            assert asked.err.endswith("hint: remove the folder and read the document again\n")
            verified = infllm("memory", "verify", harbour)
            assert (verified.code, str(path.name) in verified.out) == (1, True)
            shutil.copy(path, harbour / path.name)
    assert infllm("ask", harbour, HARBOUR).out == f"{ANSWER}\n"


@pytest.mark.parametrize(
    "command",
    [
        ["chat", "{}"],
        ["ask", "{}", "--questions", "{}/../questions"],
        ["index", "--append", "{}/../questions", "-o", "{}"],
    ],
    ids=" ".join,
)
def test_no_command_uses_a_damaged_memory(infllm, harbour, command):
    (harbour.parent / "questions").write_text(HARBOUR)
    flip(units_of(harbour), units_of(harbour).stat().st_size // 2)
    before = {path.name: path.read_bytes() for path in harbour.iterdir()}
    result = infllm(*[part.format(harbour) for part in command])
    assert (result.code, result.out) == (1, "")
    assert f"error: {units_of(harbour)} is damaged: the checksum of a memory unit" in result.err
    assert {path.name: path.read_bytes() for path in harbour.iterdir()} == before


def test_a_memory_is_checked_once(infllm, harbour, shelf, checks):
    added = harbour.parent / "added.txt"
    added.write_text(story(5))
    layers = len(read_manifest(harbour).segments) * _layers(units_of(harbour))
    for command in (
        ["ask", harbour, HARBOUR],
        ["index", shelf / "harbour.txt", "-o", harbour],
        ["index", "--append", added, "-o", harbour],
    ):
        checks.clear()
        assert infllm(*command).code == 0
        assert len([1 for _, done in checks if not done]) == layers


def _layers(path: Path) -> int:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return len(json.loads(header["__metadata__"]["layers"]))


def test_a_damaged_unit_in_the_cache_is_read_again(infllm, pocket, tmp_path, monkeypatch):
    monkeypatch.setenv("INFLLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("INFLLM_CACHE_MAX", "1GB")
    monkeypatch.setattr("infllm.cli.remember.LEAST_KEPT", 500)
    text = tmp_path / "text.txt"
    text.write_text(story(60, fact("vague-harbor", ANSWER)))
    first = infllm("ask", text, HARBOUR)
    (kept,) = (tmp_path / "cache").glob("*.mem")
    flip(units_of(kept), units_of(kept).stat().st_size // 2)
    again = infllm("ask", text, HARBOUR)
    assert again.out == first.out == f"{ANSWER}\n"
    assert again.err.startswith(f"warning: {units_of(kept)} is damaged: ")
    assert ": reading again\n" in again.err
    assert infllm("memory", "verify", kept).code == 0
    assert "saved" in infllm("ask", text, HARBOUR).err


def test_a_damaged_unit_is_found_by_index(infllm, harbour, shelf):
    """Of whatever size: what it made is whole."""
    flip(units_of(harbour), units_of(harbour).stat().st_size // 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "CHECKED_WHOLE", 0)
        assert infllm("index", shelf / "harbour.txt", "-o", harbour).err.startswith("read ")
    assert infllm("memory", "verify", harbour).code == 0


def test_a_large_memory_is_not_read_to_be_opened(infllm, harbour, checks, monkeypatch):
    monkeypatch.setattr(verification, "CHECKED_WHOLE", read_manifest(harbour).size - 1)
    assert infllm("ask", harbour, HARBOUR).out == f"{ANSWER}\n"
    assert checks == []
    assert infllm("memory", "verify", harbour).code == 0
    assert checks


def test_ctrl_c_does_not_wait_for_the_check(infllm, harbour, monkeypatch):
    from threading import Event

    never = Event()
    monkeypatch.setattr(verification, "check_files", lambda *_: never.wait(60))

    def stopped(self, manifest):
        raise KeyboardInterrupt

    monkeypatch.setattr(verification.Verification, "files", stopped)
    result = infllm("ask", harbour, HARBOUR)
    never.set()
    assert (result.code, result.out) == (130, "")
