"""Work that a model has to do, counted from its config: operations of reading, bytes of decoding.

Divided by what a device can do in a second they are floors: no run is faster. Free of torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infllm.engine.config import most_attended, pruning_of


@dataclass(frozen=True)
class Work:
    """Floating-point operations, by what they are for."""

    linear: float  # products with weights
    attention: float  # q.k and weight.v over the keys that queries meet
    mass: float  # the second pass that representative scores by `mass` take
    scoring: float  # lookups: mean queries against the representatives, or queries against keys

    @property
    def total(self) -> float:
        return self.linear + self.attention + self.mass + self.scoring


@dataclass(frozen=True)
class Parameters:
    """Weights of a model, by what reads them."""

    embedding: int  # looked up by row, not multiplied
    head: int  # multiplied where logits are wanted; counted also where it is the embedding, tied
    layers: int
    active: int  # of the layers', those that one token meets: fewer with experts
    stored: int  # all, each once


def parameters(spec: dict[str, Any], shapes: Sequence[Any]) -> Parameters:
    """Weights of a model with `spec` as its config.json and layers of `shapes`; norms left out.

    A shape has `n_heads`, `n_kv_heads` and `head_dim`.
    """
    hidden = spec["hidden_size"]
    inner = spec.get("intermediate_size") or 4 * hidden
    of_layers = (spec.get("pruned") or {}).get("channels") or [inner] * len(shapes)
    used = spec.get("num_experts_per_tok") or 1
    experts = spec.get("num_local_experts") or spec.get("num_experts") or 1
    mlp = 3 * hidden * sum(of_layers)
    attention = sum(2 * hidden * s.head_dim * (s.n_heads + s.n_kv_heads) for s in shapes)
    layers = attention + experts * mlp
    active = attention + used * mlp
    embedding = spec["vocab_size"] * hidden
    tied = bool(spec.get("tie_word_embeddings"))
    return Parameters(embedding, embedding, layers, active, layers + embedding * (2 - tied))


def reading_work(spec: dict[str, Any], shapes: Sequence[Any], settings: Any, tokens: int) -> Work:
    """Operations of reading `tokens` tokens; no logits but the last token's.

    `settings`: the `model:` section. A shape has `sliding_window` too.
    """
    attention = mass = scoring = 0.0
    for shape in shapes:
        width = shape.n_heads * shape.head_dim
        attention += 4.0 * tokens * width * mean_keys(settings, shape, tokens)
        if settings.type == "inf-llm" and shape.sliding_window is None:
            if settings.repr_score == "mass":
                mass += 2.0 * tokens * width * _mean(tokens, settings.n_local)
            heads = shape.n_kv_heads if settings.repr_heads == "group" else shape.n_heads
            lookups = tokens / settings.exc_block_size
            units = tokens / settings.block_size / 2  # on average over the reading
            scoring += 2.0 * lookups * units * heads * shape.head_dim
        if _has_middle(settings, shape):
            asking = tokens if settings.middle_queries == "all" else 1
            scoring += 2.0 * asking * width * (tokens / 2 if asking > 1 else tokens)
        if settings.type == "infinitehip" and shape.sliding_window is None:
            for stage, probes in _probes(settings, tokens / 2):
                means = tokens / stage.query_group  # each meets all probes of its block
                scoring += 2.0 * means * probes * width
    weights = parameters(spec, shapes)
    linear = 2.0 * tokens * weights.active
    if settings.type == "sirllm" and settings.score == "entropy":
        linear += 2.0 * tokens * weights.head  # the surprise of every token
    return Work(linear, attention, mass, scoring)


def mean_keys(settings: Any, shape: Any, tokens: int) -> float:
    """Keys that a query meets, on average over a reading of `tokens` tokens."""
    if shape.sliding_window is not None:
        return _mean(tokens, shape.sliding_window)
    if settings.type == "origin":
        return tokens / 2
    return _mean(tokens, most_keys(settings, settings.topk))


def most_keys(settings: Any, topk: int) -> int:
    """Keys that a query meets once the text is long, initial ones and `topk` units included."""
    if settings.type == "window":
        return settings.n_local
    if settings.type == "sirllm":
        return settings.n_init + settings.n_entropy + settings.n_recent
    keys = settings.n_init + settings.n_local
    if settings.type == "inf-llm":
        keys += topk * settings.block_size
    if settings.type == "infinitehip":
        keys += most_attended(settings)
    return keys


def _has_middle(settings: Any, shape: Any) -> bool:
    of_all = settings.type == "infinite-lm" and shape.sliding_window is None
    return of_all and settings.has_middle(shape.index)


def _probes(settings: Any, tokens: float) -> list[tuple[Any, float]]:
    """The stages of pruning, and the keys that one head looks at in each, `tokens` behind it."""
    found, kept = [], tokens
    for stage in pruning_of(settings, max(settings.early_layers, default=-1) + 1):
        found.append((stage, 2.0 * stage.chunk.bit_length() * min(kept, tokens) / stage.chunk))
        kept = stage.kept_tokens
    return found


def _mean(tokens: int, most: int) -> float:
    """Mean of min(t, most) over t = 0 to tokens."""
    return tokens / 2 if tokens <= most else most - most**2 / (2 * tokens)


def decode_bytes(
    spec: dict[str, Any], shapes: Sequence[Any], settings: Any, tokens: int, itemsize: int
) -> float:
    """Bytes that one decode step reads after `tokens` tokens: weights, keys and values, index.

    `itemsize`: bytes of a weight, and of a key on the device.
    """
    weights = parameters(spec, shapes)
    total = float((weights.active + weights.head) * itemsize)
    for shape in shapes:
        keys = tokens
        if shape.sliding_window is not None:
            keys = min(tokens, shape.sliding_window)
        elif settings.type != "origin":
            keys = min(tokens, most_keys(settings, settings.short_topk))
        total += 2.0 * keys * shape.n_kv_heads * shape.head_dim * itemsize
        if settings.type == "inf-llm" and shape.sliding_window is None:
            heads = shape.n_kv_heads if settings.repr_heads == "group" else shape.n_heads
            units = max(0, tokens - settings.n_local - settings.n_init) // settings.block_size
            total += float(units * heads * shape.head_dim * itemsize)
        if _has_middle(settings, shape):  # all keys are compared, and a few of them attended
            total += float(tokens * shape.n_kv_heads * shape.head_dim * itemsize)
        if settings.type == "infinitehip" and shape.sliding_window is None:
            looks = sum(n / stage.refresh for stage, n in _probes(settings, tokens))
            total += looks * shape.n_heads * shape.head_dim * itemsize
    return total
