"""The recorded cases of the published code, and how to run one. See tests/data/golden/README.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from infllm.engine.config import ModelConfig

FOLDER = Path(__file__).parents[1] / "data" / "golden"


@dataclass(frozen=True)
class Case:
    name: str
    level: str
    source: str
    config: ModelConfig
    pieces: list[tuple[int, int]]  # (length, count) of the calls, in order
    arrays: dict[str, torch.Tensor]

    @property
    def calls(self) -> list[slice]:
        """Spans of the tokens that each call brought."""
        spans, start = [], 0
        for length, count in self.pieces:
            for _ in range(count):
                spans.append(slice(start, start + length))
                start += length
        return spans


def names(level: str) -> list[str]:
    """Cases that are a target: those of the published code's defect are not."""
    return [raw["name"] for raw in _raw() if raw["level"] == level and raw["offset"] != "original"]


def load(name: str) -> Case:
    raw = next(raw for raw in _raw() if raw["name"] == name)
    settings = {key: value for key, value in raw["config"].items() if value is not None}
    settings |= {"distance_scale": raw["distance_scale"], "kv_dtype": "fp32"}
    settings["unit_score"] = "representatives"
    return Case(
        name=name,
        level=raw["level"],
        source=raw["source"],
        config=ModelConfig(type=raw["attn_type"], **settings),
        pieces=[tuple(piece) for piece in raw["pieces"]],
        arrays=load_file(FOLDER / raw["file"]),
    )


def _raw() -> list[dict[str, Any]]:
    return json.loads((FOLDER / "cases.json").read_text())["cases"]
