"""The first minutes on a GPU, rehearsed at toy size in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_first_light.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_first_light", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def rows_of(part: str, folder: Path) -> list[dict[str, Any]]:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--part", part, "--device", "cpu", "--output", str(folder),
         "--minutes", "20"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    logs = "\n".join(path.read_text() for path in folder.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    rows = [json.loads(line) for line in (folder / f"{part}.jsonl").read_text().splitlines()]
    assert not [row for row in rows if {"error", "skipped", "exit"} & set(row)]
    return rows


@pytest.mark.slow
def test_check(tmp_path: Path) -> None:
    rows = rows_of("check", tmp_path)
    ended = [row["part"] for row in rows if row["name"] == "end"]
    assert ended == ["ceilings", "compile", "attention", "kernel tests", "engine tests"]
    right = next(row for row in rows if row["name"].startswith("attention of a block"))
    assert right["right"]
    timed = {row["name"] for row in rows if row["part"] == "attention"}
    assert {"block", "near keys of a chunk", "decode step", "a step's tokens"} <= timed
    compiled = {row["name"] for row in rows if row["part"] == "compile"}
    assert {"a layer, dot", "a layer, mass", "all compiled"} <= compiled


@pytest.mark.slow
def test_speed(tmp_path: Path) -> None:
    rows = rows_of("speed", tmp_path)
    names = [row["name"] for row in rows]
    assert names.count("decoding") == 2
    assert {"reading", "a chunk", "steps", "reading, mass"} <= set(names)
    assert all("predicted" in row for row in rows if row["name"] in ("reading", "decoding"))


def test_what_is_missing_comes_from_wheels_alone(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands: list[list[str]] = []

    def ran(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(script.subprocess, "run", ran)
    monkeypatch.setattr(script, "is_there", lambda name: name != "pydantic")
    assert "error" in script.install(None)
    assert not commands
    assert script.install(tmp_path)["missing"] == ["pydantic"]
    (command,) = commands
    assert "--no-index" in command
    assert command[-1] == "pydantic"
    monkeypatch.setattr(script, "is_there", lambda name: True)
    assert script.install(None)["missing"] == []


def test_wheels_hold_what_the_project_needs_and_nothing_of_torch(script: ModuleType) -> None:
    names = {line.partition("==")[0] for line in script.closure(script.needed())}
    assert {"pydantic", "pydantic-core", "platformdirs", "pypdf", "selectolax", "pytest"} <= names
    assert not {"torch", "transformers", "triton", "numpy"} & names


@pytest.mark.parametrize(("part", "seconds"), [("check", 240), ("speed", 300)])
def test_steps_fit_into_the_minutes_of_a_part(
    script: ModuleType, part: str, seconds: int, tmp_path: Path
) -> None:
    steps = script.steps(part, "llama-3-8b", "cuda", tmp_path, seconds / 60)
    assert sum(step.seconds for step in steps) <= seconds + 15
    assert all(step.threads == "1" for step in steps if "pytest" in step.command)


def test_the_folders_get_their_import_names(script: ModuleType, tmp_path: Path) -> None:
    links = script.namespace(tmp_path)
    assert {path.name for path in (links / "infllm").iterdir()} == {
        "cli", "engine", "kernels", "presets",
    }  # fmt: skip
    assert all(path.is_dir() for path in (links / "infllm").iterdir())
