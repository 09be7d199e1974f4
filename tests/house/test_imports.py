"""Who may import whom. Imports go downward only: cli -> engine -> kernels; presets below all."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.house.imports import HOUSE, ROOT, imported_names

HEAVY = ("torch", "transformers", "tokenizers", "numpy", "triton")


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Absolute names of modules that a file imports, anywhere in it, and of what it takes."""
    names = set(imported_names(path))
    return names | {name.rpartition(".")[0] for name in names if "." in name}


def room(name: str) -> str | None:
    """The sub-package of infllm that a module name belongs to."""
    parts = name.split(".")
    return parts[1] if parts[0] == "infllm" and len(parts) > 1 else None


@pytest.mark.parametrize("folder", HOUSE)
def test_imports_go_downward_only(folder: str) -> None:
    own, allowed = HOUSE[folder]
    files = sources(folder)
    assert files
    for path in files:
        rooms = {room(name) for name in imported(path)} - {None}
        assert rooms <= allowed | {own.split(".")[1]}, f"{path} imports {rooms}"


@pytest.mark.parametrize("folder", HOUSE)
def test_imports_use_the_names_of_the_house(folder: str) -> None:
    """Never the folders' own names: `kernels` is also a package that transformers imports."""
    for path in sources(folder):
        tops = {name.split(".")[0] for name in imported(path)}
        assert not tops & {*HOUSE, "tests", "training", "benchmarks"}, path


def test_kernels_need_torch_and_triton_alone() -> None:
    standard = set(sys.stdlib_module_names)
    for path in sources("kernels"):
        tops = {name.split(".")[0] for name in imported(path)} - standard
        assert tops <= {"torch", "triton", "infllm"}, path


def test_presets_import_nothing_but_the_standard_library() -> None:
    for path in sources("presets"):
        tops = {name.split(".")[0] for name in imported(path)}
        assert tops <= set(sys.stdlib_module_names), path


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "infllm.engine",
        *(
            f"infllm.engine.{room}"
            for room in ("attachment", "config", "decode", "errors", "files")
        ),
        *(f"infllm.engine.{room}" for room in ("session", "text", "units")),
        "infllm.presets",
    ],
)
def test_the_light_modules_import_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert run_python(code).strip() == "[]"


def test_the_engine_offers_its_names_lazily() -> None:
    code = (
        "import sys, infllm.engine as e; assert 'torch' not in sys.modules; "
        "from infllm.engine import attach, load, Engine, Session, Token; "
        "assert 'torch' in sys.modules; assert sorted(e.__all__) == e.__all__; "
        "print(all(hasattr(e, name) for name in e.__all__))"
    )
    assert run_python(code).strip() == "True"
    code = "import infllm.engine as e\ntry:\n e.nothing\nexcept AttributeError as x:\n print(x)"
    assert "has no attribute 'nothing'" in run_python(code)


def test_help_of_the_command_imports_nothing_heavy() -> None:
    code = (
        "import sys; from infllm.cli.main import main; sys.argv = ['infllm', '--help']\n"
        "try:\n    main()\nexcept SystemExit as leave:\n    assert not leave.code, leave.code\n"
        f"print('heavy:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert run_python(code).strip().endswith("heavy: []")


# ---- packaging -------------------------------------------------------------------------------


def setuptools_table() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["tool"]["setuptools"]


def test_every_subpackage_is_listed() -> None:
    """An unlisted one would be missing from the wheel without a word."""
    found = set()
    for folder, (name, _) in HOUSE.items():
        for path in sources(folder):
            inside = path.parent.relative_to(ROOT / folder).parts
            found.add(".".join([name, *inside]))
    listed = setuptools_table()["packages"]
    assert sorted(listed) == sorted(found)  # type: ignore[type-var]
    mapped = setuptools_table()["package-dir"]
    assert mapped == {name: folder for folder, (name, _) in HOUSE.items()}


def test_kernels_and_the_namespace_have_no_init() -> None:
    """A second regular package `kernels` on the path would break `import transformers`."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert not (ROOT / "infllm").exists()
    for folder in ("infllm_cli", "engine", "presets"):
        assert (ROOT / folder / "__init__.py").exists()
