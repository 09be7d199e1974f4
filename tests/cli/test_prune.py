"""`infllm prune`: options, what is told, and that the rest of the commands take its folders."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from infllm import presets
from infllm.cli.errors import UsageError
from infllm.cli.tasks.pruning import parse_layers
from tests.cli.conftest import Result

Run = Callable[..., Result]


def lines_of(result: Result) -> list[str]:
    """Of standard error, without the bars of a transformers that was imported before it could be
    told to draw none."""
    return re.sub(r"\r.*it/s]\n", "", result.err).splitlines()


@pytest.fixture
def small(infllm: Run, tmp_path: Path) -> Path:
    """The built-in model with half of the heads and channels of two of its four layers."""
    folder = tmp_path / "small"
    made = infllm("prune", "pocket", "-o", folder, "--ratio", 0.5, "--layers", "1-2", "-q")
    assert (made.code, lines_of(made)) == (0, [])
    return folder


def test_before_and_after(infllm: Run, tmp_path: Path) -> None:
    result = infllm("prune", "pocket", "-o", tmp_path / "small", "--ratio", "0.25")
    assert result.code == 0
    lines = [line.split("  ") for line in result.out.splitlines()]
    rows = {line[0]: [part.strip() for part in line[1:] if part] for line in lines}
    assert rows["parameters"] == ["3,950,848", "3,686,656"]
    assert rows["KV heads a layer"] == ["2", "2"]
    assert rows["MLP channels"] == ["688", "516 to 688"]
    before, after = map(float, rows["nll of the text"])
    assert 5 < before < after < 6.5
    assert lines_of(result) == [
        "no head was removed: 25% of 2 KV heads is less than one",
        "its layers differ: infllm loads it by --model; for others, make one with --layers all or "
        "--export padded",
    ]


def test_json_tells_what_was_removed(infllm: Run, tmp_path: Path) -> None:
    result = infllm(
        "prune", "pocket", "-o", tmp_path / "small", "--ratio", "0.5", "--layers", "all",
        "--criterion", "l2", "--json",
    )  # fmt: skip
    told = json.loads(result.out)
    assert told["loads_in_transformers"] is True
    assert told["after"]["heads"] == [[2, 1]] * 4
    assert told["after"]["channels"] == [344] * 4
    assert told["after"]["kv_bytes_per_token"] * 2 == told["before"]["kv_bytes_per_token"] == 2048
    assert told["settings"]["aggregation"] == "mean"
    assert len(told["removed"]["MLP of layer 3"]) == 344
    assert told["before"]["calibration_nll"] is None
    card = json.loads((tmp_path / "small" / "pruning.json").read_text())
    assert card["removed"] == told["removed"]
    assert card["made_from"] == "pocket"
    AutoModelForCausalLM.from_pretrained(tmp_path / "small")


def test_the_other_commands_take_it(infllm: Run, small: Path, text: Path) -> None:
    asked = infllm("ask", text, "What is the special magic number for vague-harbor?",
                   "--model", small, "--no-cache", "--json")  # fmt: skip
    assert asked.code == 0
    assert json.loads(asked.out)["answer"] is not None
    seen = infllm("inspect", text, "--model", small, "--json")
    whole = infllm("inspect", text, "--model", presets.builtin("pocket"), "--json")
    assert seen.code == whole.code == 0
    assert 0 < device_bytes(seen) < device_bytes(whole)


def device_bytes(result: Result) -> int:
    found = json.loads(result.out)
    (value,) = [v for k, v in _walk(found) if k == "device_bytes"]
    return value


def _walk(value: Any) -> Any:
    if isinstance(value, dict):
        for key, part in value.items():
            yield key, part
            yield from _walk(part)


def test_a_pruned_folder_is_exported_for_others(infllm: Run, small: Path, tmp_path: Path) -> None:
    padded = tmp_path / "padded"
    result = infllm("prune", small, "-o", padded, "--ratio", 0, "--export", "padded", "--json")
    assert result.code == 0
    told = json.loads(result.out)
    assert told["loads_in_transformers"] is True
    assert told["after"]["heads"] == [[4, 2]] * 4
    AutoModelForCausalLM.from_pretrained(padded)


def test_calibration_text_of_a_folder(infllm: Run, book: Path, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text(book.read_text())
    common = ["prune", "pocket", "--ratio", "0.5", "--json", "--layers", "all"]
    ours = infllm(*common, "-o", tmp_path / "a", "--calibrate", folder, "--length", 32)
    assert ours.code == 0
    told = json.loads(ours.out)
    assert told["settings"]["text"] == ["texts"]
    builtin = json.loads(infllm(*common, "-o", tmp_path / "b").out)
    assert told["removed"] != builtin["removed"]
    short = infllm(*common, "-o", tmp_path / "c", "--calibrate", folder, "--examples", 9999)
    assert short.code == 2
    assert "9999 sequences of 64 tokens take 639,936 tokens" in short.raw_err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["pocket"], 2, "no folder for the smaller model"),
        (["pocket", "-o", "x", "--ratio", "1"], 2, "--ratio 1 is not a share"),
        (["pocket", "-o", "x", "--criterion", "elment1"], 2, "did you mean 'element1'?"),
        (["pocket", "-o", "x", "--layers", "1-4"], 2, "layers '1-4' are not some of 0 to 3"),
        (["pocket", "-o", "x", "--layers", "none"], 2, "no layer is left to prune"),
        (["pockt", "-o", "x"], 2, "did you mean 'pocket'?"),
        (["missing.gguf", "-o", "x"], 5, "missing.gguf"),
        (["pocket", "-o", "x", "--calibrate", "missing.txt"], 3, "missing.txt"),
        (["pocket", "-o", "."], 2, ". is there already"),
        (["pocket", "-o", "x", "--group", "hidden", "--export", "padded"], 2, "cannot pad"),
        (["pocket", "-o", "x", "--recover", "a.txt", "--minutes", "0"], 2, "--minutes 0"),
    ],
)
def test_what_cannot_be_done_is_told(
    infllm: Run, arguments: list[str], code: int, said: str
) -> None:
    Path("here").touch()
    result = infllm("prune", *arguments)
    assert (result.code, result.out) == (code, "")
    assert said in result.raw_err
    assert not Path("x").exists()


def test_names_of_the_published_code(infllm: Run, tmp_path: Path) -> None:
    told = infllm("prune", "pocket", "-o", tmp_path / "x", "--criterion", "param_mix", "--json",
                  "--official")  # fmt: skip
    assert json.loads(told.out)["settings"]["criterion"] == "element2"


def test_recovery_needs_peft(infllm: Run, monkeypatch: pytest.MonkeyPatch, book: Path) -> None:
    monkeypatch.setattr("infllm.cli.tasks.pruning.find_spec", lambda name: None)
    result = infllm("prune", "pocket", "-o", "x", "--recover", book)
    assert result.code == 1
    assert "pip install 'infllm[recover]'" in result.raw_err


def test_a_model_that_cannot_fit_is_told_before_it_is_loaded(
    infllm: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infllm.cli.tasks.pruning.available_memory_bytes", lambda: 20 << 20)
    for criterion, taken in (("element1", "31.6 MB"), ("element2", "47.4 MB")):
        result = infllm("prune", "pocket", "-o", "x", "--criterion", criterion)
        assert result.code == 6
        assert f"takes about {taken} of memory, and 21 MB are free" in result.raw_err
        assert "--criterion l2 takes no gradients" in result.raw_err
    assert infllm("prune", "pocket", "-o", "x", "--criterion", "l2").code == 0


def test_layers_as_they_are_written() -> None:
    assert parse_layers("4-6", 8) == [4, 5, 6]
    assert parse_layers("0, 2,5 - 7", 8) == [0, 2, 5, 6, 7]
    assert parse_layers("all", 3) == [0, 1, 2]
    assert parse_layers("NONE", 3) == []
    assert parse_layers("spared", 3) is None
    for wrong in ("", "3", "2-1", "1-3", "-1", "a", "1,"):
        with pytest.raises(UsageError, match="not some of 0 to 2"):
            parse_layers(wrong, 3)
