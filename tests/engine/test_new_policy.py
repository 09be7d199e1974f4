"""A policy of one's own, written as CONTRIBUTING.md says: every n-th unit, whatever is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from infllm.engine.policies import POLICIES, InfLLM
from infllm.kernels.partial_attention import Part
from tests.engine.served import SMALL_MEMORY, Served, assert_as_stock, assert_same_state, serve
from tests.engine.tiny_models import ids


class EveryNth(InfLLM):
    """The newest of every n-th memory unit: what a look-up is worth, one learns beside this."""

    stride = 3

    def look_up(self, start: int, stop: int, beside: list[Part]) -> Tensor | None:
        assert self.units is not None
        chosen = torch.arange(0, self.units.n, self.stride, device=self.layer.device)
        chosen = chosen[-self.config.topk :]
        return chosen.expand(self.units.batch, 1, -1) if len(chosen) else None


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setitem(POLICIES, "inf-llm", EveryNth)
    served = serve("llama")
    yield served
    served.engine.close()


def test_within_the_window_it_is_the_model_itself(served: Served) -> None:
    text = ids(SMALL_MEMORY["n_local"])
    assert_as_stock(served.session().score(text), served.stock_logits(text))


def test_it_attends_every_third_unit_and_no_more_than_topk(served: Served) -> None:
    session = served.session()
    session.read(ids(150))
    (token,) = session.generate(max_new_tokens=1, units=True)
    size, first = SMALL_MEMORY["block_size"], SMALL_MEMORY["n_init"]
    numbers = sorted((unit.start - first) // size for unit in token.units)
    every = list(range(0, session.stats.units, EveryNth.stride))
    assert len(every) > SMALL_MEMORY["topk"]
    assert numbers == every[-SMALL_MEMORY["topk"] :]


def test_any_cut_of_the_text_gives_the_same_state(served: Served) -> None:
    whole, pieces = served.session(), served.session()
    text = ids(150)
    whole.read(text)
    for start in range(0, len(text), 7):
        pieces.read(text[start : start + 7])
    assert_same_state(whole, pieces)


def test_what_is_saved_answers_the_same(served: Served, tmp_path: Path) -> None:
    session = served.session()
    session.read(ids(150))
    session.save(tmp_path / "memory")
    opened = served.engine.open(tmp_path / "memory")
    answers = [[t.id for t in s.generate(max_new_tokens=8, stop_ids=())] for s in (session, opened)]
    assert answers[0] == answers[1]
