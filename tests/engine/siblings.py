"""The recorded cases of sibling methods, and how to run one. See tests/data/siblings/README.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from infllm.engine.attachment import Layer, Rotary
from infllm.kernels.rotate import Rope

FOLDER = Path(__file__).parents[1] / "data" / "siblings"
CASES = {raw["name"]: raw for raw in json.loads((FOLDER / "cases.json").read_text())["cases"]}


@dataclass(frozen=True)
class Case:
    raw: dict[str, Any]
    arrays: dict[str, Tensor]

    @property
    def config(self) -> dict[str, Any]:
        return self.raw["config"]

    @property
    def calls(self) -> list[slice]:
        """Spans of the tokens that each call, or turn, brought."""
        runs = self.raw.get("pieces") or self.raw["turns"]
        spans, start = [], 0
        for run in runs:
            length, count = run if isinstance(run, list) else (run, 1)
            for _ in range(count):
                spans.append(slice(start, start + length))
                start += length
        return spans

    def qkv(self) -> tuple[Tensor, Tensor, Tensor]:
        inputs = load_file(FOLDER / self.raw["inputs"])
        return inputs["q"], inputs["k"], inputs["v"]

    def layer(self) -> Layer:
        """One that rotates as the recorded attention did."""
        q, k, _ = self.qkv()
        d = q.shape[3]
        freq = self.raw["theta"] ** (-torch.arange(d // 2, dtype=torch.float64) / (d // 2))
        rotary = Rotary(Rope(freq))
        return Layer(0, q.shape[1], k.shape[1], d, torch.device("cpu"), torch.float32, rotary)

    def model(self, **config: Any) -> PreTrainedModel:
        folder = FOLDER / self.raw["model"]
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **config)


def names(system: str, level: str) -> list[str]:
    return [n for n, raw in CASES.items() if (raw["system"], raw["level"]) == (system, level)]


def load(name: str) -> Case:
    return Case(CASES[name], load_file(FOLDER / CASES[name]["file"]))
