"""LM-Infinite's middle: its definition, which tokens ask for it, and what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infllm.engine import MemoryWriter
from infllm.engine.attachment import Call
from infllm.engine.config import ModelConfig, load_config
from infllm.engine.errors import ConfigError
from infllm.engine.files import read_manifest
from infllm.engine.policies import make_policy, run_policy
from infllm.engine.policies.middle_lm import MiddleLM
from tests.engine.reference import Reference
from tests.engine.served import CHUNK, MIDDLE, Served, serve
from tests.engine.test_policies import DIM, FREQ, HKV, H, call_lengths, layer, tokens
from tests.engine.tiny_models import ids

TEXT = ids(96)


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(
    n_local=st.integers(1, 20), n_init=st.integers(0, 5), topk=st.integers(1, 12),
    middle_queries=st.sampled_from(["last", "all"]), middle_position=st.none() | st.integers(0, 40),
    far_distance=st.sampled_from(["L", "L-1", 7]), calls=call_lengths(), seed=st.integers(0, 100),
)  # fmt: skip
def test_the_middle_is_its_definition(
    n_local: int, n_init: int, topk: int, middle_queries: Any, middle_position: int | None,
    far_distance: Any, calls: list[int], seed: int,
) -> None:  # fmt: skip
    cfg = ModelConfig(
        type="infinite-lm", n_local=n_local, n_init=n_init, middle_topk=topk, kv_dtype="fp32",
        middle_queries=middle_queries, middle_position=middle_position, middle_from_layer=0,
        far_distance=far_distance,
    )  # fmt: skip
    q, k, v = tokens(seed)
    policy = make_policy(cfg, layer())
    rows, start, last = [], 0, set()
    for number, n in enumerate(calls):
        span = slice(start, start + n)
        closes = number % 3 != 1
        call = Call(0, start, closes=closes)
        qkv = (x[:, :, span] for x in (q, k, v))
        rows.append(run_policy(policy, *qkv, call, DIM**-0.5))
        start += n
        if closes:
            last.add(start - 1)
    got = torch.cat(rows, dim=1)[0]
    q, k, v = (x[0].double() for x in (q, k, v))
    turn = Reference(cfg, FREQ, q, k, v).turn
    distance = n_local // 2 if middle_position is None else middle_position
    far = far_distance if isinstance(far_distance, int) else {"L": n_local}.get(far_distance)
    far = n_local - 1 if far is None else far
    turned = torch.stack([turn(k[:, j], j) for j in range(len(got))], dim=1)
    for p in range(len(got)):
        near = range(max(0, p - n_local + 1), p + 1)
        asks = middle_queries == "all" or p in last
        between = range(n_init, p - n_local + 1) if asks else range(0)
        for head in range(H):
            kv = head // (H // HKV)
            here = turn(q[head, p], distance)
            wanted = (k[kv] @ here).tolist()
            middle = sorted(between, key=lambda j: -wanted[j])[:topk]
            init = range(min(n_init, near.start))
            logits = [
                turned[kv, near] @ turn(q[head, p], p),
                k[kv, init] @ turn(q[head, p], far),
                k[kv, middle] @ here,
            ]
            weight = torch.softmax(torch.cat(logits) * DIM**-0.5, dim=0)
            want = weight @ v[kv, [*near, *init, *middle]]
            torch.testing.assert_close(got[p, head].double(), want, atol=1e-4, rtol=1e-4)


# ---- which tokens ask ---------------------------------------------------------------------------


@pytest.mark.parametrize("length", [2 * CHUNK, 2 * CHUNK + 5, 5 * CHUNK, 3 * CHUNK + 1])
@pytest.mark.parametrize("how", ["end", "score", "generate", "model"])
def test_the_last_token_of_a_segment_has_a_middle(llama: Served, length: int, how: str) -> None:
    """Also where the segment ends with a chunk, which was whole before anyone said that it ends.

    In the last layer alone, what one token attends is of no consequence to others.
    """
    of_last = {**MIDDLE, "middle_from_layer": 1}
    session, reference = (
        llama.session(**of_last, middle_queries=queries) for queries in ("last", "all")
    )
    plain = llama.session(type="infinite-lm")
    want, others = reference.score(TEXT[:length])[-1], plain.score(TEXT[:length])
    if how == "score":
        got = session.score(TEXT[:length])
        torch.testing.assert_close(got[:-1], others[:-1], atol=1e-4, rtol=1e-4)
    elif how == "model":
        token = torch.tensor([TEXT[:length]])
        with torch.no_grad():
            llama.engine.model(input_ids=token, cache=session.cache)
    else:
        session.read(TEXT[:length])
        session.end() if how == "end" else next(session.generate(1, stop_ids=()))
    assert session._last_logits is not None
    torch.testing.assert_close(session._last_logits, want, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(want, others[-1], atol=1e-2)


def test_a_chunk_waits_for_what_follows(llama: Served) -> None:
    session = llama.session(**MIDDLE)
    session.read(TEXT[: 2 * CHUNK])
    assert (session.stats.tokens_read, session.stats.tokens_pending) == (CHUNK, CHUNK)
    session.read(TEXT[:1])
    assert (session.stats.tokens_read, session.stats.tokens_pending) == (2 * CHUNK, 1)
    for other in ({**MIDDLE, "middle_queries": "all"}, {**MIDDLE, "middle_topk": 0}):
        session = llama.session(**other)
        session.read(TEXT[:CHUNK])
        assert session.stats.tokens_pending == 0


def test_generated_tokens_have_a_middle(llama: Served) -> None:
    """A step attends what a token of its own segment would in a reading of all."""
    session, every = llama.session(**MIDDLE), llama.session(**MIDDLE, middle_queries="all")
    rows = [s.score(TEXT, step=True) for s in (session, every)]
    torch.testing.assert_close(*rows, atol=1e-5, rtol=0)
    assert not session.replays_steps


def test_checkpoints_come_although_a_chunk_waits(llama: Served, tmp_path: Path) -> None:
    with MemoryWriter(llama.session(**MIDDLE), tmp_path, every=2 * CHUNK) as writer:
        writer.read(TEXT)
        assert read_manifest(tmp_path).tokens_given == len(TEXT)
    resumed, given = llama.engine.resume(tmp_path, overrides=MIDDLE)
    whole = llama.session(**MIDDLE)
    whole.read(TEXT)
    assert given == len(TEXT)
    assert torch.equal(resumed.score(TEXT[:9]), whole.score(TEXT[:9]))


def test_forks_go_their_own_ways(llama: Served) -> None:
    session, untouched = llama.session(**MIDDLE), llama.session(**MIDDLE)
    for one in (session, untouched):
        one.read(TEXT)
    child = session.fork()
    child.read(ids(70, seed=3))
    child.end()
    units = untouched.stats.units
    assert session.stats.units == units < child.stats.units
    assert torch.equal(session.score(TEXT[:9]), untouched.score(TEXT[:9]))


# ---- what it keeps ------------------------------------------------------------------------------


@pytest.mark.parametrize("kv_dtype", ["fp32", "bf16", "int8"])
def test_memory_is_constant_on_the_device_and_predicted(kv_dtype: str) -> None:
    memory = {**MIDDLE, "middle_from_layer": 1, "kv_dtype": kv_dtype, "n_local": 64}
    with serve("llama", memory).engine as engine:
        device = []
        for n in (16 * CHUNK, 64 * CHUNK):
            session = engine.session()
            session.read(ids(n))
            session.end()
            told, stats = engine.estimate(n), session.stats
            assert told.host_bytes == stats.host_bytes > 0
            assert stats.device_bytes == pytest.approx(told.device_bytes, rel=0.2)
            device.append(stats.device_bytes)
        assert device[0] == device[1]


def test_layers_below_keep_no_more_than_a_window(llama: Served) -> None:
    session = llama.session(**{**MIDDLE, "middle_from_layer": 1})
    session.read(TEXT)
    assert [isinstance(p, MiddleLM) for p in session.policies.values()] == [False, True]
    assert [p.host_bytes > 0 for p in session.policies.values()] == [False, True]


def test_a_generated_token_tells_the_pages_it_attended(llama: Served) -> None:
    session = llama.session(start=1000, **MIDDLE)
    session.read(TEXT)
    for policy in session.policies.values():
        assert isinstance(policy, MiddleLM)
        policy.record = []
    *_, token = session.generate(3, units=True, stop_ids=())
    pages = set()
    for policy in session.policies.values():
        assert isinstance(policy, MiddleLM)
        assert policy.record is not None
        keys = policy.record[-1][1].flatten().tolist()
        pages |= {1003 + (key - 3) // 8 * 8 for key in keys}
    assert {unit.start for unit in token.units} == pages
    assert all(unit.stop - unit.start == 8 for unit in token.units)
    assert 0 < sum(unit.mass for unit in token.units) <= 1


# ---- settings -----------------------------------------------------------------------------------


def test_published_names_are_taken() -> None:
    published = {
        "local_branch": 4096, "global_branch": 10, "limit_distance": 4096, "top_k_attention": 5,
        "top_k_insert_at": 2048, "top_k_from_layer": 4, "top_k_to_layer": 1000,
    }  # fmt: skip
    model = load_config({"model": {"type": "infinite_lm", **published}}).model
    assert (model.n_local, model.n_init, model.far_distance) == (4096, 10, 4096)
    assert (model.middle_topk, model.middle_position) == (5, 2048)
    assert [model.has_middle(i) for i in (3, 4, 999, 1000)] == [False, True, True, False]
    bare = load_config("pocket", {"top_k_attention": 7, "far_distance": "L"}).model
    assert (bare.middle_topk, bare.far_distance) == (7, "L")


@pytest.mark.parametrize(
    ("key", "value"),
    [("middle_topk", -1), ("middle_queries", "first"), ("far_distance", "M"),
     ("middle_position", -5), ("top_k_attention", "many")],
)  # fmt: skip
def test_wrong_values_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"will not do"):
        load_config("pocket", {key: value})


def test_memories_do_not_depend_on_settings_of_other_policies(llama: Served) -> None:
    key = llama.session().key
    assert llama.session(middle_topk=7, far_distance="L").key == key
    mine = llama.session(type="infinite-lm").key
    assert llama.session(type="infinite-lm", middle_topk=7).key != mine
