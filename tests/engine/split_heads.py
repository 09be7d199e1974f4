"""One process of two that hold a model's heads together; prints how far logits are from those of
the whole model. Run by tests/engine/test_many_devices.py: `python -m tests.engine.split_heads RANK
FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

from infllm.engine import Engine, attach
from infllm.engine.errors import ConfigError, UnsupportedCall
from infllm.engine.units import lookup_by_keys
from tests.engine.served import CHUNK, SMALL_MEMORY
from tests.engine.tiny_models import ids

VARIANTS: list[dict[str, Any]] = [
    {"unit_score": "representatives"},
    {"unit_score": "moments"},
    {"unit_score": "keys"},
    {"perhead": True},
    {"type": "infinite-lm", "middle_topk": 3, "middle_from_layer": 0},
    {"type": "sirllm"},
]


def logits(engine: Engine, variant: dict[str, Any]) -> Tensor:
    session = engine.session(overrides=variant)
    session.read(ids(150))
    session.end()
    question, steps = session.score(ids(9, seed=2)), session.score(ids(3, seed=3), step=True)
    return torch.cat([question, steps])


def refused(what: Any, error: type[Exception]) -> bool:
    try:
        what()
    except error:
        return True
    return False


def main(rank: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    lookup_by_keys.AS_QUICK, lookup_by_keys.SHARE = 1, 10**9
    lookup_by_keys.CANDIDATES, lookup_by_keys.OF_TOPK = 16, 4  # fewer than there are units
    plan = DistributedConfig(tp_plan="auto")
    config = {"model": SMALL_MEMORY, "chunk_size": CHUNK}
    whole = AutoModelForCausalLM.from_pretrained(folder / "model")
    part = AutoModelForCausalLM.from_pretrained(folder / "model", distributed_config=plan)
    with attach(whole, config=config) as one, attach(part, config=config) as two:
        found = {
            "heads": [one.attachment.layers[0].n_heads, two.attachment.layers[0].n_heads],
            "errors": [float((logits(one, v) - logits(two, v)).abs().max()) for v in VARIANTS],
            "hip": refused(lambda: two.session(overrides={"type": "infinitehip"}), ConfigError),
            "file": refused(lambda: two.digests, UnsupportedCall),
            "not_recorded": two.not_recorded,
        }
    print(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
