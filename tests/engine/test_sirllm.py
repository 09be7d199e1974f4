"""SirLLM: what it keeps, by its definition; surprise while reading and answering; its limits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infllm.engine import Session
from infllm.engine.config import ModelConfig, load_config
from infllm.engine.errors import ConfigError, EngineError, OutOfMemory, UnsupportedCall
from infllm.engine.policies import KeptTokens, random_scores
from tests.engine.served import CHUNK, SMALL_MEMORY, Served, assert_same_state
from tests.engine.tiny_models import ids

TEXT = ids(96)
SIR = {"type": "sirllm"}
ROOM = SMALL_MEMORY["n_entropy"] + SMALL_MEMORY["n_recent"]


def read(served: Served, **overrides: Any) -> Session:
    session = served.session(**SIR, **overrides)
    session.read(TEXT)
    return session


# ---- what is kept -------------------------------------------------------------------------------


def stays(e: list[float], n_init: int, n_entropy: int, n_recent: int, m: int) -> list[int]:
    """The published rule in plain loops: places in the cache, oldest first."""
    left = n_init + n_entropy + n_recent - m
    if len(e) <= left:
        return list(range(len(e)))
    kept = set(range(min(n_init, len(e))))
    ranked = sorted(range(len(e)), key=lambda i: (-e[i], i))
    kept |= set(ranked[: max(n_entropy - m, 0)])
    newest = len(e) - 1
    while len(kept) < left:
        kept.add(newest)
        newest -= 1
    return sorted(kept)


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(
    n_init=st.integers(0, 4), n_entropy=st.integers(0, 9), n_recent=st.integers(0, 7),
    decay=st.sampled_from([1.0, 0.7, 0.0]), data=st.data(),
)  # fmt: skip
def test_what_is_kept_is_the_published_rule(
    n_init: int, n_entropy: int, n_recent: int, decay: float, data: st.DataObject
) -> None:
    room = n_entropy + n_recent
    if room == 0:
        return
    cfg = ModelConfig(**SIR, n_init=n_init, n_entropy=n_entropy, n_recent=n_recent, decay=decay)
    kept, numbers, e, count = KeptTokens.none(), [], [], 0
    for m in data.draw(st.lists(st.integers(1, room), max_size=9)):
        kept, places = kept.make_room(cfg, m)
        want = stays(e, n_init, n_entropy, n_recent, m)
        assert (list(range(len(e))) if places is None else places.tolist()) == want
        numbers, e = [numbers[i] for i in want], [decay * e[i] for i in want]
        assert kept.number.tolist() == numbers
        assert kept.surprise.tolist() == pytest.approx(e)
        # Few values, so that there are ties.
        new = [float(x) for x in data.draw(st.lists(st.integers(0, 3), min_size=m, max_size=m))]
        kept = kept.append(count, torch.tensor(new))
        numbers, e = [*numbers, *range(count, count + m)], kept.surprise.tolist()
        count += m
        assert len(e) <= n_init + room


def test_from_a_full_memory_each_step_evicts_one(llama: Served) -> None:
    session = read(llama)
    session.end()
    session.score(ids(40, seed=2), step=True)
    assert session._kept is not None
    before = session._kept
    assert len(before.number) == SMALL_MEMORY["n_init"] + ROOM
    session.score([5], step=True)
    gone = set(before.number.tolist()) - set(session._kept.number.tolist())
    assert len(gone) == 1
    assert session.policies[0].device_bytes == read(llama).policies[0].device_bytes


def test_all_layers_keep_the_tokens_of_the_list(llama: Served) -> None:
    """And tell which they are."""
    session = read(llama)
    assert session._kept is not None
    held = {policy.k.shape[2] for policy in session.policies.values()}  # type: ignore[attr-defined]
    assert held == {len(session._kept.number)}
    in_sight = [i for start, stop in session.in_sight() for i in range(start, stop)]
    assert in_sight == session._kept.number.tolist()
    assert len(session.in_sight()) > 2
    far = llama.session(1000, **SIR)
    far.read(TEXT)
    assert [(a - 1000, b - 1000) for a, b in far.in_sight()] == session.in_sight()


# ---- surprise -----------------------------------------------------------------------------------


def test_surprise_is_the_models_own_loss(llama: Served) -> None:
    """Across chunks, segments and steps: of every token but the first."""
    session, losses = llama.session(**SIR, n_recent=200), llama.session(**SIR, n_recent=200)
    session.read(TEXT[:50])
    session.end()
    session.score(TEXT[50:60])
    session.score(TEXT[60:64], step=True)
    reference = torch.cat([*losses.nll(TEXT[:50])])
    losses.end()
    rows = losses.score(TEXT[50:60])
    before = torch.cat([torch.zeros(1, rows.shape[1]), rows[:-1]])
    more = torch.nn.functional.cross_entropy(
        before[1:], torch.tensor(TEXT[51:60]), reduction="none"
    )
    assert session._kept is not None
    got = session._kept.surprise
    torch.testing.assert_close(got[1:50], reference, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got[51:60], more, atol=1e-4, rtol=1e-4)
    assert got[0] == got[:CHUNK].max()
    assert (got[60:] > 0).all()


def test_the_head_runs_for_every_token_only_where_it_is_asked_for(
    llama: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    head = llama.engine.attachment.head

    def counted(hidden: torch.Tensor) -> torch.Tensor:
        rows.append(hidden.shape[1])
        return head(hidden)

    monkeypatch.setattr(llama.engine.attachment, "head", counted)
    for policy in ("inf-llm", "stream-lm", "origin"):
        llama.session(type=policy).read(TEXT)
    read(llama, score="random")
    assert rows == []
    read(llama)
    once = len(TEXT) - len(TEXT) // CHUNK  # of each chunk's last there are logits
    assert sum(rows) == once
    rows.clear()
    for _ in llama.session(**SIR).nll(TEXT):
        pass
    assert sum(rows) == once


@pytest.mark.parametrize("cut", [0, 5, CHUNK, 2 * CHUNK + 3])
def test_losses_are_those_of_scoring(llama: Served, cut: int) -> None:
    """Also after tokens that waited, which are not scored."""
    session, reference = llama.session(**SIR), llama.session(**SIR)
    session.read(TEXT[:cut])
    got = torch.cat([*session.nll(TEXT[cut:])])
    rows = reference.score(TEXT)
    want = torch.nn.functional.cross_entropy(rows[:-1], torch.tensor(TEXT[1:]), reduction="none")
    torch.testing.assert_close(got, want[max(0, cut - 1) :], atol=1e-5, rtol=1e-5)


def test_an_answer_does_not_age_what_was_read(llama: Served) -> None:
    """Tokens of the model's own belong to the turn that they answer; given ones are turns."""
    answered, given_ones = (read(llama, decay=0.5, n_recent=200) for _ in range(2))
    answer = [token.id for token in answered.generate(6, stop_ids=())]
    given_ones.end()
    assert answered._kept is not None
    assert given_ones._kept is not None
    before = given_ones._kept.surprise
    torch.testing.assert_close(answered._kept.surprise[: len(before)], before)
    given_ones.score(answer[:-1], step=True)
    torch.testing.assert_close(given_ones._kept.surprise[: len(before)], before * 0.5**5)


def test_a_pass_without_its_surprise_is_no_pass(
    llama: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layers would keep tokens that the list does not know."""
    session, untouched = read(llama), read(llama)

    def full(hidden: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    with monkeypatch.context() as patch:
        patch.setattr(llama.engine.attachment, "head", full)
        with pytest.raises(OutOfMemory):
            session.score(TEXT[:9])
    with pytest.raises(EngineError, match="cannot go on"):
        session.score(TEXT[:9])
    assert untouched.score(TEXT[:9]).shape[0] == 9


# ---- the baseline by chance ---------------------------------------------------------------------


@settings(max_examples=50, deadline=None, database=None, derandomize=True)
@given(cuts=st.lists(st.integers(0, 60), max_size=5), seed=st.integers(0, 2**31))
def test_chance_is_drawn_once_a_token(cuts: list[int], seed: int) -> None:
    whole = random_scores(seed, 0, 60)
    places = [0, *sorted(cuts), 60]
    pairs = pairwise(places)
    assert torch.equal(torch.cat([random_scores(seed, a, b - a) for a, b in pairs]), whole)
    assert 0 <= float(whole.min()) < float(whole.max()) < 1
    assert not torch.equal(whole, random_scores(seed + 1, 0, 60))


def test_the_baseline_keeps_others_and_is_the_same_each_time(llama: Served) -> None:
    by_entropy, chance, again = (
        read(llama),
        read(llama, score="random"),
        read(llama, score="random"),
    )
    other = read(llama, score="random", score_seed=1)
    assert_same_state(chance, again)
    kept = [s._kept.number.tolist() for s in (by_entropy, chance, other) if s._kept is not None]
    assert kept[0] != kept[1] != kept[2] != kept[0]
    assert len(kept[0]) == len(kept[1]) == len(kept[2])


# ---- limits -------------------------------------------------------------------------------------


def test_chunks_are_made_to_fit() -> None:
    config = load_config("pocket", {"type": "sirllm", "n_entropy": 1000, "n_recent": 200})
    assert config.chunk_size == 300
    assert any("chunk_size" in note and "300" in note for note in config.notes)
    assert load_config("pocket", {"type": "sirllm", "chunk_size": 700}).chunk_size == 700
    back = config.with_overrides({"type": "inf-llm"})
    assert back.chunk_size == load_config("pocket").chunk_size


def test_a_memory_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="both 0"):
        load_config("pocket", {"type": "sirllm", "n_entropy": 0, "n_recent": 0})


def test_a_turn_that_does_not_fit_is_refused(llama: Served) -> None:
    config = llama.engine.config.with_overrides(SIR)
    Session(llama.session().backing, config.model, ROOM).score(ids(2 * ROOM))
    with pytest.raises(ConfigError, match=f"room for {ROOM} tokens") as error:
        Session(llama.session().backing, config.model, ROOM + 1)
    assert "chunk_size" in error.value.hint


def test_passes_of_transformers_are_refused_with_the_reason(llama: Served) -> None:
    session = read(llama)
    session.end()
    given = {"cache": session.cache, "attention_mask": torch.ones(1, len(TEXT) + 4)}
    with pytest.raises(UnsupportedCall, match="must see the ids") as error:
        llama.engine.model.generate(torch.tensor([TEXT[:4]]), **given, max_new_tokens=2)
    assert "session.generate" in error.value.hint
    assert session.stats.tokens_given == len(TEXT)  # nothing has happened to it
    reference = read(llama)
    reference.end()
    assert torch.equal(session.score(TEXT[:5]), reference.score(TEXT[:5]))


def test_steps_are_not_recorded(llama: Served) -> None:
    session = read(llama)
    list(session.generate(4, stop_ids=()))
    assert not session.replays_steps


def test_published_names_are_taken() -> None:
    published = {
        "start_size": 4, "token_entropy_size": 1020, "recent_size": 0, "decay_ratio": 0.9,
    }  # fmt: skip
    model = load_config({"model": {"type": "sirllm", **published}}).model
    assert (model.n_init, model.n_entropy, model.n_recent, model.decay) == (4, 1020, 0, 0.9)
