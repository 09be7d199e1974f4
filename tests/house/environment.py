"""What a Python environment holds, and what pyproject.toml asks of one.

    python -m tests.house.environment installed   # constraints.txt: what this environment holds
    python -m tests.house.environment oldest      # the oldest releases that pyproject.toml admits

Needs the standard library alone.
"""

from __future__ import annotations

import re
import sys
import sysconfig
import tomllib
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAD = """\
# Every package of the environment that the test suite runs in, by `make constraints`. A package's
# local version is left out, and triton is the one that torch's wheel for CUDA asks for.
"""
# pip comes with Python, and this is ourselves.
NOT_NAMED = {"pip", "infllm"}
# torch's wheel for CUDA asks for one release of it.
OF_TORCH = {"triton"}
FLOOR = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)")


def normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, str]:
    """Version of every package of the running environment, by normal name."""
    # Not by sys.path: ray puts packages that it carries inside itself there.
    places = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    found = {normal(one.name): one.version.split("+")[0] for one in distributions(path=places)}
    return {name: found[name] for name in sorted(found) if name not in NOT_NAMED}


def pinned(text: str) -> dict[str, str]:
    """Versions that a constraints file names, by normal name."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    pairs = (line.split("==") for line in lines if line)
    return {normal(name): version for name, version in pairs}


def requirements() -> dict[str, list[str]]:
    """Direct dependencies by extra; those of the package itself under ""."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def oldest(of: Iterable[str]) -> dict[str, str]:
    """The floors of requirements, by name as written."""
    floors = (match.groups() for line in of if (match := FLOOR.match(line)))
    return {name: version for name, version in floors if normal(name) not in OF_TORCH}


def main(what: str) -> None:
    if what == "installed":
        print(
            HEAD + "".join(f"{name}=={version}\n" for name, version in installed().items()), end=""
        )
    elif what == "oldest":
        # What the tests are run with is no part of what they are run on.
        used = [line for extra, lines in requirements().items() if extra != "dev" for line in lines]
        print("".join(f"{name}=={version}\n" for name, version in oldest(used).items()), end="")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) == 2 else "")
