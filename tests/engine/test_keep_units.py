"""`keep_units`: decode steps go on seeing the units that the question's lookup chose."""

from __future__ import annotations

import pytest

from infllm.engine import attach
from infllm.engine.errors import ConfigError
from infllm.engine.policies import InfLLM
from infllm.engine.policies.lookup_scores import Lookup
from tests.engine.tiny_models import build, ids

SETTINGS = {
    "model": {
        "type": "inf-llm", "n_init": 2, "n_local": 16, "block_size": 4, "topk": 2, "repr_topk": 2,
        "exc_block_size": 8,
    },
    "chunk_size": 16,
}  # fmt: skip


def lookups(overrides: dict[str, object]) -> list[list[set[int]]]:
    """Units chosen in the first layer: by the question, then by each of four decode steps."""
    with attach(build("llama", {}), config=SETTINGS) as engine:
        session = engine.session(overrides=overrides)
        session.read(ids(120))
        session.end()
        policy = session.policies[0]
        assert isinstance(policy, InfLLM)
        policy.record = []
        session.score(ids(6, seed=1))
        session.score(ids(4, seed=2), step=True)
        seen = [x for x in policy.record if isinstance(x, Lookup)]
        return [[set(row.tolist()) for row in look.chosen[0]] for look in seen]


@pytest.mark.parametrize("perhead", [False, True])
def test_steps_see_the_questions_units_too(perhead: bool) -> None:
    question, *steps = lookups({"keep_units": True, "perhead": perhead})
    _, *published = lookups({"perhead": perhead})
    for step, plain in zip(steps, published, strict=True):
        for chosen, held, own in zip(step, question, plain, strict=True):
            assert held < chosen
            assert len(chosen) == 4
            assert len(own) == 2
    # In the first layer queries do not depend on what was attended: the step's own choice is kept.
    assert all(
        o <= c for s, p in zip(steps, published, strict=True) for c, o in zip(s, p, strict=True)
    )


def test_not_with_faiss() -> None:
    with (
        attach(build("llama", {}), config=SETTINGS) as engine,
        pytest.raises(ConfigError, match="keep_units"),
    ):
        engine.session(overrides={"faiss": True, "keep_units": True})
