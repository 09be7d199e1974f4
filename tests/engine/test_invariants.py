"""What always holds, whatever the model and the policy. One section per statement."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infllm.engine import Session
from infllm.engine.policies import InfLLM
from tests.engine.served import (
    FEW,
    POLICIES,
    VARIANTS,
    Served,
    assert_as_stock,
    assert_same_state,
    pieces,
    serve,
)
from tests.engine.tiny_models import ids

TEXT = ids(96)
TAIL = ids(11, seed=7)
MODELS = ("llama", "qwen3", "gemma2")
ROOMY = {"n_local": 128, "n_recent": 128}

every_policy = pytest.mark.parametrize("policy", POLICIES)
every_model = pytest.mark.parametrize("served", MODELS, indirect=True)
# Every policy on one model, and every model with units.
cases = pytest.mark.parametrize(
    ("served", "policy"),
    [*(("llama", policy) for policy in POLICIES), ("qwen3", "inf-llm"), ("gemma2", "inf-llm")],
    indirect=["served"],
)
named = pytest.mark.parametrize(
    "variant", VARIANTS, ids=lambda v: "-".join(f"{k}-{x}" for k, x in v.items())
)


# ---- 1. when nothing leaves the window, output equals full attention ------------------------


@every_policy
@every_model
def test_in_the_window_every_policy_is_full_attention(served: Served, policy: str) -> None:
    session = served.session(type=policy, **ROOMY)
    rows = [
        session.score(TEXT[:40]),
        session.score(TEXT[40:67]),
        session.score(TEXT[67:75], step=True),
    ]
    assert_as_stock(torch.cat(rows), served.stock_logits(TEXT[:75]))


@named
def test_in_the_window_every_variant_is_full_attention(
    llama: Served, variant: dict[str, Any]
) -> None:
    session = llama.session(**ROOMY, **variant)
    assert_as_stock(session.score(TEXT[:50]), llama.stock_logits(TEXT[:50]))


EXACT = {"far_position": "exact", "topk": 99, "max_cached_block": 99}


@every_model
@pytest.mark.parametrize("variant", [{}, {"repr_score": "dot"}, {"perhead": True}], ids=str)
def test_exact_positions_and_all_units_are_full_attention(
    served: Served, variant: dict[str, Any]
) -> None:
    session = served.session(**EXACT, **variant)
    rows = [session.score(TEXT[:61]), session.score(TEXT[61:]), session.score(TAIL, step=True)]
    assert session.stats.units > 10
    assert_as_stock(torch.cat(rows), served.stock_logits(TEXT + TAIL))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("cohere", {}),  # interleaved
        ("glm", {}),  # interleaved and partial
        ("gpt_neox", {}),  # partial
        ("smollm3", {}),  # a layer without positions
        ("gpt_oss", {}),  # attention sinks
        (
            "llama",  # tables with a scale of their own
            {
                "rope_parameters": {
                    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
                    "original_max_position_embeddings": 128,
                }
            },
        ),
    ],
)  # fmt: skip
def test_exact_positions_in_every_style_of_rotation(kind: str, settings: dict[str, Any]) -> None:
    served = serve(kind, EXACT, **settings)
    with served.engine:
        rows = _three_segments(served.session())
    assert_as_stock(torch.cat(rows), served.stock_logits(TEXT))


def _three_segments(session: Session) -> list[torch.Tensor]:
    return [
        session.score(TEXT[:47]),
        session.score(TEXT[47:90]),
        session.score(TEXT[90:], step=True),
    ]


def test_beyond_the_window_the_policies_differ(llama: Served) -> None:
    """The tests above are not of one policy under five names."""
    rows = {policy: llama.session(type=policy).score(TEXT)[-1] for policy in POLICIES}
    for a in POLICIES:
        for b in POLICIES:
            assert a == b or not torch.allclose(rows[a], rows[b], atol=1e-3), (a, b)


# ---- 2. cutting the input differently changes nothing, bit for bit --------------------------

cuts = st.lists(st.integers(0, len(TEXT)), max_size=6)


def whole(served: Served, **overrides: Any) -> Session:
    session = served.session(**overrides)
    session.read(TEXT)
    return session


@cases
@FEW
@given(cuts=cuts)
def test_cuts_between_reads_change_nothing(served: Served, policy: str, cuts: list[int]) -> None:
    session, reference = served.session(type=policy), whole(served, type=policy)
    for piece in pieces(TEXT, cuts):
        session.read(piece)
    assert_same_state(session, reference)
    assert torch.equal(session.score(TAIL), reference.score(TAIL))
    assert_same_state(session, reference)


@named
@FEW
@given(cuts=cuts)
def test_cuts_change_nothing_in_any_variant(
    llama: Served, variant: dict[str, Any], cuts: list[int]
) -> None:
    session, reference = llama.session(**variant), whole(llama, **variant)
    for piece in pieces(TEXT, cuts):
        session.read(piece)
    assert torch.equal(session.score(TAIL), reference.score(TAIL))


@cases
@FEW
@given(data=st.data(), cuts=cuts)
def test_nll_and_forks_in_between_change_nothing(
    served: Served, policy: str, data: st.DataObject, cuts: list[int]
) -> None:
    session, reference = served.session(type=policy), whole(served, type=policy)
    for piece in pieces(TEXT, cuts):
        match data.draw(st.sampled_from(["read", "nll", "child", "parent", "generate aside"])):
            case "read":
                session.read(piece)
            case "nll":
                for _ in session.nll(piece):
                    pass
            case "child":  # go on in the child; the parent reads something else
                parent, session = session, session.fork()
                parent.read(ids(30, seed=3))
                session.read(piece)
            case "parent":
                child = session.fork()
                session.read(piece)
                child.score(ids(30, seed=3))
            case _:
                session.read(piece)
                aside = session.fork()
                aside.read(TAIL[:1])
                list(aside.generate(3))
    assert_same_state(session, reference)
    assert torch.equal(session.score(TAIL), reference.score(TAIL))


@cases
@FEW
@given(data=st.data())
def test_cuts_within_segments_change_nothing(
    served: Served, policy: str, data: st.DataObject
) -> None:
    segments = [TEXT[:5], TEXT[5:50], TEXT[50:51], TEXT[51:96]]
    session, reference = served.session(type=policy), served.session(type=policy)
    for segment in segments:
        reference.read(segment)
        reference.end()
        for piece in pieces(segment, data.draw(st.lists(st.integers(0, len(segment)), max_size=3))):
            session.read(piece)
        session.end()
    assert_same_state(session, reference)
    assert list(session.generate(5)) == list(reference.generate(5))


@cases
@FEW
@given(cut=st.integers(0, len(TAIL)))
def test_what_waits_belongs_to_the_scored_segment(served: Served, policy: str, cut: int) -> None:
    session, reference = whole(served, type=policy), whole(served, type=policy)
    session.read(TAIL[:cut])
    got, want = session.score(TAIL[cut:]), reference.score(TAIL)[cut:]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)  # fewer rows in one matrix product
    assert_same_state(session, reference)


def test_lookups_follow_a_grid_from_the_start_of_the_segment(llama: Served) -> None:
    """Not from the session's start, nor from where a read was cut."""
    session = llama.session()
    policy = session.policies[0]
    assert isinstance(policy, InfLLM)
    session.read(TEXT[:43])
    session.end()
    policy.record = []
    for piece in pieces(TEXT[43:81], [50, 63]):
        session.read(piece)
    session.end()
    spans = [(r.start, r.stop) for r in policy.record if hasattr(r, "stop")]
    assert spans == [(43, 51), (51, 59), (59, 67), (67, 75), (75, 81)]


@FEW
@given(cuts=cuts)
def test_grouped_lookups_follow_the_segment_too(llama: Served, cuts: list[int]) -> None:
    """chunk_topk_calc 16 in chunks of 8 x 3 tokens: groups straddle the chunks."""
    engine = llama.engine
    config = engine.config.with_overrides({"chunk_size": 24})
    sessions = []
    for places in (cuts, []):
        session = Session(
            engine.session().backing, config.model.model_copy(update={"chunk_topk_calc": 16}), 24
        )
        policy = session.policies[0]
        assert isinstance(policy, InfLLM)
        policy.record = []
        for piece in pieces(TEXT, places):
            session.read(piece)
        session.end()
        looks = [r for r in policy.record if hasattr(r, "stop")]
        visible = {r.start: r.n_units for r in looks}
        for start, n_units in visible.items():
            assert n_units == visible[start // 16 * 16], start
        sessions.append(session)
    assert_same_state(*sessions)


# ---- 3. forked and appended to: same answers as an uninterrupted run -------------------------


@cases
def test_a_fork_answers_as_its_parent_would(served: Served, policy: str) -> None:
    session, untouched = whole(served, type=policy), whole(served, type=policy)
    children = [session.fork() for _ in range(3)]
    questions = [ids(9, seed=s) for s in range(3)]
    rows = [child.score(question) for child, question in zip(children, questions, strict=True)]
    assert_same_state(session, untouched)
    for question, row in zip(questions, rows, strict=True):
        assert torch.equal(whole(served, type=policy).score(question), row)


@cases
def test_appending_after_an_aside_is_an_uninterrupted_run(served: Served, policy: str) -> None:
    session, straight = served.session(type=policy), whole(served, type=policy)
    session.read(TEXT[:53])
    aside = session.fork()
    aside.read(TAIL)
    list(aside.generate(6))
    session.read(TEXT[53:])
    assert_same_state(session, straight)
    assert torch.equal(session.score(TAIL), straight.score(TAIL))


def test_a_fork_shares_all_units(llama: Served) -> None:
    session = whole(llama)
    child = session.fork()
    for index, policy in session.policies.items():
        other = child.policies[index]
        assert isinstance(policy, InfLLM)
        assert isinstance(other, InfLLM)
        assert policy.units is not None
        assert other.units is not None
        assert policy.units.n == other.units.n > 0
        mine = [view.slab.runs[0].kv.data_ptr() for view in policy.units.views]
        assert mine == [view.slab.runs[0].kv.data_ptr() for view in other.units.views]


# ---- 4. positions never lose precision ------------------------------------------------------


@pytest.mark.parametrize("start", [10_000_000, 2**31 + 3])
@cases
def test_the_same_text_far_away_gives_the_same_logits(
    served: Served, policy: str, start: int
) -> None:
    here, far = served.session(type=policy), served.session(start, type=policy)
    for session in (here, far):
        session.read(TEXT)
    assert far.position == here.position + start
    assert torch.equal(here.score(TAIL), far.score(TAIL))
    assert torch.equal(here.score(TAIL, step=True), far.score(TAIL, step=True))


@named
def test_variants_too_give_the_same_logits_far_away(llama: Served, variant: dict[str, Any]) -> None:
    here, far = whole(llama, **variant), llama.session(10_000_000, **variant)
    far.read(TEXT)
    assert torch.equal(here.score(TAIL), far.score(TAIL))


@pytest.mark.parametrize("policy", ["window", "infinite-lm", "stream-lm"])
def test_a_long_past_does_not_blur_the_window(llama: Served, policy: str) -> None:
    """What left every layer's window long ago leaves no bit behind, nor do the angles."""
    chunk = 256
    engine = llama.engine
    settings = engine.config.with_overrides({"type": policy, "n_init": 3, "chunk_size": chunk})
    rows = []
    for n_before in (1, 24):
        session = Session(engine.session().backing, settings.model, chunk)
        session.read(TEXT[:3] + ids(253, seed=1))
        for n in range(n_before):
            session.read(ids(chunk, seed=2 + n))
        session.read(ids(chunk, seed=99))
        rows.append(session.score(TEXT))
    assert torch.equal(*rows)
