"""What tests of benchmarks share."""

import pytest

from infllm.engine import load
from infllm.engine.text import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Of the built-in model."""
    with load("pocket", check=False) as engine:
        return engine.tokenizer
