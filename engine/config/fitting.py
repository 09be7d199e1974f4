"""Window, units and chunk for a model that no preset has settings for, or whose preset has none.

One rule, from the model's trained length and shape and the kind of device; free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from infllm.engine.config.device import has_cuda

WIDEST = 4096  # tokens of the window, as published
NARROWEST = 1024  # with half of it a small model answered 9 of 12 questions and not 11
# On a CPU: what attention may cost of the linear layers, in operations. Its products are thinner,
# so that it takes about twice as long for each: a third of the time of reading, at most.
ATTENTION_SHARE = 0.25
# Operations of a token's linear layers, of a model of about a billion parameters: those up to it
# answer better from a few passages next to the question. Larger ones were not measured.
SMALL = 2e9
# How far away what is far is seen at most: trained length / this. Of eight facts in 64K tokens a
# model that was trained on 32K answered 2 with all of it, 4 with a half and 6 with a quarter.
FAR_SHARE = 4


class Fitted(NamedTuple):
    """Settings by dotted key, and why the window is what it is."""

    settings: dict[str, Any]
    why: str


def trained_length(model_config: Mapping[str, Any]) -> int | None:
    """Tokens the model was pre-trained on, before any rope scaling, from its config.json."""
    text_config = model_config.get("text_config") or model_config
    for name in ("rope_parameters", "rope_scaling"):
        scaling = text_config.get(name)
        if isinstance(scaling, Mapping) and scaling.get("original_max_position_embeddings"):
            return int(scaling["original_max_position_embeddings"])
    for name in (
        "original_max_position_embeddings",
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "seq_length",
    ):
        if isinstance(text_config.get(name), int):
            return text_config[name]
    return None


def fit(model_config: Mapping[str, Any], device: str, window: int | None = None) -> Fitted | None:
    """What fits a model with this config.json on `device`: `auto`, `cpu`, `cuda` or `cuda:N`.

    The window is at most 4096 tokens and half of the trained length, as the published 4K and 8K
    configs have it. On a GPU it is that. On a CPU, where attention to it would take a small model
    longer than all else, it is the largest power of two, from 1024 tokens on, with which attention
    (initial tokens, window and units looked up) takes at most a quarter of the operations of the
    linear layers: that is the time budget. All else follows from the window (`_around`), also from
    one that was chosen: `window`. What was measured: docs/presets.md.

    Tokens stand for their units by products with queries (`repr_score: dot`), which takes a quarter
    less time than by the softmax weight they receive. Questions see what is far where it is, within
    a quarter of the trained length: few of the texts a model was trained on were as long as they
    could be, and it finds little that is so far away. Small models answer with the passages read
    back that a question finds.

    None for a model whose trained length is not told.
    """
    length = trained_length(model_config)
    if length is None:
        return None
    operations = _operations(model_config)
    fitted = _fit(length, operations, device, window)
    read_back = operations is not None and operations[0] <= SMALL
    more = {
        "model.repr_score": "dot", "model.far_position": "within",
        "model.far_limit": -(-length // FAR_SHARE), "read_back": read_back,
    }  # fmt: skip
    return Fitted(fitted.settings | more, fitted.why)


def _fit(
    length: int, operations: tuple[float, float] | None, device: str, window: int | None
) -> Fitted:
    widest = min(WIDEST, max(64, 1 << max(length // 2, 1).bit_length() - 1))
    of_length = f"half of the trained {length:,} tokens, {WIDEST:,} at most"
    on_cpu = device == "cpu" or (device == "auto" and not has_cuda())
    if window is not None:
        around = _around(window) if on_cpu else _published(window)
        return Fitted(around, "as the chosen window wants it")
    if not on_cpu or operations is None:
        return Fitted(_published(widest), of_length)
    linear, per_key = operations
    n_local = widest
    while n_local > NARROWEST and _keys(n_local) * per_key > ATTENTION_SHARE * linear:
        n_local //= 2
    share = _keys(n_local) * per_key / linear
    why = f"on a CPU, attention to it costs {share:.0%} of the linear layers"
    return Fitted(_around(n_local), of_length if n_local == widest else why)


def _published(n_local: int) -> dict[str, Any]:
    """The published proportions (n_local 4096: init 128, 16 units of 128, execution 512)."""
    exc_block_size = max(1, min(512, n_local // 2))
    return {
        "model.n_local": n_local,
        "model.n_init": min(128, n_local // 16),
        "model.block_size": max(1, min(128, n_local // 8)),
        "model.exc_block_size": exc_block_size,
        "chunk_size": 16 * exc_block_size,
    }


def _around(n_local: int) -> dict[str, Any]:
    """On a CPU: small units, so that few keys hold what is looked up, and short chunks, whose
    activations are less memory to go through and a shorter wait for Ctrl-C."""
    settings = _published(n_local)
    units = _units(n_local)
    if units is not None:
        settings |= {"model.n_init": 64, "model.topk": units[0], "model.block_size": units[1]}
    return settings | {"chunk_size": 4 * settings["model.exc_block_size"]}


def _units(n_local: int) -> tuple[int, int] | None:
    """Units that a step looks up, and their tokens; None: as published."""
    return (max(8, n_local // 128), 64) if NARROWEST <= n_local < WIDEST else None


def _keys(n_local: int) -> int:
    """Keys that a query meets once the text is long."""
    topk, block_size = _units(n_local) or (16, min(128, n_local // 8))
    return n_local + topk * block_size + min(128, n_local // 16)


def _operations(model_config: Mapping[str, Any]) -> tuple[float, float] | None:
    """Of a token: those of the linear layers, and those of attention to one key in the layers that
    keep every token; None where the config has not the keys of a decoder."""
    spec = model_config.get("text_config") or model_config
    try:
        hidden, layers = spec["hidden_size"], spec["num_hidden_layers"]
        heads = spec["num_attention_heads"]
        kv_heads = spec.get("num_key_value_heads") or heads
        head_dim = spec.get("head_dim") or hidden // heads
        inner = spec.get("moe_intermediate_size") or spec.get("intermediate_size") or 4 * hidden
        used = spec.get("num_experts_per_tok") or 1
        full = (spec.get("layer_types") or ["full_attention"] * layers).count("full_attention")
        weights = 2 * hidden * head_dim * (heads + kv_heads) + 3 * hidden * inner * used
        linear, per_key = 2.0 * layers * weights, 4.0 * full * heads * head_dim
    except (KeyError, TypeError, ZeroDivisionError):
        return None
    return (linear, per_key) if linear > 0 and per_key > 0 else None
