"""Recorded decode steps: replayed, they do what steps do that are not recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from infllm.engine import Session
from infllm.engine.decode import Decoder, decoder
from infllm.engine.policies import FastInfLLM, InfLLM
from infllm.engine.units.block_cache import BlockCache
from tests.engine import tape
from tests.engine.served import VARIANTS, Served, assert_same_state, serve
from tests.engine.tiny_models import SERVED, ids

TEXT, ANSWER = ids(150), ids(40, seed=5)
CLOSE = 1e-5  # relative: products over more rows add up in another order


@pytest.fixture
def recorded(llama: Served) -> Iterator[Served]:
    """The tiny Llama, its steps recorded."""
    llama.engine.record = tape.record
    yield llama
    llama.engine.record = None


def read(served: Served, **overrides: Any) -> Session:
    session = served.session(**overrides)
    session.read(TEXT)
    session.end()
    return session


def assert_same_steps(served: Served, answer: list[int] = ANSWER, **overrides: Any) -> Session:
    """Logits of each step and the state after all of them, recorded and not; the recorded one."""
    plain, replayed = (read(served, **overrides) for _ in range(2))
    record, served.engine.record = served.engine.record, None
    want = plain.score(answer, step=True)
    served.engine.record = record
    got = replayed.score(answer, step=True)
    assert served.engine.not_recorded is None or "CUDA" in served.engine.not_recorded
    assert replayed.replays_steps
    torch.testing.assert_close(got, want, atol=CLOSE * float(want.abs().max()), rtol=0)
    served.engine.record = None
    rest = [s.score(ids(20, seed=9)) for s in (plain, replayed)]
    torch.testing.assert_close(*rest, atol=CLOSE * float(want.abs().max()), rtol=0)
    assert plain.stats.units == replayed.stats.units
    assert plain.stats.tokens_read == replayed.stats.tokens_read
    return replayed


@pytest.mark.parametrize(
    "overrides",
    [{}, *[v for v in VARIANTS if "unit_score" not in v and "type" not in v],
     {"keep_units": True}, {"repr_score": "dot", "far_position": "exact", "perhead": True},
     {"cache_strategy": "fifo"}],
    ids=str,
)  # fmt: skip
def test_replayed_steps_equal_others(recorded: Served, overrides: dict[str, Any]) -> None:
    assert_same_steps(recorded, ANSWER[:24], **overrides)


@pytest.mark.parametrize("kind", SERVED)
def test_models_of_many_kinds(kind: str) -> None:
    """Sliding layers between others, sinks, partial and interleaved rotation, experts."""
    served = serve(kind)
    served.engine.record = tape.record
    try:
        assert_same_steps(served, ANSWER[:12])
    finally:
        served.engine.close()


@pytest.mark.parametrize("policy", ["stream-lm", "infinite-lm", "window"])
def test_policies_with_a_window_alone(recorded: Served, policy: str) -> None:
    assert_same_steps(recorded, ids(300, seed=6), type=policy)


@pytest.mark.parametrize("policy", ["stream-lm", "infinite-lm", "window"])
def test_steps_of_a_window_equal_a_text_read_at_once(llama: Served, policy: str) -> None:
    """Over more steps than the room behind the window holds."""
    answer = ids(300, seed=6)
    want = read(llama, type=policy).score(answer)
    got = read(llama, type=policy).score(answer, step=True)
    torch.testing.assert_close(got, want, atol=CLOSE * float(want.abs().max()), rtol=0)


def test_units_that_a_step_makes_are_found_by_later_ones(recorded: Served) -> None:
    """Many cuts, slabs that fill and are followed by others."""
    answer = ids(400, seed=7)
    session = assert_same_steps(recorded, answer, topk=5)
    assert session.stats.units > 64 + 64  # more than the first two slabs


def test_a_missing_unit_is_brought_and_the_step_replayed(
    recorded: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays: list[int] = []
    step = Decoder.step

    def counted(self: Decoder, token: int, place: int) -> torch.Tensor | None:
        replay, times = self._replay, []
        self._replay = lambda: (times.append(1), replay())
        out = step(self, token, place)
        self._replay = replay
        replays.append(len(times))
        return out

    monkeypatch.setattr(Decoder, "step", counted)
    session = read(recorded, max_cached_block=60)
    before = session.stats.cache_misses
    session.score(ANSWER, step=True)
    assert max(replays) > 1
    assert min(replays) == 1
    assert max(replays) <= 1 + len(session.policies)
    assert session.stats.cache_misses > before
    assert session.stats.cache_hits > 0


@pytest.mark.parametrize("most", [1, 2])
def test_a_step_that_lacks_too_much_goes_layer_by_layer(
    recorded: Served, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(decoder, "REPLAYS", most)
    assert_same_steps(recorded)


@pytest.mark.parametrize(
    "waits",
    [
        lambda: torch.ones(1).item(),
        lambda: bool(torch.ones(1) > 0),
        lambda: torch.ones(3).nonzero(),
        lambda: torch.ones(3)[torch.ones(3) > 0],
        lambda: torch.tensor([1, 2]),
    ],
)
def test_the_tape_refuses_what_a_capture_refuses(waits: Callable[[], object]) -> None:
    with pytest.raises(tape.HostWaits):
        tape.record(waits)


def test_what_cannot_be_recorded_is_computed_step_by_step(recorded: Served) -> None:
    def record(run: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    want = read(recorded).score(ANSWER[:8], step=True)
    recorded.engine.record = record
    session = read(recorded)
    torch.testing.assert_close(
        session.score(ANSWER[:8], step=True), want, atol=CLOSE * float(want.abs().max()), rtol=0
    )
    assert not session.replays_steps
    assert recorded.engine.record is None
    assert recorded.engine.not_recorded == "operation not permitted when stream is capturing"


@pytest.mark.parametrize(
    "overrides",
    [
        {"unit_score": "keys"},
        {"unit_score": "moments"},
        {"cache_strategy": "lru-s"},
        {"type": "origin"},
        {"topk": 100},
        {"cuda_graphs": False},
    ],
    ids=str,
)
def test_steps_that_differ_are_not_recorded(recorded: Served, overrides: dict[str, Any]) -> None:
    overrides = {"max_cached_block": 200, **overrides}
    session = read(recorded, **overrides)
    session.score(ANSWER[:6], step=True)
    assert not session.replays_steps


def test_forks_go_their_own_way(recorded: Served) -> None:
    """Two answers in turns over shared slots, from a session in the middle of an answer."""
    parent = read(recorded)
    parent.score(ANSWER[:7], step=True)
    child = parent.fork()
    others = ids(30, seed=8)
    turns = [
        (parent.score([a], step=True), child.score([b], step=True))
        for a, b in zip(ANSWER[7:30], others, strict=False)
    ]
    recorded.engine.record = None
    for i, tokens in enumerate((ANSWER[7:30], others[:23])):
        alone = read(recorded)
        alone.score(ANSWER[:7], step=True)
        want = alone.score(tokens, step=True)
        got = torch.cat([turn[i] for turn in turns])
        torch.testing.assert_close(got, want, atol=CLOSE * float(want.abs().max()), rtol=0)


def test_an_answer_and_then_another_question(recorded: Served) -> None:
    def talk(session: Session) -> list[list[int]]:
        said = []
        for seed in (11, 12):
            session.read(ids(20, seed=seed))
            said.append([token.id for token in session.generate(30)])
        return said

    want_session = read(recorded)
    recorded.engine.record = None
    want = talk(want_session)
    recorded.engine.record = tape.record
    session = read(recorded)
    assert talk(session) == want
    recorded.engine.record = None
    # Same units, window and counts; numbers may differ in the last bit.
    assert session.stats.units == want_session.stats.units
    assert session.stats.tokens_given == want_session.stats.tokens_given


def test_tokens_tell_their_units(recorded: Served) -> None:
    session = read(recorded)
    tokens = list(session.generate(12, units=True))
    assert session.replays_steps
    recorded.engine.record = None
    others = list(read(recorded).generate(12, units=True))
    assert [t.id for t in tokens] == [t.id for t in others]
    for token, other in zip(tokens[1:], others[1:], strict=True):
        mine, theirs = ({m.start: m.mass for m in t.units} for t in (token, other))
        assert mine.keys() == theirs.keys()
        for start, mass in mine.items():
            assert mass == pytest.approx(theirs[start], rel=1e-4, abs=1e-7)


def test_a_saved_session_is_what_was_replayed(recorded: Served, tmp_path: Any) -> None:
    session = read(recorded)
    session.score(ANSWER[:9], step=True)
    session.save(tmp_path / "x.mem")
    recorded.engine.record = None
    opened = recorded.engine.open(tmp_path / "x.mem")
    assert_same_state(opened, session)


def test_inspected_steps_are_not_recorded(recorded: Served) -> None:
    session = read(recorded)
    session.score(ANSWER[:4], step=True)
    assert session.replays_steps
    policy = session.policies[0]
    assert isinstance(policy, InfLLM)
    policy.record = []
    session.score(ANSWER[4:6], step=True)
    assert not session.replays_steps
    assert len(policy.record) >= 2


def test_bytes_are_counted_once(recorded: Served) -> None:
    """What steps add: keys rotated for them, what they attend behind the window, and no second
    window."""
    session = read(recorded)
    before = session.stats.device_bytes
    session.score(ANSWER[:1], step=True)
    policy = session.policies[0]
    assert policy._steps is not None  # type: ignore[attr-defined]
    rotated = policy._steps.k_near.nbytes  # type: ignore[attr-defined]
    per_token = rotated // policy._steps.rows  # type: ignore[attr-defined]
    far = policy._unit_steps.far_rows  # type: ignore[attr-defined]
    assert far.nbytes == 2 * 2 * 16 * 4 * far._k.shape[2] + sum(x.nbytes for x in far._init)
    rotated += far.nbytes
    grown = session.stats.device_bytes - before
    # A token more of keys, values and scores, perhaps a unit cut from it; index rows are in use.
    assert abs(grown - len(session.policies) * rotated) <= 12 * per_token * len(session.policies)


def test_a_step_that_computed_no_numbers_brings_no_unit_that_is_none(recorded: Served) -> None:
    """What lies in a slot before a unit comes may be anything, and so may what comes of it."""
    plain, replayed = (read(recorded) for _ in range(2))
    record, recorded.engine.record = recorded.engine.record, None
    want = plain.score(ANSWER, step=True)
    recorded.engine.record = record
    for policy in replayed.policies.values():
        assert policy.units is not None
        policy.units.slots.fill_(-float("nan"))
        policy.units.cache = BlockCache(len(policy.units.slots))  # which knows of no unit there
    got = replayed.score(ANSWER, step=True)
    assert replayed.replays_steps
    torch.testing.assert_close(got, want, atol=CLOSE * float(want.abs().max()), rtol=0)
    for policy in replayed.policies.values():
        assert policy.units is not None
        names = {view.slab.number: view.count for view in policy.units.views}
        assert all(row < names[slab] for (slab, row, _), _ in policy.units.cache.slots())


def test_units_beyond_the_last_are_not_brought(recorded: Served) -> None:
    session = read(recorded)
    session.score(ANSWER[:4], step=True)
    policy = session.policies[0]
    assert isinstance(policy, FastInfLLM)
    assert policy.units is not None
    before = dict(policy.units.cache.slots())
    policy.bring([1, policy.units.n, policy.units.n + 3, *[0] * (policy.n_asked - 3)])
    names = {view.slab.number: view.count for view in policy.units.views}
    new = {key for key, _ in policy.units.cache.slots()} - set(before)
    assert all(row < names[slab] for slab, row, _ in new)


def test_the_slots_begin_with_the_units_of_the_last_block(recorded: Served) -> None:
    """A recording has what the question looked up, besides what the step before it did."""
    session = read(recorded, max_cached_block=60)
    policies = list(session.policies.values())
    held = [policy.held.flatten().tolist() for policy in policies]  # type: ignore[attr-defined]
    for policy in policies:
        assert policy.units is not None
        policy.units.cache = BlockCache(len(policy.units.slots))
    session.score(ANSWER[:2], step=True)
    assert session.replays_steps
    for policy, units in zip(policies, held, strict=True):
        assert policy.units is not None
        assert all(key in policy.units.cache for key in policy.units.keys(units))
