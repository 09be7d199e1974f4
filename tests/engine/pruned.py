"""The recorded cases of LLM-Pruner, and how to run one. See tests/data/pruning/README.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from infllm.engine.prune import PruneSettings

FOLDER = Path(__file__).parents[1] / "data" / "pruning"
CASES = {raw["name"]: raw for raw in json.loads((FOLDER / "cases.json").read_text())["cases"]}
NAMES = {
    "vectorize": "vector", "param_first": "element1", "param_mix": "element2",
    "param_second": "second", "l1": "l1", "l2": "l2",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    raw: dict[str, Any]
    arrays: dict[str, Tensor]

    @property
    def hidden(self) -> bool:
        return self.raw["config"]["mode"] == "channel"

    @property
    def settings(self) -> PruneSettings:
        told = self.raw["config"]
        blocks = not self.hidden
        return PruneSettings(
            told["ratio"], NAMES[told["criterion"]], told["reduction"],  # type: ignore[arg-type]
            "blocks" if blocks else "hidden",
            range(*told["attention_layers"]) if blocks else None,
            range(*told["mlp_layers"]) if blocks else None,
            told["global_pruning"], told["iterative_steps"],
            official=self.raw["code"] == "original",
        )  # fmt: skip

    def model(self) -> PreTrainedModel:
        return AutoModelForCausalLM.from_pretrained(
            FOLDER / self.raw["model"], dtype=torch.float32
        ).requires_grad_(False)

    @property
    def calibration(self) -> Tensor:
        return self.arrays["calibration_ids"].long()

    @property
    def questions(self) -> Tensor:
        """int64 [2, 20], what logits are recorded for."""
        return self.arrays["eval_ids"].long()

    def removed(self, group: str) -> list[int]:
        """What the published code removed of a group of that name."""
        if self.hidden:
            return self.arrays["removed_hidden"].tolist()
        kind = "heads" if group.startswith("attention") else "channels"
        found = self.arrays.get(f"removed_{kind}_{group.split()[-1]}")
        return [] if found is None else found.tolist()


def load(name: str) -> Case:
    return Case(CASES[name], load_file(FOLDER / CASES[name]["file"]))
