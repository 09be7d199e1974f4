"""Checks that need a GPU: `make test-gpu`. Elsewhere they are skipped.

With TRITON_INTERPRET=1 they run on a CPU, the kernels interpreted, which rehearses the checks
themselves; the interpreter's bfloat16 products are wrong, so those are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture
def device() -> torch.device:
    """A GPU; a CPU for a rehearsal."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if INTERPRETED:
        return torch.device("cpu")
    pytest.skip("no CUDA device")


@pytest.fixture
def kernel_device(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where Triton kernels run: a GPU, or a CPU where they are interpreted."""
    monkeypatch.setenv("INFLLM_KERNELS", "triton")
    return device


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    """A GPU and nothing else; what the test left on it is freed."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    yield torch.device("cuda")
    torch.cuda.empty_cache()


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    if INTERPRETED and request.param is torch.bfloat16:
        pytest.skip("the interpreter's bfloat16 products are wrong")
    return request.param
