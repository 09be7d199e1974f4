"""SirLLM's output, its surprise and what it keeps equal to the recorded ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from infllm.engine import attach
from infllm.engine.attachment import Call
from infllm.engine.config import ModelConfig
from infllm.engine.policies import KeptTokens, make_policy, run_policy
from tests.engine import siblings


def settings(case: siblings.Case) -> dict[str, Any]:
    return {"type": "sirllm", "kv_dtype": "fp32", **case.config}


def assert_kept(kept: KeptTokens, case: siblings.Case, turn: int) -> None:
    """After eviction and decay, before the turn's own tokens."""
    want = case.arrays["cache_ids"][turn]
    assert kept.number.tolist() == want[want >= 0].tolist()
    if "cache_entropy" in case.arrays:
        surprise = case.arrays["cache_entropy"][turn][want >= 0]
        tolerance = case.raw["tolerance"]["cache_entropy"]
        torch.testing.assert_close(kept.surprise, surprise, atol=tolerance, rtol=1e-6)


@pytest.mark.parametrize("name", siblings.names("sirllm", "attention"))
def test_attention_level(name: str) -> None:
    case = siblings.load(name)
    config = ModelConfig(**settings(case))
    policy, kept = make_policy(config, case.layer()), KeptTokens.none()
    surprise = load_file(siblings.FOLDER / case.raw["inputs"])["entropy"].float()
    rows = []
    for turn, span in enumerate(case.calls):
        kept, stays = kept.make_room(config, span.stop - span.start)
        assert_kept(kept, case, turn)
        q, k, v = (x[:, :, span] for x in case.qkv())
        call = Call(0, span.start, stays=stays)
        rows.append(run_policy(policy, q, k, v, call, q.shape[-1] ** -0.5))
        kept = kept.append(span.start, surprise[span])
    o = torch.cat(rows, dim=1).transpose(1, 2)
    torch.testing.assert_close(o, case.arrays["o"], atol=case.raw["tolerance"]["o"], rtol=0)


@pytest.mark.parametrize("name", siblings.names("sirllm", "model"))
def test_model_level(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = siblings.load(name)
    entered: list[KeptTokens] = []
    appended: list[Tensor] = []
    make_room, append = KeptTokens.make_room, KeptTokens.append

    def entering(self: KeptTokens, *args: Any, **how: Any) -> tuple[KeptTokens, Tensor | None]:
        kept, stays = make_room(self, *args, **how)
        entered.append(kept)
        return kept, stays

    def appending(self: KeptTokens, first: int, surprise: Tensor) -> KeptTokens:
        appended.append(surprise)
        return append(self, first, surprise)

    monkeypatch.setattr(KeptTokens, "make_room", entering)
    monkeypatch.setattr(KeptTokens, "append", appending)
    with attach(
        case.model(), config={"model": settings(case), "chunk_size": 96}, check=False
    ) as engine:
        session = engine.session()
        ids = case.arrays["input_ids"].tolist()
        logits = torch.cat([session.score(ids[span]) for span in case.calls])
    tolerance = case.raw["tolerance"]
    torch.testing.assert_close(logits, case.arrays["logits"], atol=tolerance["logits"], rtol=0)
    surprise, want = torch.cat(appended), case.arrays["entropy"]
    torch.testing.assert_close(surprise, want, atol=tolerance["entropy"], rtol=0)
    for turn in range(len(case.calls)):
        assert_kept(entered[turn], case, turn)


def test_every_case_is_run() -> None:
    assert len(siblings.names("sirllm", "attention")) == 4
    assert len(siblings.names("sirllm", "model")) == 2
