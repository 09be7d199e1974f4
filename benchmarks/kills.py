"""What the benchmarks that kill a command share: the command, its files, the report."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any


def parser(description: str | None) -> argparse.ArgumentParser:
    """Flags of both: how often to kill, the seed of the moments, where the report goes."""
    flags = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    flags.add_argument("--times", type=int, default=10)
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--output", type=Path)
    return flags


def infllm(*arguments: str) -> list[str]:
    """The command `infllm`, run by this Python."""
    return [sys.executable, "-c", "from infllm.cli.main import main; main()", *arguments]


def contents(folder: Path, no_part: Collection[str]) -> dict[str, str]:
    """Name and SHA-256 of every file below a folder, less those of the names in `no_part`."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in no_part
    }


def tell(run: dict[str, Any]) -> None:
    print(json.dumps(run), file=sys.stderr, flush=True)


def write_report(report: dict[str, Any], output: Path | None) -> None:
    """Write and print the whole report."""
    if output:
        output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
