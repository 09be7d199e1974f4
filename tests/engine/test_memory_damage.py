"""Memory files that are damaged, or of another model, tokenizer, settings or format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from infllm.engine import Engine, attach, verify
from infllm.engine.errors import MemoryFileError
from infllm.engine.files import MANIFEST, fingerprint, read_manifest
from tests.engine.memories import MORE, QUESTIONS, TEXT, Reading, assert_same_answers, read, reason
from tests.engine.served import CHUNK, SMALL_MEMORY, Served
from tests.engine.tiny_models import build, ids

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
