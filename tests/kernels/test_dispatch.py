"""The table of Triton versions holds one of every operation that asks for it, called alike."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

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
