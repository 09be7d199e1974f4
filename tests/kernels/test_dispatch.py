"""The table of Triton versions holds one of every operation that asks for it, called alike."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from infllm.kernels import dispatch

FOLDER = Path(dispatch.__file__).parent
ASKS = re.compile(r'triton_version\("(\w+)"')


def operations() -> dict[str, str]:
    """Operation -> the module of its contract, for all that ask for a Triton version."""
    asked = {}
    for path in FOLDER.glob("*.py"):
        for name in ASKS.findall(path.read_text(encoding="utf-8")):
            asked[name] = f"infllm.kernels.{path.stem}"
    return asked


def test_the_table_has_every_operation_and_no_other() -> None:
    importlib.import_module(dispatch.VERSIONS)
    assert len(operations()) >= 10
    assert set(dispatch._triton) == set(operations())


def test_versions_are_called_as_their_contracts() -> None:
    importlib.import_module(dispatch.VERSIONS)
    for name, module in operations().items():
        contract = getattr(importlib.import_module(module), name)
        wanted = inspect.signature(contract).parameters
        assert list(inspect.signature(dispatch._triton[name]).parameters) == list(wanted), name


class OnCard:
    """A tensor of a card, as far as the choice of a version asks."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)


def test_a_version_runs_on_the_device_of_its_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current device, which need not be that of the model."""
    current = [0]

    @contextmanager
    def made_current(device: torch.device) -> Iterator[None]:
        before, current[0] = current[0], device.index
        yield
        current[0] = before

    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "device", made_current)
    monkeypatch.setitem(dispatch._triton, "attend", lambda: current[0])
    monkeypatch.delenv("INFLLM_KERNELS", raising=False)
    for index in (0, 1):
        version = dispatch.triton_version("attend", OnCard(f"cuda:{index}"))
        assert version is not None
        assert version() == index
    assert current == [0]


@pytest.mark.parametrize("there", [False, True])
def test_what_is_on_the_host_beside_a_gpu_takes_pytorch(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Lookups by all keys bring queries to the host, whose tensors no kernel of a GPU takes."""
    monkeypatch.setenv("INFLLM_KERNELS", "triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert dispatch.takes_triton(torch.empty(0)) is not there
    assert dispatch.takes_triton(OnCard("cuda:0"))
