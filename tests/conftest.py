"""Settings of all tests, and options that name folders outside the repository."""

import os
from pathlib import Path

# Models of the tests are tiny: a second thread only waits, and beside other work for milliseconds
# at each operation. Before torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# How long a test takes says nothing here: machines differ, and run other work beside it. The same
# examples on any day; new ones are looked for by --hypothesis-profile=explore.
settings.register_profile("tests", deadline=None, max_examples=60, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=300)
settings.load_profile("tests")

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--documents", metavar="DIR", help="documents with a MANIFEST.json")
    parser.addoption("--corpus", metavar="DIR", help="books as text files")


def _folder(config: pytest.Config, name: str) -> Path:
    """The option, else the environment, else ../shared; skips where there is none."""
    given = config.getoption(f"--{name}") or os.environ.get(f"INFLLM_TEST_{name.upper()}")
    folder = Path(given) if given else ROOT.parent / "shared" / name
    if not folder.is_dir():
        if given:
            raise pytest.UsageError(f"--{name}: {folder} is not a folder")
        pytest.skip(f"no folder of {name}: give --{name} DIR or set INFLLM_TEST_{name.upper()}")
    return folder


@pytest.fixture(scope="session")
def documents_folder(pytestconfig: pytest.Config) -> Path:
    return _folder(pytestconfig, "documents")


@pytest.fixture(scope="session")
def corpus_folder(pytestconfig: pytest.Config) -> Path:
    return _folder(pytestconfig, "corpus")
