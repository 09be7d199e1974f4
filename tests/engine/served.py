"""Tiny attached models for the tests of sessions, and helpers to compare what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from torch import Tensor
from transformers import PreTrainedModel

from infllm.engine import Engine, Session, attach
from tests.engine.tiny_models import SERVED, build

POLICIES = ("inf-llm", "infinite-lm", "infinitehip", "sirllm", "stream-lm", "window", "origin")

# A memory so small that a hundred tokens fill window, initial tokens and a dozen units.
SMALL_MEMORY = {
    "type": "inf-llm", "n_init": 3, "n_local": 16, "block_size": 4, "topk": 3, "repr_topk": 2,
    "exc_block_size": 8, "max_cached_block": 6, "n_entropy": 24, "n_recent": 9,
    "unit_score": "representatives",
    "stages": [
        {"chunk": 8, "keep": 24, "query_block": 8, "query_group": 2},
        {"chunk": 2, "keep": 12, "query_block": 8},
    ],
    "refresh": [4, 2], "early_layers": [0], "prune_keys": "kv",
}  # fmt: skip
CHUNK = 16

# Ways of keeping units that change numbers.
VARIANTS: list[dict[str, Any]] = [
    {"repr_score": "dot"},
    {"repr_heads": "group"},
    {"perhead": True},
    {"chunk_topk_calc": 16},
    {"kv_dtype": "int8"},
    {"far_position": "exact"},
    {"far_position": "within", "far_limit": 40},
    {"unit_score": "keys"},
    {"unit_score": "moments"},
    {"question_topk": 5},
    {"type": "infinitehip", "prune_keys": "int8"},
    {"type": "infinitehip", "far_position": "exact", "kv_dtype": "int8"},
]

# LM-Infinite with its middle, in the second layer alone and in all; SirLLM.
MIDDLE = {"type": "infinite-lm", "middle_topk": 3, "middle_from_layer": 0}
SIBLINGS: list[dict[str, Any]] = [
    {**MIDDLE, "middle_from_layer": 1},
    {**MIDDLE, "middle_queries": "all", "middle_position": 11, "far_distance": "L"},
    {**MIDDLE, "kv_dtype": "int8"},
    {"type": "sirllm", "decay": 0.8},
    {"type": "sirllm", "score": "random", "n_init": 0},
]
VARIANTS += SIBLINGS

# Real forward passes: few examples, no time limit for each on a busy machine, no files left.
FEW = settings(
    max_examples=5, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@dataclass
class Served:
    """One attached model, and a twin that was never attached."""

    engine: Engine
    stock: PreTrainedModel

    def session(self, start: int = 0, **overrides: Any) -> Session:
        return self.engine.session(start, overrides or None)

    @torch.no_grad()
    def stock_logits(self, ids: list[int]) -> Tensor:
        """float32 [T, vocab] of the model as transformers runs it."""
        return self.stock(torch.tensor([ids])).logits[0].float()


def serve(kind: str, memory: Mapping[str, Any] | None = None, **settings: Any) -> Served:
    """`settings` change the architecture's small config, `memory` the small memory."""
    shape = {**SERVED[kind], **settings}
    config = {"model": {**SMALL_MEMORY, **(memory or {})}, "chunk_size": CHUNK}
    engine = attach(build(kind, shape), config=config, check=False)
    return Served(engine, build(kind, shape))


def fork_tree_state(session: Session) -> dict[str, Any]:
    """Everything that a session's next answers depend on, in comparable form."""
    state: dict[str, Any] = {
        "pending": list(session._pending),
        "offset": session._offset,
        "position": session.position,
        "last": session._last_logits,
    }
    if session._kept is not None:
        state |= {"numbers": session._kept.number, "surprise": session._kept.surprise}
    for index, policy in session.policies.items():
        state |= {f"{index}.{name}": value for name, value in policy.state().items()}
        units = getattr(policy, "units", None)
        if units is not None and units.n:
            pages, table = units.fetch(torch.arange(units.n)[None, None, -3:])
            state[f"{index}.last units"] = pages[table]
            state[f"{index}.unit count"] = units.n
    return state


def assert_same_state(a: Session, b: Session) -> None:
    """Bit for bit."""
    left, right = fork_tree_state(a), fork_tree_state(b)
    assert left.keys() == right.keys()
    for name, value in left.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, right[name]), name
        else:
            assert value == right[name], name


def assert_as_stock(got: Tensor, stock: Tensor) -> None:
    """Equal within float error of two ways to add up the same numbers."""
    torch.testing.assert_close(got, stock, atol=1e-4 * float(stock.abs().max()), rtol=0)


def pieces(ids: list[int], cuts: Iterable[int]) -> list[list[int]]:
    """`ids` cut at the given places; empty pieces where two cuts coincide."""
    places = [0, *sorted(cuts), len(ids)]
    return [ids[a:b] for a, b in pairwise(places)]
