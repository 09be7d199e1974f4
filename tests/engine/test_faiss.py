"""The FAISS lookup chooses what the matrix product chooses."""

from __future__ import annotations

import pytest
import torch

from infllm.engine import attach
from infllm.engine.errors import ConfigError
from tests.engine.tiny_models import build, ids

SETTINGS = {
    "model": {
        "type": "inf-llm", "n_init": 2, "n_local": 16, "block_size": 4, "topk": 2, "repr_topk": 2,
        "exc_block_size": 8,
    },
    "chunk_size": 16,
}  # fmt: skip


@pytest.mark.parametrize("extra", [{}, {"chunk_topk_calc": 16}, {"repr_heads": "group"}])
def test_same_logits_as_without(extra: dict[str, object]) -> None:
    tokens = ids(150)
    with attach(build("llama", {}), config=SETTINGS) as engine:
        plain = engine.session(overrides={"unit_score": "representatives", **extra})
        faiss = engine.session(overrides={"faiss": True, **extra})
        for session in (plain, faiss):
            session.read(tokens[:100])
            session.end()
        fork = faiss.fork()
        expected = plain.score(tokens[100:])
        assert torch.equal(faiss.score(tokens[100:]), expected)
        assert torch.equal(fork.score(tokens[100:]), expected)


def test_not_with_perhead() -> None:
    with (
        attach(build("llama", {}), config=SETTINGS) as engine,
        pytest.raises(ConfigError, match="perhead"),
    ):
        engine.session(overrides={"faiss": True, "perhead": True})
