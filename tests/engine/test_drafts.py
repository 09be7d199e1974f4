"""Drafted steps: tokens and state of plain ones, whatever was drafted."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from infllm.engine import Session, attach
from infllm.engine.attachment.packed_weights import has_int8
from infllm.engine.config import Config
from infllm.engine.drafts import DocumentDrafts, Lookahead, SuffixArray, Tree
from infllm.engine.errors import ConfigError
from tests.engine.served import (
    POLICIES,
    SIBLINGS,
    SMALL_MEMORY,
    VARIANTS,
    Served,
    assert_same_state,
)
from tests.engine.tiny_models import SERVED, build, ids

TEXT = ids(150)
WAYS: list[dict[str, Any]] = [{"type": name} for name in POLICIES] + VARIANTS


class Oracle:
    """Drafts what plain decoding says, wrong from a random token on: a chain, or with branches."""

    def __init__(self, said: Sequence[int], seed: int, *, branches: bool) -> None:
        self.said = list(said)
        self.branches = branches
        self.chance = random.Random(seed)
        self.taken = 0
        self.tried: list[int] = []

    def take(self, token: int) -> None:
        assert token == self.said[self.taken]
        self.taken += 1

    def propose(self, room: int, seen: Any) -> Tree | None:
        right = self.said[self.taken : self.taken + min(room, self.chance.randint(0, 7))]
        if not right:
            return None
        draft = list(right)
        if self.chance.random() < 0.6:
            at = self.chance.randrange(len(draft))
            draft[at] = (draft[at] + 1) % 50
        tree = Tree.chain(self.said[self.taken - 1], draft)
        if self.branches:
            for parent in range(len(draft)):
                node = tree.add((self.said[self.taken + parent] + 2) % 50, parent)
                if parent + 2 < len(draft):
                    tree.add(7, node, guess=False)
            if right != draft:  # the right one stands in a branch
                node = 0
                for token in right:
                    known = tree.follower(node, token)
                    node = tree.add(token, node) if known is None else known
        self.tried.append(len(tree.tokens))
        return tree

    def learn(self, tree: Tree, logits: Tensor) -> None:
        assert len(logits) == len(tree.tokens)


class Chain:
    """Drafts what follows, and is right."""

    def __init__(self, said: Sequence[int], taken: int) -> None:
        self.said, self.taken = list(said), taken

    def take(self, token: int) -> None:
        self.taken += 1

    def propose(self, room: int, seen: Any) -> Tree | None:
        draft = self.said[self.taken : self.taken + min(room, 4)]
        return Tree.chain(self.said[self.taken - 1], draft) if draft else None

    def learn(self, tree: Tree, logits: Tensor) -> None:
        pass


@contextmanager
def rows_one_by_one(model: nn.Module) -> Iterator[None]:
    """Products of each row by itself, as a step of one token makes them: they round alike."""
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for module in linears:

        def forward(x: Tensor, module: nn.Linear = module) -> Tensor:
            rows = [nn.functional.linear(r, module.weight, module.bias) for r in x.split(1, dim=1)]
            return torch.cat(rows, dim=1)

        module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in linears:
            del module.forward


def reader(served: Served, way: dict[str, Any], n: int = 150) -> Session:
    session = served.session(**way)
    session.read(TEXT[:n])
    session.end()
    session.read(ids(5, seed=3))
    return session


def said(session: Session, n: int, **how: Any) -> list[int]:
    return [token.id for token in session.generate(n, **how)]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_tokens_and_state_are_those_of_plain_steps(llama: Served, way: dict[str, Any]) -> None:
    """Bit for bit, where products of rows round alike; behind a long text and in a short one."""
    with rows_one_by_one(llama.engine.model):
        for n, branches in (150, True), (9, False):
            plain, drafted = reader(llama, way, n), reader(llama, way, n)
            want = said(plain, 24)
            oracle = Oracle(want, seed=n, branches=branches)
            assert said(drafted, 24, drafts=oracle) == want
            assert_same_state(drafted, plain)
            assert bool(oracle.tried) == (way.get("type") != "sirllm")
            assert drafted._pending == plain._pending
            assert torch.equal(drafted._last_logits, plain._last_logits)  # type: ignore[arg-type]
            # And both go on alike.
            assert said(drafted, 5) == said(plain, 5)


def test_a_session_is_between_any_two_tokens_as_plain_steps_leave_it(llama: Served) -> None:
    """Where an answer is stopped, forked, or counted; also in the middle of a draft."""
    with rows_one_by_one(llama.engine.model):
        want = said(reader(llama, {}), 24)
        plain, drafted = reader(llama, {}), reader(llama, {})
        steps = plain.generate(24)
        tries = drafted.generate(24, drafts=Oracle(want, seed=1, branches=True))
        for i, (token, other) in enumerate(zip(steps, tries, strict=True)):
            assert token == other
            assert drafted.stats.tokens_read == plain.stats.tokens_read
            if i % 5 == 2:
                child, twin = drafted.fork(), plain.fork()
                assert_same_state(child, twin)
                assert said(child, 3) == said(twin, 3)
            if i == 17:
                break
        steps.close()  # type: ignore[attr-defined]
        tries.close()  # type: ignore[attr-defined]
        assert_same_state(drafted, plain)
        for session in (drafted, plain):
            session.read(ids(20, seed=5))
            session.end()
        assert_same_state(drafted, plain)


@pytest.mark.parametrize(
    "way", [way for way in [*WAYS[:7], SIBLINGS[0]] if way["type"] != "sirllm"], ids=str
)
def test_interrupted_inside_a_drafted_step_it_goes_on(
    llama: Served, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first layer and in the next one."""
    from infllm.engine.session import drafted as module

    plain_policy, calls, stop_at = module.run_policy, [0], [0]

    def interrupted(*args: Any) -> Tensor:
        calls[0] += 1
        if calls[0] == stop_at[0]:
            raise KeyboardInterrupt
        return plain_policy(*args)

    with rows_one_by_one(llama.engine.model):
        want = said(reader(llama, way), 12)
        monkeypatch.setattr(module, "run_policy", interrupted)
        for at in (2, 8):
            plain, session = reader(llama, way), reader(llama, way)
            steps = plain.generate(12)
            answer = session.generate(12, drafts=Chain(want, 0))
            calls[0], stop_at[0] = 0, at
            given: list[int] = []
            with pytest.raises(KeyboardInterrupt):
                given.extend(token.id for token in answer)
            assert [next(steps).id for _ in given] == given
            steps.close()  # type: ignore[attr-defined]
            stop_at[0] = 0
            assert_same_state(session, plain)
            assert said(session, 4) == said(plain, 4)


def test_stop_ids_end_an_answer_inside_a_draft(llama: Served) -> None:
    want = said(reader(llama, {}), 24)
    stop = want[9]
    cut = want[: want.index(stop)]
    session = reader(llama, {})
    oracle = Oracle(want, seed=4, branches=False)
    assert said(session, 24, drafts=oracle, stop_ids=[stop]) == cut


@pytest.mark.parametrize("how", [
    {"temperature": 0.8, "seed": 3}, {"temperature": 1.3, "seed": 5, "top_k": 12, "top_p": 0.9},
    {"repetition_penalty": 1.4}, {"temperature": 0.7, "seed": 9, "repetition_penalty": 1.2},
], ids=str)  # fmt: skip
def test_sampling_and_penalties_choose_as_without_drafts(
    llama: Served, how: dict[str, Any]
) -> None:
    """Token for token: so the distribution is the model's, whatever is drafted."""
    with rows_one_by_one(llama.engine.model):
        want = said(reader(llama, {}), 24, **how)
        for seed in range(3):
            oracle = Oracle(want, seed=seed, branches=bool(seed % 2))
            assert said(reader(llama, {}), 24, drafts=oracle, **how) == want


def test_tokens_tell_the_units_that_chose_them(llama: Served) -> None:
    with rows_one_by_one(llama.engine.model):
        plain = list(reader(llama, {}).generate(24, units=True))
        want = [token.id for token in plain]
        oracle = Oracle(want, seed=2, branches=True)
        assert list(reader(llama, {}).generate(24, units=True, drafts=oracle)) == plain
        assert any(token.units for token in plain)


@pytest.mark.parametrize("policy", ["inf-llm", "stream-lm", "origin"])
def test_drafts_of_the_document_and_of_lookahead_change_no_token(
    llama: Served, policy: str
) -> None:
    """In float32, without any care for how rows round."""
    repeated = ids(12, seed=8) * 12
    for seed in range(4):
        question = ids(6, seed=seed + 20)

        def ask(drafts: Any, question: list[int] = question) -> list[int]:
            session = llama.session(type=policy)
            session.read(repeated)
            session.end()
            session.read(question)
            return said(session, 20, drafts=drafts)

        want = ask(None)
        assert ask(DocumentDrafts(SuffixArray.of(repeated), question, least=1)) == want
        assert ask(Lookahead([*repeated, *question], width=3, length=4, candidates=3)) == want


@pytest.mark.parametrize("policy", ["inf-llm", "origin"])
def test_what_a_drafted_answer_held_goes_with_it(llama: Served, policy: str) -> None:
    """At once, and not when Python next collects cycles: for each answer it is a window."""
    session = llama.session(type=policy)
    session.read(TEXT)
    session.end()
    want = said(session.fork(), 24)
    gc.collect()
    gc.disable()
    try:
        fork = session.fork()
        oracle = Oracle(want, seed=3, branches=True)
        assert said(fork, 24, drafts=oracle) == want
        assert oracle.tried
        held = [weakref.ref(policy) for policy in fork.policies.values()]
        del fork, oracle
        assert [ref() for ref in held] == [None] * len(held)
    finally:
        gc.enable()


@pytest.mark.skipif(not has_int8(), reason="this torch has no int8 kernels for x86")
def test_nothing_is_drafted_where_steps_take_packed_weights() -> None:
    """Rows of a drafted pass would be multiplied by other weights than a step's."""
    model = build("llama", SERVED["llama"])
    for weights, rounds in (("packed", True), ("full", False)):
        config = Config.model_validate({"model": {**SMALL_MEMORY, "weights": weights}})
        with attach(model, config=config) as engine:
            session, plain = engine.session(), engine.session()
            assert engine.rounds_rows is rounds
            for one in (session, plain):
                one.read(TEXT)
            want = said(plain, 12)
            oracle = Oracle(want, seed=1, branches=False)
            assert (session.draft_room == 0) is rounds
            assert said(session, 12, drafts=oracle) == want
            assert (not oracle.tried) is rounds
            assert session.passes == plain.passes or not rounds
    assert not any("forward" in vars(one) for one in model.modules())


# ---- where drafts are found ---------------------------------------------------------------------

FEW_IDS = st.lists(st.integers(0, 3), max_size=60)


@settings(deadline=None, database=None, derandomize=True)
@given(text=FEW_IDS, run=st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_the_longest_end_of_a_run_is_found_in_a_text(text: list[int], run: list[int]) -> None:
    array = SuffixArray.of(text)
    length, low, high = array.longest(run)
    ends = [run[-n:] for n in range(1, min(32, len(run)) + 1)]
    places = {len(end): [i for i in range(len(text)) if text[i : i + len(end)] == end]
              for end in ends}  # fmt: skip
    assert length == max((n for n, found in places.items() if found), default=0)
    if length:
        assert sorted(array.order[low:high].tolist()) == places[length]


def test_suffixes_are_in_order(tmp_path: Any) -> None:
    text = random.Random(0).choices(range(3), k=400) + [70000] * 90
    array = SuffixArray.of(text)
    assert array.order.tolist() == sorted(range(len(text)), key=lambda i: (text[i : i + 32], i))
    array.save(tmp_path / "suffixes.npy")
    opened = SuffixArray.open(tmp_path / "suffixes.npy")
    assert opened.order.tolist() == array.order.tolist()
    assert opened.longest([1, 70000, 70000]) == array.longest([1, 70000, 70000])
    assert (tmp_path / "suffixes.npy").stat().st_size < 8 * len(text) + 200
    (tmp_path / "other.npy").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"."):
        SuffixArray.open(tmp_path / "other.npy")


def test_of_several_places_the_one_that_was_seen_is_copied() -> None:
    text = [1, 2, 3, 4, 9, 1, 2, 3, 5, 9, 1, 2, 3, 6, 9]
    drafts = DocumentDrafts(SuffixArray.of(text), [8, 1, 2, 3], start=100, most=1)
    assert drafts.draft(5) == [6]
    assert drafts.draft(5, [(104, 109)]) == [5]
    assert drafts.draft(5, [(0, 50)]) == [6]
    assert drafts.draft(0) == []
    # What was just said comes before the document, unless the place was seen.
    recent = DocumentDrafts(SuffixArray.of(text), [1, 2, 3, 7, 8, 1, 2, 3], start=0, most=1)
    assert recent.draft(5) == [7]
    assert recent.draft(5, [(0, 4)]) == [4]


def test_a_match_of_one_token_is_no_draft() -> None:
    assert DocumentDrafts(SuffixArray.of([1, 2, 3]), [7, 1]).draft(8) == []
    assert DocumentDrafts(None, []).propose(8) is None


def test_lookahead_refuses_what_cannot_work() -> None:
    with pytest.raises(ConfigError, match="n-grams of 2"):
        Lookahead([1, 2], length=2)
