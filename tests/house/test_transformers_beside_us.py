"""transformers loads models from the repository's root, with and without a package `kernels`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from transformers.utils import import_utils

ROOT = Path(__file__).parents[2]

LOAD = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
import transformers.utils.import_utils as utils
config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                     num_attention_heads=2, num_key_value_heads=1)
model = LlamaForCausalLM(config)
print(tuple(model(torch.tensor([[1, 2, 3]])).logits.shape), utils.is_kernels_available())
from infllm.kernels.attend import attend
from infllm.engine import attach
with attach(model, config={"model": {"n_local": 16, "n_init": 2, "block_size": 4, "repr_topk": 1,
                                     "exc_block_size": 8}, "chunk_size": 8}) as engine:
    session = engine.session()
    print(tuple(session.score(list(range(20))).shape))
"""

# A stand-in for the distribution of that name: a class or a decorator for whatever is asked of it.
FAKE = """
class _Meta(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return 0

class _Anything(metaclass=_Meta):
    def __init__(self, *args, **kwargs):
        pass

def _decorator(*args, **kwargs):
    return lambda decorated: decorated

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything if name[0].isupper() else _decorator
"""


def load_a_llama(extra_path: Path | None) -> str:
    environment = dict(os.environ, TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    environment.pop("PYTHONPATH", None)
    if extra_path is not None:
        environment["PYTHONPATH"] = str(extra_path)
    done = subprocess.run(
        [sys.executable, "-c", LOAD],  # -c puts the current folder, the root, first on sys.path
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_distribution_named_kernels() -> None:
    assert load_a_llama(None).splitlines() == ["(1, 3, 32) False", "(20, 32)"]


def test_with_a_distribution_named_kernels(tmp_path: Path) -> None:
    version = getattr(import_utils, "KERNELS_MIN_VERSION", "0.18.2")
    for folder in ("kernels", "kernels/layer"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(FAKE)
    (tmp_path / "kernels" / "layer" / "mode.py").write_text(FAKE)
    info = tmp_path / f"kernels-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {version}\n")
    (info / "RECORD").write_text("kernels/__init__.py,,\n")
    assert load_a_llama(tmp_path).splitlines() == ["(1, 3, 32) True", "(20, 32)"]
