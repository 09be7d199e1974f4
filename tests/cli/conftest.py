"""The command line run in this process, with a scripted engine."""

import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.fakes import Fakes
from tests.cli.memories import ANSWER
from tests.cli.stories import fact, story


@dataclass(frozen=True)
class Result:
    """Exit status and what was written, times and sizes in `err` replaced by letters."""

    code: int
    out: str
    raw_err: str

    @property
    def err(self) -> str:
        text = re.sub(r"\d[\d,.]* (s|min|h)\b", "T", self.raw_err)
        text = re.sub(r"\d[\d,.]* tok/s", "R tok/s", text)
        return re.sub(r"\d[\d.]* [kMG]B", "M", text)


@pytest.fixture(autouse=True)
def quiet_surroundings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """No settings of this machine: an empty folder, no variables, no user file."""
    import os

    for name in list(os.environ):
        if name.startswith("INFLLM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("INFLLM_CACHE_MAX", "0")
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1" if name != "TRANSFORMERS_VERBOSITY" else "error")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    own = tmp_path_factory.mktemp("user")  # not where tests read folders
    monkeypatch.setenv("XDG_CACHE_HOME", str(own / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(own / "state"))
    told = own / "state" / "infllm" / "told.json"
    told.parent.mkdir(parents=True)
    told.write_text('{"pocket": true}')  # what a new user is told, once
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    with warnings.catch_warnings():
        yield


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return Fakes(monkeypatch)


@pytest.fixture(scope="session")
def pocket_parts() -> tuple[Any, Any]:
    """Model and tokenizer of the built-in preset, loaded once."""
    from infllm.cli.opening import quiet_libraries
    from infllm.cli.output import Output

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS"):
            patch.setenv(name, "1" if name != "TRANSFORMERS_VERBOSITY" else "error")
        quiet_libraries(Output("ask"))
        from infllm.engine import load
        from infllm.engine.config import load_config

        engine = load(load_config("pocket", {}, environ={}))
        engine.close()
        return engine.model, engine.tokenizer


@pytest.fixture
def pocket(monkeypatch: pytest.MonkeyPatch, pocket_parts: tuple[Any, Any]) -> Iterator[list[Any]]:
    """The real engine around the built-in model; gives the engines that were made."""
    import infllm.engine
    from infllm.engine import Engine

    engines: list[Any] = []

    def load(config: Any) -> Any:
        for engine in engines:  # a command that failed may have left it
            engine.close()
        engines.append(Engine(*pocket_parts, config, check=False))
        return engines[-1]

    monkeypatch.setitem(vars(infllm.engine), "load", load)
    yield engines
    for engine in engines:
        engine.close()


@pytest.fixture
def infllm(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`infllm("ask", "book.txt", "q")` as a Result."""
    from infllm.cli.main import run

    def call(*arguments: Any) -> Result:
        capfd.readouterr()
        code = run([str(part) for part in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def harbour(infllm: Callable[..., Result], pocket: list[Any], shelf: Path, tmp_path: Path) -> Path:
    """A memory of harbour.txt, which tells the number of vague-harbor; it is read once."""
    kept = shelf / "harbour.mem"
    if not kept.exists():
        text = shelf / "harbour.txt"
        text.write_text(story(80, fact("vague-harbor", ANSWER)))
        made = infllm("index", text, "-o", kept)
        assert made.code == 0, made.raw_err
    return Path(shutil.copytree(kept, tmp_path / "harbour.mem"))


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A short text of 1,204 words that hides a pass key in the middle."""
    filler = "The grass is green. The sky is blue. " * 75
    path = tmp_path / "book.txt"
    path.write_text(f"{filler}The pass key is 12345. {filler}".rstrip() + "\n" * 1)
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A story that tells the number of vague-harbor."""
    path = tmp_path / "text.txt"
    path.write_text(story(60, fact("vague-harbor", ANSWER)))
    return path


@pytest.fixture
def sequel(tmp_path: Path) -> Path:
    """A story that tells the number of quiet-meadow."""
    path = tmp_path / "sequel.txt"
    path.write_text(story(50, fact("quiet-meadow", "5510362"), seed=1))
    return path


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache that keeps what has a thousand tokens or less, for the tests' sake."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("INFLLM_CACHE_DIR", str(folder))
    monkeypatch.setenv("INFLLM_CACHE_MAX", "1GB")
    monkeypatch.setattr("infllm.cli.remember.LEAST_KEPT", 500)
    return folder
