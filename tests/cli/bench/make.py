"""Folders of results, made by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def record(id: str, *scores: float, **fields: Any) -> dict[str, Any]:
    """A sample's line with one turn for each score."""
    return {
        "id": id,
        "meta": {},
        "tokens_given": 100,
        "tokens_read": 100,
        "tokens_truncated": 0,
        "answers": ["yes"] * len(scores),
        "references": [["yes"]] * len(scores),
        "scores": list(scores),
        "finish": ["stop"] * len(scores),
        **fields,
    }


def failed(id: str, why: str, where: str = "") -> dict[str, Any]:
    """The line of a sample that has no score."""
    return {"id": id, "meta": {}, "failed": why, **({"where": where} if where else {})}


def results(
    folder: Path,
    files: Mapping[str, Sequence[Mapping[str, Any]]],
    **manifest: Any,
) -> Path:
    """A folder with `{"inf-llm/ruler.vt": records}` and a manifest of these tasks."""
    for name, records in files.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in records))
    tasks = {name.partition("/")[2].replace(".", ":", 1) for name in files}
    task = {"version": 1, "definition": "d" * 64, "data": {}}
    fields = {"format": 1, "preset": "pocket", "seed": 0, "scoring": "corrected"}
    fields |= {"tasks": dict.fromkeys(sorted(tasks), task), **manifest}
    (folder / "manifest.json").write_text(json.dumps(fields))
    return folder
