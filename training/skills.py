"""What the model can do, measured: exact answers to planted facts, and bits per byte of books."""

import math
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from training.data import PLANTED, Sampler
from training.model import hidden_states

JSON = "json"
# Kinds of facts in tests of four; "json" are whole documents of entries.
SKILLS = (
    "passkey", "number", "magic", "multi_value", "multi_query", "attributes", "relations",
    "latest", "two_hop", "definitions", JSON,
)  # fmt: skip


@torch.no_grad()
def answer_accuracy(
    model: LlamaForCausalLM, batch_ids: np.ndarray, answers: np.ndarray, window: int | None = None
) -> tuple[float, float]:
    """Share of answers right in every token, and share of answer tokens right.

    Teacher forcing: an answer whose every token is the argmax given its prefix is exactly one
    that greedy decoding gives.
    """
    whole = right = tokens = total = 0
    for row_ids, row_answers in zip(batch_ids, answers, strict=True):
        ids = torch.from_numpy(row_ids)[None]
        positions = torch.from_numpy(np.flatnonzero(row_answers))
        hidden = hidden_states(model, ids, window)[0, positions - 1]
        hits = (model.lm_head(hidden).argmax(-1) == ids[0, positions]).numpy()
        starts = np.flatnonzero(np.diff(positions.numpy(), prepend=-9) > 1)
        groups = np.split(hits, starts[1:])
        whole += len(groups)
        right += sum(group.all() for group in groups)
        tokens += hits.sum()
        total += len(hits)
    return float(right) / max(whole, 1), float(tokens) / max(total, 1)


def skill_accuracy(
    model: LlamaForCausalLM,
    sampler: Sampler,
    skill: str,
    length: int,
    samples: int,
    seed: str = "skills",
    window: int | None = None,
) -> tuple[float, float]:
    """Answers right and answer tokens right on `samples` fresh documents of `length` tokens."""
    ids, answers = [], []
    for index in range(samples):
        rng = Random(f"{seed}-{skill}-{length}-{index}")
        if skill == JSON:
            row, mask = sampler.json_document(rng, length)
        else:
            facts = PLANTED[skill](sampler.draw(rng), 4)
            row, mask = sampler.document(rng, length, facts)
        ids.append(row)
        answers.append(mask)
    return answer_accuracy(model, np.array(ids), np.array(answers), window)


@torch.no_grad()
def bits_per_byte(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    texts: dict[str, str],
    length: int,
    samples: int,
) -> float:
    """Mean over `samples` windows of `length` tokens, evenly spread over each text."""
    nats = size = 0.0
    for text in texts.values():
        ids = tokenizer.backend_tokenizer.encode(text).ids
        starts = np.linspace(0, len(ids) - length, max(1, samples // len(texts)), dtype=int)
        for start in starts:
            window = ids[start : start + length - 1]
            row = torch.tensor([[tokenizer.bos_token_id, *window]])
            logits = model.lm_head(hidden_states(model, row)[0, :-1])
            nats += float(F.cross_entropy(logits.float(), row[0, 1:], reduction="sum"))
            size += len(tokenizer.decode(window).encode())
    return nats / math.log(2) / size
