"""Questions about the stories, and the files of memories that the tests compare."""

from pathlib import Path

from tests.cli.stories import question

HARBOUR, MEADOW = question("vague-harbor"), question("quiet-meadow")
ANSWER = "7281934"


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "reading.json"}


def kept(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.mem"))


def largest(folder: Path, kind: str) -> Path:
    return max(folder.glob(f"{kind}-*"), key=lambda path: path.stat().st_size)
