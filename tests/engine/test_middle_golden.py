"""LM-Infinite's output and choices equal to the recorded ones, however the text is fed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from infllm.engine import attach
from infllm.engine.attachment import Call
from infllm.engine.config import ModelConfig
from infllm.engine.policies import make_policy, run_policy
from infllm.engine.policies.middle_lm import MiddleLM
from tests.engine import siblings


def settings(case: siblings.Case) -> dict[str, Any]:
    """By their published names."""
    raw = case.config
    given = {
        "type": "infinite-lm", "kv_dtype": "fp32", "n_local": raw["local"],
        "n_init": raw["global"], "far_distance": raw["limit"],
    }  # fmt: skip
    if "topk" in raw:
        every = case.raw["topk_queries"] == "every"
        given |= {
            "middle_topk": raw["topk"], "middle_position": raw["insert_at"],
            "middle_from_layer": raw.get("from_layer", 0),
            "middle_queries": "all" if every else "last",
        }  # fmt: skip
    return given


def feedings(name: str) -> list[list[int]]:
    """The recorded calls; others too where their cuts must not matter."""
    case = siblings.load(name)
    recorded = [span.stop - span.start for span in case.calls]
    if case.raw.get("topk_queries") != "every":
        return [recorded]
    n = sum(recorded)
    return [recorded, [n], [41, 1, 1, 30, n - 73]]


def selected(record: list[tuple[int, Tensor]], like: Tensor) -> Tensor:
    got = torch.full_like(like, -1)
    for position, keys in record:
        got[position, :, : keys.shape[1]] = keys.to(like.dtype)
    return got


ATTENTION = [
    (name, i)
    for name in siblings.names("lm-infinite", "attention")
    for i in range(len(feedings(name)))
]


@pytest.mark.parametrize(("name", "feeding"), ATTENTION)
def test_attention_level(name: str, feeding: int) -> None:
    case = siblings.load(name)
    policy = make_policy(ModelConfig(**settings(case)), case.layer())
    if isinstance(policy, MiddleLM):
        policy.record = []
    qkv, start, rows = case.qkv(), 0, []
    for n in feedings(name)[feeding]:
        q, k, v = (x[:, :, start : start + n] for x in qkv)
        rows.append(run_policy(policy, q, k, v, Call(0, start), q.shape[-1] ** -0.5))
        start += n
    o = torch.cat(rows, dim=1).transpose(1, 2)
    torch.testing.assert_close(o, case.arrays["o"], atol=case.raw["tolerance"]["o"], rtol=0)
    assert isinstance(policy, MiddleLM) == ("selected" in case.arrays)
    if isinstance(policy, MiddleLM):
        assert policy.record
        want = case.arrays["selected"]
        assert torch.equal(selected(policy.record, want), want)


MODEL = [
    (name, i) for name in siblings.names("lm-infinite", "model") for i in range(len(feedings(name)))
]


@pytest.mark.parametrize(("name", "feeding"), MODEL)
def test_model_level(name: str, feeding: int) -> None:
    case = siblings.load(name)
    with attach(case.model(), config={"model": settings(case), "chunk_size": 64}) as engine:
        session = engine.session()
        chosen = {i: p for i, p in session.policies.items() if isinstance(p, MiddleLM)}
        for policy in chosen.values():
            policy.record = []
        ids, rows = case.arrays["input_ids"].tolist(), []
        for n in feedings(name)[feeding]:
            rows.append(session.score(ids[:n], step=n == 1))
            ids = ids[n:]
    tolerance = case.raw["tolerance"]["logits"]
    torch.testing.assert_close(torch.cat(rows), case.arrays["logits"], atol=tolerance, rtol=0)
    want = case.arrays.get("selected")
    assert len(chosen) == (0 if want is None else 2)
    for layer, policy in chosen.items():
        assert want is not None
        assert policy.record
        assert torch.equal(selected(policy.record, want[layer]), want[layer])


def test_every_case_is_run() -> None:
    assert len(siblings.names("lm-infinite", "attention")) == 9
    assert len(siblings.names("lm-infinite", "model")) == 5
