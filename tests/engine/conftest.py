"""Attached models that several tests share; each session is a fresh memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.memories import Reading
from tests.engine.served import CHUNK, Served, serve
from tests.engine.tiny_models import ids


@pytest.fixture(scope="session")
def llama() -> Iterator[Served]:
    served = serve("llama")
    yield served
    served.engine.close()


@pytest.fixture(scope="session")
def qwen3() -> Iterator[Served]:
    served = serve("qwen3")
    yield served
    served.engine.close()


@pytest.fixture(scope="session")
def gemma2() -> Iterator[Served]:
    """Sliding-window layers and soft-capped logits."""
    served = serve("gemma2")
    yield served
    served.engine.close()


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Served:
    """One of the models above, named by the parameter."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def reading() -> Iterator[Reading]:
    with serve("llama", num_hidden_layers=1).engine as engine:
        yield Reading(engine, ids(13 * CHUNK))
