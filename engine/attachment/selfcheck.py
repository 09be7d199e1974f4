"""A last check at attachment: with everything in the window, the engine must not change a logit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from infllm.engine.attachment.devices import home
from infllm.engine.attachment.refusals import faults_named
from infllm.engine.errors import UnsupportedModel

CUTS = (9, 6, 1)  # tokens of each segment of the engine's run
TOLERANCE = {torch.float32: 5e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}  # relative RMS


def expected_logits(model: Any) -> Tensor:
    """Logits [T, vocab] of the model as it stands, on a fixed short input."""
    with torch.no_grad():
        return model(input_ids=_ids(model), use_cache=False).logits[0].float()


def compare(model: Any, score: Callable[[list[int]], Tensor], expected: Tensor) -> None:
    """Give the same input to `score`, the attached model's full attention, in several segments.

    Raises:
        UnsupportedModel: the logits differ, so something in the model is not served.
    """
    ids = _ids(model)[0].tolist()
    rows, start = [], 0
    with faults_named(model):
        for n in CUTS:
            rows.append(score(ids[start : start + n]))
            start += n
    got = torch.cat(rows)
    error = (got - expected).pow(2).mean().sqrt() / expected.pow(2).mean().sqrt().clamp_min(1e-6)
    limit = TOLERANCE.get(next(model.parameters()).dtype, 1e-1)
    if not bool(error <= limit):
        raise UnsupportedModel(
            f"attached, {type(model).__name__} gives other logits than before "
            f"(relative error {float(error):.3g}): part of its attention is not served"
        )


def _ids(model: Any) -> Tensor:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    return (torch.arange(sum(CUTS), device=home(model)) * 13 + 5)[None] % vocabulary
