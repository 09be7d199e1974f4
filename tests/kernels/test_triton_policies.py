"""Interpreted: a layer's memory over chunks and steps by the kernels that a GPU takes, units asked
for early, blocks together; against PyTorch's, block by block."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from infllm.engine.attachment import Call
from infllm.engine.config import ModelConfig
from infllm.engine.policies import FastInfLLM, InfLLM, run_policy
from infllm.engine.policies.ways import Together
from infllm.engine.units import store as units_module
from tests.engine.served import SMALL_MEMORY
from tests.engine.test_staging import LateStaging, layer
from tests.kernels.parts import rms_error

WAYS: list[dict[str, Any]] = [
    {"repr_score": "dot"},
    {"repr_score": "dot", "far_position": "exact", "kv_dtype": "int8"},
    {"repr_score": "dot", "perhead": True},
    {"repr_score": "dot", "repr_heads": "group"},
    {},
    {"far_position": "exact"},
]
CALLS = [(0, 48), (48, 32), (80, 1), (81, 1), (82, 13)]


def outputs(policy: InfLLM) -> Tensor:
    out = []
    for start, n in CALLS:
        g = torch.Generator().manual_seed(start)
        q, k, v = (torch.randn(1, heads, n, 16, generator=g) for heads in (4, 2, 2))
        out.append(run_policy(policy, q, k, v, Call(0, start), 0.25))
    return torch.cat(out, dim=1)


@pytest.mark.parametrize("variant", WAYS, ids=str)
def test_kernels_and_ways_give_what_pytorch_gives(
    variant: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(**{**SMALL_MEMORY, "kv_dtype": "fp32", **variant})
    want = outputs(InfLLM(config, layer()))
    together: list[Together] = []
    made = Together.__init__

    def watched(self: Together, *args: Any) -> None:
        together.append(self)
        made(self, *args)

    monkeypatch.setattr(Together, "__init__", watched)
    monkeypatch.setattr(units_module, "make_staging", lambda device: LateStaging())
    monkeypatch.setenv("INFLLM_KERNELS", "triton")
    got = outputs(FastInfLLM(config, layer()))
    assert bool(together) == (variant.get("repr_score") == "dot")
    assert rms_error(got, want) < 1e-5
