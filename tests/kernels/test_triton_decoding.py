"""Interpreted: recorded decode steps by the kernels that a GPU takes, replayed from a tape."""

from __future__ import annotations

from typing import Any

import pytest

from infllm.engine import Session
from tests.engine import tape
from tests.engine.served import Served, serve
from tests.engine.tiny_models import ids
from tests.kernels.parts import rms_error

TEXT, ANSWER = ids(64), ids(5, seed=5)  # more units than a step looks up, and one that it makes
WAYS: list[dict[str, Any]] = [
    {"repr_score": "dot"},
    {},
    {"repr_score": "dot", "repr_heads": "group", "kv_dtype": "int8"},
    {"far_position": "exact"},
    {"type": "stream-lm"},
]


def read(served: Served, overrides: dict[str, Any]) -> Session:
    session = served.session(**overrides)
    session.read(TEXT)
    session.end()
    return session


@pytest.mark.parametrize(
    ("overrides", "layers"), [(WAYS[0], 2), *((way, 1) for way in WAYS[1:])], ids=str
)
def test_replayed_launches_give_what_steps_by_pytorch_give(
    overrides: dict[str, Any], layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve("llama", num_hidden_layers=layers)
    try:
        want = read(served, overrides).score(ANSWER, step=True)
        tapes: list[tape.Tape] = []
        plain = tape.Tape.__init__

        def kept(self: tape.Tape) -> None:
            plain(self)
            tapes.append(self)

        monkeypatch.setattr(tape.Tape, "__init__", kept)
        session = read(served, overrides)
        monkeypatch.setenv("INFLLM_KERNELS", "triton")
        served.engine.record = tape.record
        got = session.score(ANSWER, step=True)
        assert session.replays_steps
        assert tapes[0].launches >= 2 * len(session.policies)
        assert rms_error(got, want) < 1e-4
    finally:
        served.engine.close()
