"""Streaming generation: greedy, sampled, stopped, broken off, and what each token attended."""

from __future__ import annotations

import pytest
import torch

from infllm.engine import Session, attach
from infllm.engine.errors import ConfigError, UnsupportedCall
from tests.engine.served import (
    CHUNK,
    POLICIES,
    SMALL_MEMORY,
    Served,
    assert_same_state,
)
from tests.engine.tiny_models import SERVED, build, ids

TEXT = ids(83)


def read(served: Served, **overrides: object) -> Session:
    session = served.session(**overrides)
    session.read(TEXT)
    return session


def generated(session: Session, n: int, **options: object) -> list[int]:
    return [token.id for token in session.generate(n, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("served", ["llama", "gemma2"], indirect=True)
def test_greedy_is_the_argmax_of_steps(served: Served, policy: str) -> None:
    got = generated(read(served, type=policy), 12)
    session = served.session(type=policy)
    logits = session.score(TEXT)[-1]
    want: list[int] = []
    while len(want) < 12 and int(logits.argmax()) not in served.engine.eos_ids:
        want.append(int(logits.argmax()))
        logits = session.score(want[-1:], step=True)[-1]
    assert got == want
    assert len(got) > 2


def test_generating_on_and_on_is_generating_at_once(llama: Served) -> None:
    session, at_once = read(llama), read(llama)
    want = generated(at_once, 9)
    assert generated(session, 4) + generated(session, 2) + generated(session, 3) == want
    assert_same_state(session, at_once)


def test_the_last_token_waits_and_begins_the_next_segment(llama: Served) -> None:
    session, reference = read(llama), read(llama)
    answer = generated(session, 5)
    assert session.stats.tokens_pending == 1
    assert session.position == len(TEXT) + 5
    reference.end()
    reference.score(answer[:-1], step=True)
    reference.read([answer[-1], *TEXT[:20]])
    session.read(TEXT[:20])
    assert_same_state(session, reference)
    assert torch.equal(session.score(TEXT[:7]), reference.score(TEXT[:7]))


def test_the_consumer_may_stop_at_any_token(llama: Served) -> None:
    session, reference = read(llama), read(llama)
    want = generated(reference, 3)
    got = []
    for token in session.generate(50):
        got.append(token.id)
        if len(got) == 3:
            break
    assert got == want
    assert_same_state(session, reference)
    assert generated(session, 3) == generated(reference, 3)


def test_a_fork_in_the_middle_of_an_answer_goes_on_with_it(llama: Served) -> None:
    want = generated(read(llama), 8)
    session = read(llama)
    tokens = session.generate(8, units=True)
    got = [next(tokens).id for _ in range(3)]
    child = session.fork()
    assert got + generated(child, 5) == want
    assert child._call is not None
    assert child._call.unit_uses == []  # nobody asked the child for its units
    assert got + [token.id for token in tokens] == want


def test_nothing_read_is_nothing_to_go_on_from(llama: Served) -> None:
    with pytest.raises(UnsupportedCall, match="nothing has been read"):
        generated(llama.session(), 3)


def test_no_tokens_asked_for_closes_the_segment_only(llama: Served) -> None:
    session, reference = read(llama), read(llama)
    assert generated(session, 0) == []
    reference.end()
    assert_same_state(session, reference)


# ---- stopping --------------------------------------------------------------------------------


def test_it_ends_before_a_stop_token(llama: Served) -> None:
    free = generated(read(llama), 8)
    stop = next(token for token in free[2:] if free.index(token) >= 2)
    session, reference = read(llama), read(llama)
    assert generated(session, 8, stop_ids=[stop, 95]) == free[: free.index(stop)]
    # The stop token is neither given nor fed; what was yielded has been.
    assert session.stats.tokens_pending == 0
    assert session.position == len(TEXT) + free.index(stop)
    reference.score(free[: free.index(stop)], step=True)
    assert_same_state(session, reference)


def test_it_ends_at_the_end_of_text(llama: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert llama.engine.eos_ids == {2}
    free = generated(read(llama), 8)
    stop = next(token for token in free[1:] if free.index(token) >= 1)
    monkeypatch.setattr(llama.engine, "eos_ids", frozenset({stop}))
    assert generated(read(llama), 8) == free[: free.index(stop)]
    session = read(llama)
    session.generate(8)
    generated(session, 8)
    assert generated(session, 8) == []  # it still wants to end


# ---- sampling --------------------------------------------------------------------------------


def test_a_seed_gives_the_same_answer_again(llama: Served) -> None:
    def draw(seed: int) -> list[int]:
        return generated(read(llama), 10, temperature=1.5, seed=seed)

    assert draw(1) == draw(1)
    assert len({tuple(draw(seed)) for seed in range(4)}) > 1


def test_no_seed_gives_other_answers(llama: Served) -> None:
    session = read(llama)
    answers = {tuple(generated(session.fork(), 10, temperature=3.0)) for _ in range(3)}
    assert len(answers) > 1


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1e-4},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 5.0, "top_p": 1e-6},
        {"temperature": 0.0, "top_k": 7, "top_p": 0.3, "seed": 5},
    ],
    ids=str,
)
def test_narrowed_to_one_token_it_is_greedy(llama: Served, options: dict[str, float]) -> None:
    assert generated(read(llama), 8, **options) == generated(read(llama), 8)


def first_tokens(session: Session, **options: object) -> set[int]:
    draws = [
        generated(session.fork(), 1, temperature=30.0, seed=seed, **options) for seed in range(60)
    ]
    return {token for draw in draws for token in draw}  # an end of text is no token


def test_top_k_draws_from_the_k_best(llama: Served) -> None:
    session = read(llama)
    best = llama.session().score(TEXT)[-1].topk(3).indices.tolist()
    session.end()
    assert first_tokens(session, top_k=3) == set(best)
    assert len(first_tokens(session, top_k=1000)) > 3


def test_top_p_draws_from_the_nucleus(llama: Served) -> None:
    session = read(llama)
    session.end()
    p = (llama.session().score(TEXT)[-1] / 30.0).softmax(-1).sort(descending=True)
    n = int((p.values.cumsum(0) < 0.3).sum()) + 1
    assert first_tokens(session, top_p=0.3) <= set(p.indices[:n].tolist())
    assert len(first_tokens(session, top_p=1.0)) > n


def test_repetition_penalty_counts_what_was_generated(llama: Served) -> None:
    penalty = 1.7
    got = generated(read(llama), 10, repetition_penalty=penalty)
    session = llama.session()
    logits = session.score(TEXT)[-1]
    want: list[int] = []
    while len(want) < len(got):
        scores = logits.clone()
        for token in set(want):
            scores[token] = (
                scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
            )
        want.append(int(scores.argmax()))
        logits = session.score(want[-1:], step=True)[-1]
    assert got == want
    assert len(set(generated(read(llama), 10, repetition_penalty=1e6))) == 10


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
    ],
)
def test_senseless_options_are_refused_by_name(
    llama: Served, options: dict[str, float], name: str
) -> None:
    session = read(llama)
    before = session.fork()
    with pytest.raises(ConfigError, match=name):
        generated(session, 3, **options)
    assert_same_state(session, before)


# ---- what a token attended -------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 1_000_000])
@pytest.mark.parametrize("perhead", [False, True])
def test_units_of_a_token_are_units_with_at_most_all_the_mass(
    llama: Served, start: int, perhead: bool
) -> None:
    session = llama.session(start, perhead=perhead)
    session.read(TEXT)
    tokens = list(session.generate(5, units=True))
    n_init, size = SMALL_MEMORY["n_init"], SMALL_MEMORY["block_size"]
    for token in tokens:
        assert token.units
        assert len({unit.start for unit in token.units}) == len(token.units)
        assert [u.mass for u in token.units] == sorted((u.mass for u in token.units), reverse=True)
        assert 0 < sum(unit.mass for unit in token.units) <= 1 + 1e-6
        for unit in token.units:
            assert unit.mass >= 0
            assert unit.stop - unit.start == size
            assert (unit.start - start - n_init) % size == 0
            assert start + n_init <= unit.start < unit.stop <= start + len(TEXT)


def test_units_are_told_only_when_asked_for(llama: Served) -> None:
    assert [token.units for token in read(llama).generate(3)] == [[], [], []]
    with_units = [token.id for token in read(llama).generate(6, units=True)]
    assert with_units == generated(read(llama), 6)


@pytest.mark.parametrize("policy", ["origin", "stream-lm"])
def test_policies_without_units_tell_none(llama: Served, policy: str) -> None:
    assert [t.units for t in read(llama, type=policy).generate(2, units=True)] == [[], []]


@pytest.mark.parametrize("place", [20, 41, 60])
def test_the_unit_with_the_match_gets_the_most_mass(place: int) -> None:
    """A model of one layer that looks for the token it reads, and hardly turns with distance."""
    model = build("llama", {**SERVED["llama"], "num_hidden_layers": 1})
    attention = model.get_decoder().layers[0].self_attn
    with torch.no_grad():
        keys = attention.k_proj.weight.view(2, 1, 16, 64)
        attention.q_proj.weight.copy_(4 * keys.expand(2, 2, 16, 64).reshape(64, 64))
    memory = {**SMALL_MEMORY, "repr_topk": 4, "distance_scale": 1e-4}
    config = {"model": memory, "chunk_size": CHUNK}
    text = ids(90, vocab=80)
    text[place] = 90
    with attach(model, config=config, check=False) as engine:
        session = engine.session()
        session.read(text)
        session.end()
        session.read([90])
        (token,) = session.generate(1, units=True)
    best = token.units[0]
    assert best.start <= place < best.stop
    assert best.mass > 0.3  # the token itself, in the window, gets as much
