"""Memory files: saved, opened and read on, a session gives the same answers; what they hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from infllm.engine import MemoryWriter, attach, verify
from infllm.engine.errors import MemoryFileError
from infllm.engine.files import MANIFEST, read_extra, read_manifest, tensor_file
from tests.engine.memories import MORE, QUESTIONS, TEXT, assert_same_answers, contents, read, reason
from tests.engine.served import CHUNK, POLICIES, SIBLINGS, SMALL_MEMORY, Served, serve
from tests.engine.tiny_models import build, ids

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
    {"unit_score": "moments", "kv_dtype": "bf16"},
    {"unit_score": "moments", "repr_heads": "group", "far_position": "exact"},
    *({"kv_dtype": kv} for kv in ("fp32", "bf16", "fp16", "int8", "fp8")),
    *({"type": policy} for policy in POLICIES if policy != "inf-llm"),
    *SIBLINGS,
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


@pytest.mark.parametrize(
    "then",
    [
        *({"unit_score": how} for how in ("representatives", "keys", "moments")),
        {"far_position": "within", "far_limit": 40},
        {"far_position": "exact"},
        {"question_topk": 5},
    ],
    ids=str,
)
def test_units_are_looked_up_as_when_the_memory_was_read(
    tmp_path: Path, then: dict[str, Any]
) -> None:
    """Whatever the default has become; not where someone chose."""
    unchosen = {key: x for key, x in SMALL_MEMORY.items() if key != "unit_score"}
    config = {"model": unchosen, "chunk_size": CHUNK}
    with attach(build("llama", {}), config=config, check=False) as engine:
        session = engine.session(overrides=then)
        session.read(TEXT)
        session.save(tmp_path)
        assert_same_answers(session, engine.open(tmp_path))
        resumed, _ = engine.resume(tmp_path)
        assert_same_answers(session, resumed)
        name = next(iter(then))
        others = {"unit_score": ["keys", "moments"], "far_position": ["capped", "exact"],
                  "question_topk": [4]}[name]  # fmt: skip
        other = next(x for x in others if x != then[name])
        with pytest.raises(MemoryFileError, match=name):
            engine.open(tmp_path, overrides={name: other})


def test_a_limit_without_effect_makes_no_other_memory(llama: Served, tmp_path: Path) -> None:
    read(llama, far_limit=40).save(tmp_path)
    llama.engine.open(tmp_path, overrides={"far_limit": 50})


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
        assert torch.equal(file.get_tensor("1.index"), view.slab.index.rows(0, view.count))
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


def test_a_memory_from_before_there_was_a_setting_is_opened(tmp_path: Path) -> None:
    """By who has it fitted now: units are looked up as they were."""
    config = {"model": SMALL_MEMORY, "chunk_size": CHUNK}
    with attach(build("llama", {}), config=config, check=False) as engine:
        session = engine.session()
        session.read(TEXT)
        session.save(tmp_path)
        manifest = read_manifest(tmp_path)
        assert manifest.key["settings"].pop("model.question_topk") is None
        (tmp_path / MANIFEST).write_bytes(manifest.to_bytes())
        engine.config = engine.config.with_overrides({"question_topk": 5}, "fitted to the model")
        assert engine.session().config.question_topk == 5
        assert_same_answers(session, engine.open(tmp_path))
