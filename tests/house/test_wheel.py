"""The wheel holds every module, every preset and the built-in model, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSE = {
    "infllm_cli": "infllm/cli", "engine": "infllm/engine", "kernels": "infllm/kernels",
    "presets": "infllm/presets",
}  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """Built from a copy, so that no build folder appears beside the sources."""
    place = tmp_path_factory.mktemp("wheel")
    copy = place / "source"
    copy.mkdir()
    for name in [*HOUSE, "pyproject.toml", "README.md", "LICENSE"]:
        (copy / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(place)],
        cwd=copy, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = place.glob("infllm-*.whl")
    return zipfile.Path(built)


def contents(wheel: zipfile.Path) -> set[str]:
    return {name for name in wheel.root.namelist() if not name.endswith("/")}


def test_every_module_is_in_the_wheel(wheel: zipfile.Path) -> None:
    inside = contents(wheel)
    for folder, place in HOUSE.items():
        modules = {
            f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
            for path in (ROOT / folder).rglob("*.py")
        }
        assert modules
        assert modules <= inside
    assert "infllm/__init__.py" not in inside
    assert "infllm/kernels/__init__.py" not in inside


def test_presets_and_the_built_in_model_are_in_the_wheel(wheel: zipfile.Path) -> None:
    inside = contents(wheel)
    presets = {f"infllm/presets/{path.name}" for path in (ROOT / "presets").glob("*.yaml")}
    assert "infllm/presets/pocket.yaml" in presets
    assert presets <= inside
    model = {f"infllm/presets/pocket/{p.name}" for p in (ROOT / "presets" / "pocket").glob("*")}
    assert model <= inside


def test_the_suites_of_benchmarks_are_in_the_wheel(wheel: zipfile.Path) -> None:
    suites = ROOT / "infllm_cli" / "bench" / "suite_files"
    tasks = {
        f"infllm/cli/bench/suite_files/{path.relative_to(suites).as_posix()}"
        for path in suites.rglob("*.yaml")
    }
    assert len(tasks) > 60
    assert tasks <= contents(wheel)


def test_nothing_else_is_in_the_wheel(wheel: zipfile.Path) -> None:
    for name in contents(wheel):
        assert name.startswith(("infllm/", "infllm-")), name
        assert "test" not in Path(name).name, name
    assert any(name.endswith("entry_points.txt") for name in contents(wheel))
