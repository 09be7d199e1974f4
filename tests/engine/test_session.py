"""The session's own interface: read, end, score, nll, and what it refuses."""

from __future__ import annotations

import gc
from typing import Any
from weakref import ref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infllm.engine import attach
from infllm.engine.errors import ConfigError, EngineError, OutOfMemory
from infllm.engine.session import losses
from tests.engine.served import CHUNK, FEW, SMALL_MEMORY, Served, assert_same_state, pieces
from tests.engine.tiny_models import SERVED, build, ids

TEXT = ids(96)
cuts = st.lists(st.integers(0, len(TEXT)), max_size=4)


# ---- score -----------------------------------------------------------------------------------


def test_score_gives_a_row_for_every_token(llama: Served) -> None:
    session = llama.session()
    session.read(TEXT[:5])
    rows = session.score(TEXT[5:60])
    assert rows.shape == (55, 96)
    assert rows.dtype == torch.float32
    assert not rows.requires_grad
    assert session.score([]).shape == (0, 96)
    assert session.score([], step=True).shape == (0, 96)
    assert session.stats.tokens_pending == 0


def test_a_step_is_a_segment_of_one_token(llama: Served) -> None:
    session, single = llama.session(), llama.session()
    for s in (session, single):
        s.read(TEXT[:70])
        s.end()
    rows = session.score(TEXT[70:80], step=True)
    assert torch.equal(rows, torch.cat([single.score([token]) for token in TEXT[70:80]]))
    assert_same_state(session, single)


def test_end_of_an_ended_segment_changes_nothing(llama: Served) -> None:
    session = llama.session()
    session.end()
    session.read(TEXT[:40])
    session.end()
    once = session.fork()
    session.end()
    session.read([])
    assert_same_state(session, once)


def test_segments_are_looked_up_apart(llama: Served) -> None:
    """A question is not mixed with the document's tail: ending a segment does change the lookup."""
    joined, apart = llama.session(), llama.session()
    joined.read(TEXT)
    apart.read(TEXT[:83])
    apart.end()
    apart.read(TEXT[83:])
    question = ids(9, seed=4)
    assert not torch.equal(joined.score(question), apart.score(question))


# ---- nll -------------------------------------------------------------------------------------


def nll_of(session: Any, text: list[int]) -> torch.Tensor:
    return torch.cat([torch.empty(0), *session.nll(text)])


def expected_nll(rows: torch.Tensor, text: list[int]) -> torch.Tensor:
    """Of all tokens but the first, from logits [T, vocab]."""
    log_p = rows[:-1].log_softmax(-1)
    return -log_p.gather(1, torch.tensor(text[1:])[:, None])[:, 0]


@pytest.mark.parametrize("policy", ["origin", "window", "stream-lm", "infinite-lm"])
@FEW
@given(cuts=cuts)
def test_nll_of_any_cuts_is_that_of_the_scores(llama: Served, policy: str, cuts: list[int]) -> None:
    want = expected_nll(llama.session(type=policy).score(TEXT), TEXT)
    session = llama.session(type=policy)
    got = torch.cat([nll_of(session, piece) for piece in pieces(TEXT, cuts)])
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


@FEW
@given(cuts=st.lists(st.integers(0, len(TEXT) // CHUNK).map(lambda n: n * CHUNK), max_size=4))
def test_nll_of_inf_llm_is_that_of_the_scores(llama: Served, cuts: list[int]) -> None:
    """Cut at chunks: a piece that ends within one is scored by what was read until there."""
    want = expected_nll(llama.session().score(TEXT), TEXT)
    session = llama.session()
    got = torch.cat([nll_of(session, piece) for piece in pieces(TEXT, cuts)])
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_nll_has_no_entry_for_the_first_token_alone(llama: Served) -> None:
    session = llama.session()
    assert nll_of(session, TEXT[:1]).numel() == 0
    assert nll_of(session, TEXT[1:2]).numel() == 1
    assert nll_of(session, []).numel() == 0
    assert nll_of(session, TEXT[2:50]).numel() == 48
    session.end()
    assert nll_of(session, TEXT[50:]).numel() == 46


def test_nll_skips_what_waited(llama: Served) -> None:
    whole = llama.session(type="origin").score(TEXT)
    session = llama.session(type="origin")
    session.read(TEXT[:21])
    got = nll_of(session, TEXT[21:40])
    torch.testing.assert_close(got, expected_nll(whole, TEXT)[20:39], atol=1e-4, rtol=0)


def test_nll_is_float32_without_grad(llama: Served) -> None:
    for block in llama.session().nll(TEXT):
        assert block.dtype == torch.float32
        assert not block.requires_grad
        assert block.numel() <= CHUNK


def test_scoring_holds_a_bounded_block_of_logits(
    llama: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = nll_of(llama.session(), TEXT)
    sizes = []
    head = llama.engine.attachment.head

    def counted(hidden: torch.Tensor) -> torch.Tensor:
        sizes.append(hidden.shape[1])
        return head(hidden)

    monkeypatch.setattr(llama.engine.attachment, "head", counted)
    monkeypatch.setattr(losses, "LOGIT_BYTES", 4 * 96 * 5)
    torch.testing.assert_close(nll_of(llama.session(), TEXT), want, atol=1e-5, rtol=0)
    assert max(sizes) == 5
    assert llama.session().score(TEXT).shape == (96, 96)
    assert max(sizes) == 5


# ---- what is refused, and what an interruption leaves ----------------------------------------


@pytest.mark.parametrize("bad", [[96], [-1], [5, 4, 1000]])
@pytest.mark.parametrize("call", ["read", "score", "step", "nll"])
def test_ids_out_of_range_are_refused_and_change_nothing(
    llama: Served, call: str, bad: list[int]
) -> None:
    session = llama.session()
    session.read(TEXT[:21])
    before = session.fork()
    calls = {
        "read": lambda: session.read(bad),
        "score": lambda: session.score(bad),
        "step": lambda: session.score(bad, step=True),
        "nll": lambda: list(session.nll(bad)),
    }
    with pytest.raises(ConfigError, match="vocabulary of 96") as caught:
        calls[call]()
    assert caught.value.hint
    assert_same_state(session, before)
    assert session.stats.tokens_given == 21


def test_ids_may_come_as_any_iterable(llama: Served) -> None:
    plain = llama.session()
    plain.read(TEXT[:40])
    for form in (tuple(TEXT[:40]), iter(TEXT[:40]), torch.tensor(TEXT[:40])):
        session = llama.session()
        session.read(form)  # type: ignore[arg-type]
        assert_same_state(session, plain)


def test_start_must_not_be_negative(llama: Served) -> None:
    with pytest.raises(ConfigError, match="start"):
        llama.session(-1)


def test_unknown_overrides_are_refused(llama: Served) -> None:
    with pytest.raises(ConfigError, match="topkk"):
        llama.session(topkk=3)
    with pytest.raises(ConfigError, match="exc_block_size"):
        llama.session(exc_block_size=17)


class Interrupt:
    """Raises at the n-th call of the last layer."""

    def __init__(self, served: Served, error: BaseException, n: int = 1) -> None:
        self.error, self.left = error, n
        self._layer = served.engine.model.get_decoder().layers[-1]

    def _raise(self, *args: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error

    def __enter__(self) -> Interrupt:
        self._hook = self._layer.register_forward_pre_hook(self._raise)
        return self

    def __exit__(self, *exc: object) -> None:
        self._hook.remove()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a fault")], ids=repr)
def test_an_interrupted_session_refuses_to_go_on(llama: Served, error: BaseException) -> None:
    session, reference = llama.session(), llama.session()
    for s in (session, reference):
        s.read(TEXT[:37])
    spare = session.fork()
    with Interrupt(llama, error, 2), pytest.raises(type(error)):
        session.read(TEXT[37:])
    for call in (
        lambda: session.read(TEXT), session.end, lambda: session.score(TEXT),
        lambda: list(session.nll(TEXT)), lambda: list(session.generate(2)),
        lambda: session.fork().end(),
    ):  # fmt: skip
        with pytest.raises(EngineError, match="interrupted") as caught:
            call()
        assert caught.value.hint
    # A fork made before, and other sessions of the same model, are untouched.
    assert_same_state(spare, reference)
    for s in (spare, reference):
        s.read(TEXT[37:])
    assert torch.equal(spare.score(TEXT[:9]), reference.score(TEXT[:9]))


def test_a_fault_between_chunks_keeps_the_session(llama: Served) -> None:
    """A consumer's error is not an interrupted pass."""
    session, reference = llama.session(), llama.session()
    reference.read(TEXT)

    def consume() -> None:
        for _ in session.nll(TEXT[:70]):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    session.read(TEXT[70:])
    assert_same_state(session, reference)


def test_out_of_memory_is_a_typed_error_with_advice(llama: Served) -> None:
    session = llama.session()
    session.read(TEXT[:32])
    error = torch.OutOfMemoryError("tried to allocate")
    with Interrupt(llama, error), pytest.raises(OutOfMemory, match="token 32") as caught:
        session.read(TEXT[32:])
    assert "chunk_size" in caught.value.hint


def test_a_closed_engine_gives_no_answers() -> None:
    model = build("llama", SERVED["llama"])
    engine = attach(model, config={"model": SMALL_MEMORY, "chunk_size": CHUNK}, check=False)
    session = engine.session()
    session.read(TEXT)
    engine.close()
    with pytest.raises(EngineError, match="not attached"):
        session.score(TEXT)


# ---- counts ----------------------------------------------------------------------------------


def test_stats_count_units_and_seconds(llama: Served) -> None:
    session = llama.session()
    empty = session.stats
    assert (empty.units, empty.host_bytes, empty.tokens_given) == (0, 0, 0)
    session.read(TEXT)
    stats = session.stats
    # 96 tokens, less the initial ones and the window, in whole units.
    assert stats.units == (96 - 3 - 16) // 4
    assert stats.seconds_reading > 0
    assert stats.seconds_generating == 0
    list(session.generate(2))
    assert session.stats.seconds_generating > 0


def test_cache_hits_and_misses_add_up_to_the_units_attended(llama: Served) -> None:
    session = llama.session()
    policies = list(session.policies.values())
    for policy in policies:
        policy.record = []  # type: ignore[attr-defined]
    session.read(TEXT)
    looked_up = sum(
        r.chosen.shape[-1]
        for p in policies
        for r in p.record
        if hasattr(r, "chosen")  # type: ignore[attr-defined]
    )
    stats = session.stats
    assert stats.cache_hits + stats.cache_misses == looked_up
    assert stats.cache_hits > 0
    assert stats.cache_misses > 0


def test_memory_goes_with_the_session(llama: Served) -> None:
    """Not at some later time, when the interpreter looks for cycles: it may be gigabytes."""
    gc.collect()
    gc.disable()
    try:
        session = llama.session()
        session.read(ids(150))
        child = session.fork()
        list(child.generate(max_new_tokens=2))
        policy = next(iter(session.policies.values()))
        gone = [ref(x) for x in (session, child, policy, policy.units.views[0].slab)]  # type: ignore[attr-defined]
        del session, child, policy
        assert [alive() for alive in gone] == [None] * 4
    finally:
        gc.enable()
