"""Copies beside the computing: what they bring is the same, and the host hardly waits."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from infllm.engine.units import store as units_module
from infllm.engine.units.staging import CudaStaging, Staging, make_staging
from tests.engine.served import SMALL_MEMORY
from tests.engine.tiny_models import ids
from tests.gpu.test_engine import attached
from tests.kernels.parts import rms_error

CHUNK = 64  # eight execution blocks


def logits(device: torch.device, variant: dict[str, Any]) -> torch.Tensor:
    with attached(device) as engine:
        session = engine.session(overrides=variant)
        session.chunk_size = CHUNK
        rows = [session.score(ids(20 * CHUNK)), session.score(ids(11, seed=7))]
        return torch.cat([*rows, session.score(ids(5, seed=3), step=True)]).cpu()


@pytest.mark.parametrize(
    "variant",
    [{}, {"repr_score": "dot"}, {"perhead": True}, {"kv_dtype": "int8"}, {"kv_dtype": "bf16"}],
    ids=str,
)
def test_asking_early_changes_no_bit(
    cuda: torch.device, variant: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(make_staging(cuda), CudaStaging)
    early = [logits(cuda, variant) for _ in range(3)]  # a copy too late would differ at times
    monkeypatch.setattr(units_module, "make_staging", Staging)
    at_once = logits(cuda, variant)
    for got in early:
        assert torch.equal(got, early[0])
        if variant.get("repr_score") == "dot":  # near keys are rounded by themselves
            assert rms_error(got, at_once) < 1e-4
        else:
            assert torch.equal(got, at_once)


@pytest.mark.parametrize("score", ["mass", "dot"])
def test_the_host_waits_once_a_call_and_layer(cuda: torch.device, score: str) -> None:
    with attached(cuda) as engine:
        session = engine.session(overrides={**SMALL_MEMORY, "repr_score": score})
        session.chunk_size = CHUNK
        session.read(ids(10 * CHUNK))
        # Setting the mode warns too, after it has set it.
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                torch.cuda.set_sync_debug_mode("warn")
                session.read(ids(4 * CHUNK))
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits = [w for w in told if "synchronizing" in str(w.message)]
        # One for the units of each layer's call, one for the call's token ids.
        assert len(waits) <= 4 * (len(engine.attachment.layers) + 1)


def test_pinned_memory_is_bounded(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    from infllm.engine.units import staging as module

    monkeypatch.setattr(module, "PINNED", 4096)
    staging = CudaStaging(cuda)
    source = torch.randn(64, 256, device=cuda)
    want = source.cpu()
    targets = [torch.empty(64, 256) for _ in range(20)]
    back = torch.empty(20, 64, 256, device=cuda)
    staging.begin(back)
    for i, target in enumerate(targets):
        staging.download(source, target, target)
        host = staging.empty((64, 256), torch.float32).copy_(want)
        staging.wait(staging.upload([host], back[i].copy_))
        assert max(staging._bytes_down, staging._bytes_up) <= 4096
    for i, target in enumerate(targets):
        staging.settle(target)
        assert torch.equal(target, want)
        assert torch.equal(back[i].cpu(), want)
