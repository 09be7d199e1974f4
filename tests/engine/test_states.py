"""Layers that keep a state beside attention: held by the session, whatever a session can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from infllm.engine import Engine, Session, attach
from infllm.engine.support import build, tiny_config
from tests.engine.served import CHUNK, FEW, SMALL_MEMORY, assert_as_stock, pieces
from tests.engine.tiny_models import ids

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers about kernels that are not here

# A state in cache layers; beside attention in one layer; in a cache class of the model's own; in
# modules, token by token; in cache layers, token by token; with attention of one module for all.
KINDS = ("qwen3_next", "falcon_h1", "minimax", "recurrent_gemma", "jamba", "zamba2")
TEXT = ids(44, 128)
QUESTION = ids(9, 128, seed=3)


@dataclass
class Hybrid:
    kind: str
    engine: Engine
    stock: Tensor  # logits of TEXT

    def read(self, *parts: list[int]) -> Session:
        session = self.engine.session()
        for part in parts:
            session.read(part)
        return session


def made(kind: str) -> PreTrainedModel:
    return build(tiny_config(CONFIG_MAPPING[kind]()), AutoModelForCausalLM)


@pytest.fixture(scope="module", params=KINDS)
def hybrid(request: pytest.FixtureRequest) -> Iterator[Hybrid]:
    model = made(request.param)
    with torch.no_grad():
        stock = model(torch.tensor([TEXT]), use_cache=False).logits[0]
    with attach(model, config={"model": SMALL_MEMORY, "chunk_size": CHUNK}) as engine:
        yield Hybrid(request.param, engine, stock)


def states(session: Session) -> dict[str, Tensor]:
    return dict(session.states.tensors)


def assert_same_states(a: Session, b: Session) -> None:
    left, right = states(a), states(b)
    assert left.keys() == right.keys()
    assert left
    assert all(torch.equal(value, right[name]) for name, value in left.items())
    assert a.states.values == b.states.values


def test_logits_are_the_models_own_while_everything_fits(hybrid: Hybrid) -> None:
    if hybrid.kind == "zamba2" and Version(transformers.__version__) < Version("5.24"):
        pytest.skip("older releases of transformers compute zamba2 otherwise when it is cut")
    session = hybrid.engine.session(overrides={"n_local": 64})
    rows = [
        session.score(TEXT[:20]),
        session.score(TEXT[20:36]),
        session.score(TEXT[36:], step=True),
    ]
    assert_as_stock(torch.cat(rows), hybrid.stock)


@given(cuts=st.lists(st.integers(0, len(TEXT)), max_size=5))
@settings(FEW, max_examples=3)
def test_any_cut_gives_the_same_state_to_the_bit(hybrid: Hybrid, cuts: list[int]) -> None:
    whole, cut = hybrid.read(TEXT), hybrid.read(*pieces(TEXT, cuts))
    assert_same_states(whole, cut)
    assert torch.equal(whole.score(QUESTION), cut.score(QUESTION))
    assert_same_states(whole, cut)


def test_a_fork_goes_its_own_way(hybrid: Hybrid) -> None:
    session, alone = hybrid.read(TEXT), hybrid.read(TEXT)
    session.end()
    alone.end()
    fork = session.fork()
    assert_same_states(fork, session)
    fork.score(ids(20, 128, seed=5), step=True)
    assert any(not torch.equal(x, states(fork)[name]) for name, x in states(session).items())
    assert_same_states(session, alone)
    assert torch.equal(session.score(QUESTION, step=True), alone.score(QUESTION, step=True))


def test_saved_and_opened_it_goes_on_to_the_bit(hybrid: Hybrid, tmp_path: Path) -> None:
    session = hybrid.read(TEXT)
    session.save(tmp_path / "memory")
    opened = hybrid.engine.open(tmp_path / "memory", verify=True)
    assert_same_states(opened, session)
    assert torch.equal(opened.score(QUESTION), session.score(QUESTION))
    assert [t.id for t in opened.generate(5)] == [t.id for t in session.generate(5)]
    assert_same_states(opened, session)


def test_sessions_in_turns_do_not_disturb_each_other(hybrid: Hybrid) -> None:
    one, two = hybrid.engine.session(), hybrid.engine.session()
    for start in range(0, len(TEXT), CHUNK):
        one.read(TEXT[start : start + CHUNK])
        two.read(TEXT[::-1][start : start + CHUNK])
    assert_same_states(one, hybrid.read(TEXT))
    assert_same_states(two, hybrid.read(TEXT[::-1]))


def test_the_same_text_far_on_gives_the_same_logits(hybrid: Hybrid) -> None:
    here, far = hybrid.engine.session(), hybrid.engine.session(start=10_000_000)
    assert torch.equal(here.score(TEXT), far.score(TEXT))


def test_generate_of_transformers_goes_on_from_a_session(hybrid: Hybrid) -> None:
    session, own = hybrid.read(TEXT), hybrid.read(TEXT)
    session.end()
    own.end()
    full = torch.ones(1, len(TEXT) + len(QUESTION), dtype=torch.int64)
    out = hybrid.engine.model.generate(
        torch.tensor([QUESTION]), cache=session.cache, attention_mask=full, max_new_tokens=5,
        do_sample=False, pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    own.read(QUESTION)
    tokens = []
    for token in own.generate(5, stop_ids=()):
        tokens.append(token.id)
    assert out[0, len(QUESTION) :].tolist()[: len(tokens)] == tokens


def test_what_they_take_is_counted_and_steps_are_not_recorded(hybrid: Hybrid) -> None:
    session = hybrid.read(TEXT)
    size = sum(x.nbytes for x in states(session).values())
    assert size == hybrid.engine.attachment.state_bytes > 0
    assert session.stats.device_bytes >= size
    assert hybrid.engine.estimate(100).device_bytes > size
    assert "state" in (hybrid.engine.not_recorded or "")
    hybrid.engine.record = lambda run: run  # type: ignore[assignment, return-value]
    session.score(QUESTION, step=True)
    assert not session.replays_steps
    hybrid.engine.record = None


@pytest.mark.parametrize("kind", KINDS)
def test_closing_leaves_the_model_as_it_was(kind: str) -> None:
    model = made(kind)
    with torch.no_grad():
        before = model(torch.tensor([TEXT])).logits
        own = model.generate(torch.tensor([TEXT]), max_new_tokens=3, do_sample=False)
    names = {name: set(vars(module)) for name, module in model.named_modules()}
    with attach(model, config={"model": SMALL_MEMORY, "chunk_size": CHUNK}) as engine:
        session = engine.session()
        session.read(TEXT)
        list(session.generate(3))
    assert names == {name: set(vars(module)) for name, module in model.named_modules()}
    with torch.no_grad():
        assert torch.equal(model(torch.tensor([TEXT])).logits, before)
        assert torch.equal(
            model.generate(torch.tensor([TEXT]), max_new_tokens=3, do_sample=False), own
        )
