"""How often a long reading is saved, and what becomes of it where saving fails."""

import io
import re
from types import SimpleNamespace
from typing import Any

import pytest

from infllm.cli.checkpoints import LOST, tokens_between
from infllm.engine.config import load_config
from infllm.engine.units import estimate
from tests.cli.memories import ANSWER, HARBOUR, kept

BILLION = 10**9


def engine(parameters: int, layers: int, device: str = "cpu", **settings: Any) -> Any:
    """What `tokens_between` looks at, of a model of the shape of a Llama."""
    settings = {"model.n_local": 4096, "chunk_size": 512, **settings}
    config = load_config("pocket", settings, environ={})
    layer = SimpleNamespace(
        n_heads=32, n_kv_heads=8, head_dim=128, sliding_window=None, chunk=None,
        dtype=SimpleNamespace(itemsize=2), device=SimpleNamespace(type=device),
    )  # fmt: skip

    def needs(tokens: int, overrides: dict[str, Any]) -> Any:
        model = config.with_overrides({**overrides, "kv_dtype": "bf16"}).model
        return estimate(model, [layer] * layers, tokens)

    return SimpleNamespace(
        config=config,
        device=SimpleNamespace(type=device),
        attachment=SimpleNamespace(layers=[layer] * layers),
        model=SimpleNamespace(num_parameters=lambda exclude_embeddings: parameters),
        estimate=needs,
    )


@pytest.mark.parametrize(
    ("parameters", "layers", "least", "most"),
    [(BILLION, 16, 3000, 6000), (3 * BILLION, 28, 1000, 3000), (8 * BILLION, 32, 500, 1500)],
)
def test_a_kill_takes_about_a_minute_of_a_real_model_on_a_cpu(parameters, layers, least, most):
    every = tokens_between(engine(parameters, layers), 100_000)
    assert least <= every <= most
    assert every % 512 == 0
    assert every < 24_000
    seconds = every * 2 * parameters / 2e11
    assert seconds <= 2 * LOST


def test_saving_takes_little_of_the_time_of_a_gpu():
    one = engine(8 * BILLION, 32, device="cuda")
    every = tokens_between(one, 10**6)
    reading = every * 2 * 8 * BILLION / 2e14
    saving = one.estimate(10**6, {"type": "stream-lm"}).device_bytes / 5e8
    assert saving <= 0.05 * reading


def test_where_nothing_leaves_the_window_all_of_it_is_saved_again(monkeypatch):
    plain = engine(BILLION, 16, **{"model.type": "origin"})
    assert tokens_between(plain, 10**6) > 10 * tokens_between(plain, 10_000)


def test_places_are_those_of_the_chunks(pocket):
    from infllm.engine import load

    for chunk in (128, 2048, 32768, 65536):
        config = load_config("pocket", {"chunk_size": chunk}, environ={})
        with load(config) as real:
            every = tokens_between(real, 10**6)
        assert every % chunk == 0
        assert every == max(chunk, 32768)  # the built-in model reads so many in seconds


def failing(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The disk is full from the save `at` on."""
    from infllm.engine import MemoryWriter
    from infllm.engine.errors import MemoryFileError

    save, saves = MemoryWriter._save, iter(range(100))
    before = MemoryWriter.__init__

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        before(self, *arguments, **{**options, "every": 256})

    def full(self: Any, *, complete: bool) -> None:
        if next(saves) >= at:
            raise MemoryFileError("x.mem: saving needs 9 MiB, 1 MiB are free", "", reason="full")
        save(self, complete=complete)

    monkeypatch.setattr(MemoryWriter, "__init__", init)
    monkeypatch.setattr(MemoryWriter, "_save", full)


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_disk_that_is_full_on_the_way_costs_no_answer(
    infllm, pocket, cache, text, monkeypatch, at
):
    straight = infllm("ask", text, HARBOUR, "--no-cache", "--set", "chunk_size=128")
    failing(monkeypatch, at)
    result = infllm("ask", text, HARBOUR, "--set", "chunk_size=128")
    assert (result.code, result.out) == (0, straight.out)
    told = "warning: this memory is not kept: x.mem: saving needs M, M are free\n"
    assert re.sub(r"\d MiB", "M", result.raw_err).count(told) == 1
    assert (
        re.search(r"read [\d,]+ tokens", result.raw_err)[0]
        == (re.search(r"read [\d,]+ tokens", straight.raw_err)[0])
    )  # once
    assert len(kept(cache)) == (1 if at else 0)


def test_a_disk_that_is_full_ends_an_index(infllm, pocket, text, tmp_path, monkeypatch):
    failing(monkeypatch, 1)
    result = infllm("index", text, "-o", tmp_path / "a.mem", "--set", "chunk_size=128")
    assert (result.code, result.out) == (1, "")
    assert "saving needs" in result.raw_err


# ---- a cache that cannot be used ----


def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    def nobody(uid: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "INFLLM_CACHE_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)


@pytest.mark.parametrize("place", ["a file", "below a file", "no permission", "no home"])
def test_a_cache_that_cannot_be_written_costs_no_answer(
    infllm, pocket, cache, text, tmp_path, monkeypatch, place
):
    (tmp_path / "file").write_text("x")
    if place == "a file":
        monkeypatch.setenv("INFLLM_CACHE_DIR", str(tmp_path / "file"))
    elif place == "below a file":
        monkeypatch.setenv("INFLLM_CACHE_DIR", str(tmp_path / "file" / "cache"))
    elif place == "no permission":  # not even root may make folders there
        monkeypatch.setenv("INFLLM_CACHE_DIR", "/proc/infllm")
    else:
        homeless(monkeypatch)
    result = infllm("ask", text, HARBOUR)
    assert (result.code, result.out) == (0, f"{ANSWER}\n")
    assert result.raw_err.count("warning: this memory is not kept: ") == 1
    assert "defect" not in result.raw_err
    assert (tmp_path / "file").read_text() == "x"


def test_a_user_without_a_home_is_told_so_by_the_list(infllm, monkeypatch):
    homeless(monkeypatch)
    for command in (["memory", "list"], ["memory", "prune"], ["memory", "show", "x"]):
        result = infllm(*command)
        assert result.code == 1
        assert result.err.startswith("error: this user has no home folder for a cache")
        assert "INFLLM_CACHE_DIR=" in result.err


def test_a_user_without_a_home_may_chat_and_inspect(infllm, fakes, book, monkeypatch):
    homeless(monkeypatch)
    monkeypatch.setattr("sys.stdin", io.StringIO("What is the pass key?\n"))
    assert infllm("chat", book, "--no-cache").out == "12345\n"
    assert infllm("inspect", "--text", book).code == 0
    assert infllm("presets", "list").code == 0


def test_a_home_of_another_user_is_no_defect(monkeypatch, tmp_path):
    def refuse(self: Any) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("infllm.engine.config.layers.Path.is_file", refuse)
    from infllm.engine.config import layers

    assert layers._is_there(tmp_path / "config.yaml") is False


def test_a_damaged_memory_that_cannot_be_removed_costs_no_answer(
    infllm, pocket, cache, text, monkeypatch
):
    infllm("ask", text, HARBOUR)
    (kept(cache)[0] / "manifest.json").write_text("{}")

    def refuse(folder: Any) -> bool:
        raise PermissionError(30, "Read-only file system", str(folder))

    monkeypatch.setattr("infllm.cli.cache.remove", refuse)
    result = infllm("ask", text, HARBOUR)
    assert (result.code, result.out) == (0, f"{ANSWER}\n")
    assert "Read-only file system" in result.raw_err
