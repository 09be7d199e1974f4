"""Whether a model is served, found by serving a tiny one of its architecture."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from infllm.engine.attachment import auto_class, expanded, refuse_config, text_config
from infllm.engine.engine import attach
from infllm.engine.errors import UnsupportedModel
from infllm.engine.support.tiny import build, tiny_config

Outcome = Literal["served", "limited", "refused", "unknown"]

# Everything fits: no token leaves the window.
ROOMY = {
    "model": {
        "type": "inf-llm", "n_init": 4, "n_local": 64, "block_size": 8, "topk": 4, "repr_topk": 2,
        "exc_block_size": 16,
    },
    "chunk_size": 16,
}  # fmt: skip
TOKENS = 40
CUTS = (20, 36)  # the document, a question, and decode steps
LONGEST = 160  # characters of an error that is told
TOLERANCE = 1e-4  # of the largest logit


@dataclass(frozen=True)
class Support:
    """What became of a model: `reason` says what its limits are, why it is refused, or why that
    could not be found out."""

    outcome: Outcome
    reason: str = ""


class NotServed(Exception):
    """A model was attached and did not do what it should: a fault of the engine."""


def examine_config(values: Mapping[str, Any]) -> Support:
    """Whether the model of a config.json is served: seconds, and nothing of its weights is read.

    Raises:
        NotServed: as `examine`.
    """
    kind = str(values.get("model_type"))
    if kind not in CONFIG_MAPPING:
        return Support("refused", f"transformers {transformers.__version__} has no model {kind}")
    try:
        config = CONFIG_MAPPING[kind].from_dict(dict(values))
    except Exception as error:  # of a file that anybody may have written
        return Support("unknown", f"transformers reads no config of {kind} in it: {told(error)}")
    auto = auto_class(config)
    if auto is None:
        return Support("refused", f"{kind} is no model that generates text")
    try:
        refuse_config(config, kind)
        model = _build(tiny_config(config), auto)
    except UnsupportedModel as error:
        return Support("refused", error.message)
    except Exception as error:  # a config may ask for anything, and transformers fail anyhow
        return Support("unknown", f"transformers makes no tiny {kind} of it: {told(error)}")
    return _in_full_size(examine(model), model, config, auto)


def _in_full_size(support: Support, model: Any, config: Any, auto: Any) -> Support:
    """With the bytes of the model itself where limits tell those of the tiny one."""
    small = expanded(model)
    if support.outcome != "limited" or small is None:
        return support
    with torch.device("meta"):
        full = expanded(auto.from_config(config))
    return Support("limited", support.reason.replace(str(small), str(full)))


def _build(config: Any, auto: Any) -> Any:
    """As `load_parts` does: its text model alone where other parts want what is not here."""
    try:
        return build(config, auto)
    except ImportError:
        if (text := text_config(config)) is None:
            raise
        return build(text, AutoModelForCausalLM)


def examine(model: Any) -> Support:
    """Serve a tiny model: read, fork, save, restore and step, each against its own logits.

    Raises:
        NotServed: it was attached, and one of these gave other logits.
    """
    ids = [(7 * i * i + 3 * i + 5) % (min(128, _vocabulary(model)) - 4) + 4 for i in range(TOKENS)]
    try:
        with torch.no_grad():
            stock = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    except Exception as error:
        return Support("unknown", f"a tiny {type(model).__name__} reads no text: {told(error)}")
    tolerance = max(TOLERANCE, 2 * _error(_other_way(model, ids, stock), stock))
    try:
        engine = attach(model, config=ROOMY)
    except UnsupportedModel as error:
        return Support("refused", error.message)
    with engine, tempfile.TemporaryDirectory() as folder:
        document, question = CUTS
        session = engine.session()
        session.read(ids[:document])
        session.end()
        fork = session.fork()
        path = Path(folder) / "memory"
        session.save(path)
        for name, one in (("a session", session), ("a fork", fork), ("a restored session", None)):
            one = engine.open(path) if one is None else one
            rows = torch.cat(
                [
                    one.score(ids[document:question]),
                    one.score(ids[question:], step=True),
                ]
            )
            _compare(name, rows, stock[document:], tolerance)
    limits = "; ".join(engine.attachment.limits)
    return Support("limited" if limits else "served", limits)


def _other_way(model: Any, ids: list[int], stock: Tensor) -> Tensor:
    """The model's logits by another of its own ways to add up the same numbers: how far these
    differ is how little they are determined."""
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation("sdpa" if before == "eager" else "eager")
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    except (ValueError, ImportError):
        return stock
    finally:
        model.set_attn_implementation(before)


def _vocabulary(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[0])


def _compare(name: str, got: Tensor, want: Tensor, tolerance: float) -> None:
    error = _error(got, want)
    if not error <= tolerance:
        raise NotServed(f"{name} gives other logits than the model (relative error {error:.2g})")


def _error(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


def told(error: Exception) -> str:
    """What an error says, on one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= LONGEST else f"{words[:LONGEST]} ..."
