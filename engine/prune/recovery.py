"""Bringing a pruned model back by training small matrices beside its own (LoRA), section 3.3.

As published: rank 8, alpha 16, dropout 0.05, on all seven matrices of a layer, AdamW at 1e-4. The
text is plain text and every token is predicted, where the authors took instructions and answers.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from infllm.engine.errors import ConfigError

RANK, ALPHA, DROPOUT, RATE = 8, 16, 0.05, 1e-4
LENGTH = 256  # tokens of an example
BATCH = 4  # examples of a step; 64 published, on a GPU
HELD_OUT = 8  # examples that are measured and not trained on
WARM_UP = 0.05  # of the time
MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Recovery:
    """What training did: losses in nats a token of text that was held out. `kept`: it helped."""

    before: float
    after: float
    steps: int
    tokens: int
    seconds: float
    kept: bool


def recover(
    model: PreTrainedModel,
    ids: Tensor,
    minutes: float,
    *,
    seed: int = 0,
    told: Callable[[int, float], None] = lambda steps, loss: None,
) -> tuple[Any, Recovery]:
    """The model with what was learnt from token ids int64 [n] merged into its weights.

    Weights stay as they were where the held-out loss did not fall. `told` hears of each step and
    its loss. How many steps there are depends on the machine.

    Raises ConfigError where the text is too short, ImportError without peft.
    """
    from peft import LoraConfig, get_peft_model

    examples = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)
    if len(examples) < HELD_OUT + BATCH:
        raise ConfigError(
            f"the text to recover with has {len(ids):,} tokens, too few to train on and check by",
            f"give at least {(HELD_OUT + BATCH) * LENGTH:,}",
        )
    device = next(model.parameters()).device
    spread = torch.linspace(0, len(examples) - 1, HELD_OUT).round().long()
    held_out = examples[spread].to(device)
    rest = torch.ones(len(examples), dtype=torch.bool)
    rest[spread] = False
    generator = torch.Generator().manual_seed(seed)
    began = time.monotonic()
    before = _loss(model, held_out)
    present = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, task_type="CAUSAL_LM",
        target_modules=[name for name in MATRICES if name in present],
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with warnings.catch_warnings():  # peft asks transformers by names that it gives up
            warnings.simplefilter("ignore", FutureWarning)
            adapted = get_peft_model(model, config)
        steps = _train(adapted, examples[rest], minutes * 60, generator, told)
    after = _loss(adapted, held_out)
    kept = math.isfinite(after) and after < before
    recovered: Any = adapted.merge_and_unload() if kept else adapted.unload()
    recovered.requires_grad_(False).eval()
    seconds = time.monotonic() - began
    return recovered, Recovery(before, after, steps, steps * BATCH * LENGTH, seconds, kept)


def _train(
    model: Any, examples: Tensor, seconds: float, generator: torch.Generator, told: Callable
) -> int:
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    began, steps, order = time.monotonic(), 0, torch.zeros(0, dtype=torch.int64)
    model.train()
    while (elapsed := (time.monotonic() - began) / max(seconds, 1e-9)) < 1 or steps == 0:
        if len(order) < BATCH:
            order = torch.randperm(len(examples), generator=generator)
        batch, order = examples[order[:BATCH]], order[BATCH:]
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (elapsed + 1e-3) / WARM_UP, 1.05 - min(1.0, elapsed))
        loss = 0.0
        for example in batch.to(parameters[0].device):
            part = _cross_entropy(model, example[None]) / len(batch)
            part.backward()
            loss += float(part.detach())
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
        told(steps, loss)
    model.eval()
    return steps


def _cross_entropy(model: Any, ids: Tensor) -> Tensor:
    logits = model(input_ids=ids, use_cache=False).logits.float()
    return cross_entropy(logits[0, :-1], ids[0, 1:])


def _loss(model: Any, examples: Tensor) -> float:
    with torch.no_grad():
        return sum(float(_cross_entropy(model, x[None])) for x in examples) / len(examples)
