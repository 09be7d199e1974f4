"""Nothing is dropped in silence, and memory grows only where it is said to."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infllm.engine import Session
from infllm.engine.policies import InfLLM
from tests.engine.served import CHUNK, FEW, POLICIES, SMALL_MEMORY, Served
from tests.engine.tiny_models import ids

TEXT = ids(96)


class Fed:
    """Ids that really went through the model, in order."""

    def __init__(self, served: Served) -> None:
        self.ids: list[int] = []
        table = served.engine.model.get_input_embeddings()
        self._hook = table.register_forward_pre_hook(self._note)

    def _note(self, module: object, args: tuple[torch.Tensor, ...]) -> None:
        self.ids.extend(args[0][0].tolist())

    def __enter__(self) -> Fed:
        return self

    def __exit__(self, *exc: object) -> None:
        self._hook.remove()


# ---- 6. tokens given are read or pending -----------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["read", "end", "score", "step", "nll", "generate", "fork"]),
        st.integers(0, 40),
    ),
    max_size=8,
)


def count_to(session: Session, action: str, n: int, given: list[int]) -> Session:
    """Do one thing with a session; appends to `given` what it was given."""
    text = ids(n, seed=n + len(given))
    match action:
        case "read":
            session.read(text)
        case "end":
            session.end()
            return session
        case "score":
            session.score(text)
        case "step":
            session.score(text, step=True)
        case "nll":
            for _ in session.nll(text):
                check_counts(session, given + text)
        case "fork":
            session = session.fork()
            session.read(text)
        case "generate":
            if not given:
                return session
            text = [token.id for token in session.generate(n % 5)]
    given.extend(text)
    return session


def check_counts(session: Session, given: list[int]) -> None:
    stats = session.stats
    assert stats.tokens_given == len(given)
    assert stats.tokens_read + stats.tokens_pending == len(given)
    assert session.position == len(given)


@pytest.mark.parametrize("policy", ["inf-llm", "stream-lm"])
@FEW
@given(steps=steps)
def test_every_token_given_is_read_once_in_order(
    llama: Served, policy: str, steps: list[tuple[str, int]]
) -> None:
    given: list[int] = []
    session = llama.session(type=policy)
    for action, n in steps:
        session = count_to(session, action, n, given)
        check_counts(session, given)
    session.end()
    check_counts(session, given)
    assert session.stats.tokens_pending == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_given_goes_through_the_model(llama: Served, policy: str) -> None:
    with Fed(llama) as fed:
        session = llama.session(type=policy)
        session.read(TEXT[:21])
        assert fed.ids == TEXT[:CHUNK]
        assert session.stats.tokens_pending == 21 - CHUNK
        session.read(TEXT[21:70])
        session.score(TEXT[70:80])
        session.read(TEXT[80:83])
        answer = [token.id for token in session.generate(4)]
        assert len(answer) == 4
        assert fed.ids == TEXT[:83] + answer[:-1]  # the last token was chosen, not fed
        assert session.stats.tokens_pending == 1
        session.end()
        assert fed.ids == TEXT[:83] + answer


def test_an_interrupted_stream_of_nll_loses_and_doubles_nothing(llama: Served) -> None:
    """The consumer stops after the first block; the session goes on with the next token."""
    reference = llama.session()
    reference.read(TEXT)
    with Fed(llama) as fed:
        session = llama.session()
        stream = session.nll(TEXT[:60])
        next(stream)
        check_counts(session, TEXT[:60])
        child = session.fork()
        session.read(TEXT[60:])
        assert fed.ids == TEXT
        check_counts(session, TEXT)
        child.read(TEXT[60:])
        assert fed.ids == TEXT + TEXT[CHUNK:]
    for other in (session, child):
        assert torch.equal(other.score([5, 6, 7]), reference.fork().score([5, 6, 7]))


# ---- 5. device memory does not grow beyond the unit index ------------------------------------


def bytes_at(session: Session, lengths: list[int]) -> list[tuple[int, int, int]]:
    rows, n = [], 0
    for length in lengths:
        session.read(ids(length - n, seed=n))
        n = length
        stats = session.stats
        assert stats.tokens_pending == 0
        rows.append((stats.device_bytes, stats.host_bytes, stats.units))
    return rows


LENGTHS = [10 * CHUNK, 20 * CHUNK, 40 * CHUNK]


@pytest.mark.parametrize("policy", ["window", "stream-lm", "infinite-lm", "sirllm"])
@pytest.mark.parametrize("served", ["llama", "gemma2"], indirect=True)
def test_windows_take_constant_memory(served: Served, policy: str) -> None:
    rows = bytes_at(served.session(type=policy), LENGTHS)
    assert len(set(rows)) == 1
    device, host, units = rows[0]
    assert device > 0
    assert (host, units) == (0, 0)


@pytest.mark.parametrize(
    ("overrides", "vectors"), [({}, 4), ({"repr_heads": "group"}, 2)], ids=["query", "group"]
)
@pytest.mark.parametrize(
    ("kv_dtype", "kv_bytes"),
    [("fp32", 16 * 4), ("bf16", 16 * 2), ("int8", 16 + 4), ("fp8", 16 + 4)],
)
def test_units_cost_the_device_one_vector_a_head(
    llama: Served, overrides: dict[str, Any], vectors: int, kv_dtype: str, kv_bytes: int
) -> None:
    layers, head_dim, n_kv_heads = 2, 16, 2
    session = llama.session(kv_dtype=kv_dtype, **overrides)
    rows = bytes_at(session, LENGTHS)
    policy = session.policies[0]
    assert isinstance(policy, InfLLM)
    assert policy.units is not None
    index_bytes = policy.units.index_dtype.itemsize
    assert index_bytes <= 4
    for (device, host, units), (device_later, host_later, units_later) in pairwise(rows):
        new = units_later - units
        assert device_later - device == layers * new * vectors * head_dim * index_bytes
        unit = 2 * n_kv_heads * SMALL_MEMORY["block_size"] * kv_bytes
        assert host_later - host == layers * new * unit
    window = CHUNK * 10 - SMALL_MEMORY["n_init"] - SMALL_MEMORY["n_local"]
    assert rows[0][2] == window // SMALL_MEMORY["block_size"]


def test_full_attention_grows_with_length(llama: Served) -> None:
    rows = bytes_at(llama.session(type="origin"), LENGTHS)
    token = 2 * 2 * 2 * 16 * 4  # layers, keys and values, KV heads, head_dim, float32
    assert [device for device, _, _ in rows] == [n * token for n in LENGTHS]


# int8 is to change nothing where nothing is kept behind the window.
@pytest.mark.parametrize(
    ("policy", "kv_dtype"),
    [*((policy, "int8") for policy in POLICIES),
     *((policy, kv) for policy in ("inf-llm", "infinitehip") for kv in ("fp32", "bf16"))],
)  # fmt: skip
def test_memory_is_predicted_before_the_run(llama: Served, policy: str, kv_dtype: str) -> None:
    overrides = {"type": policy, "kv_dtype": kv_dtype, "n_local": 64, "block_size": 8}
    session, read = llama.session(**overrides), 0
    for n in (CHUNK, 16 * CHUNK, 48 * CHUNK):
        session.read(ids(n - read, seed=n))
        read = n
        told = llama.engine.estimate(n, overrides)
        assert told.host_bytes == session.stats.host_bytes
        assert told.disk_bytes == session.stats.disk_bytes == 0
        # Not predicted: the few tokens that wait to become a unit, and the score of each. Not
        # there yet: what infinitehip brings for steps.
        assert session.stats.device_bytes == pytest.approx(told.device_bytes, rel=0.25)


def test_a_fork_counts_for_itself(llama: Served) -> None:
    session = llama.session()
    session.read(TEXT)
    before = session.stats
    child = session.fork()
    child.read(ids(200, seed=5))
    child.end()
    after = session.stats
    assert (after.tokens_given, after.tokens_read, after.units) == (
        before.tokens_given, before.tokens_read, before.units,
    )  # fmt: skip
    assert after.host_bytes == before.host_bytes
    assert child.stats.tokens_given == before.tokens_given + 200
    assert child.stats.units > before.units
