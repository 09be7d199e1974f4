"""Memory on a GPU while a long text is read: the index of the units grows, nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from infllm.engine import attach
from tests.engine.tiny_models import SERVED, build, ids

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "n_init": 16, "n_local": 256, "block_size": 32, "topk": 8, "repr_topk": 4,
    "exc_block_size": 128, "max_cached_block": 16, "kv_dtype": "int8",
}  # fmt: skip
CHUNK = 2048


@pytest.mark.parametrize("score", ["dot", "mass"])
def test_device_memory_is_flat_over_a_long_run(cuda, score: str) -> None:
    """Peak bytes at 512K tokens less those at 64K: no more than the index has grown."""
    model = build("llama", SERVED["llama"]).to(cuda)
    text = ids(CHUNK)
    with attach(model, config={"model": SETTINGS, "chunk_size": CHUNK}, check=False) as engine:
        session = engine.session(overrides={"repr_score": score})
        peaks, kept = [], []
        for stop in (2**16, 2**19):
            while session.stats.tokens_read < stop:
                if session.stats.tokens_read == stop - 16 * CHUNK:
                    torch.cuda.reset_peak_memory_stats(cuda)
                session.read(text)
            peaks.append(torch.cuda.max_memory_allocated(cuda))
            kept.append(session.stats.device_bytes)
        layers = len(engine.attachment.layers)
        width = engine.attachment.layers[0].n_heads * engine.attachment.layers[0].head_dim
    # A slab of the index is made whole; its size doubles up to 4096 units.
    slab = layers * 4096 * width * 4
    # Scores of a chunk's blocks against all units come and go.
    scores = 4 * (CHUNK // 128) * (2**19 // 32) * 4
    assert kept[1] > kept[0]
    assert peaks[1] - peaks[0] <= kept[1] - kept[0] + slab + scores


@pytest.mark.slow
def test_compute_sanitizer_finds_no_bad_access(cuda) -> None:
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        pytest.skip("no compute-sanitizer on this machine")
    done = subprocess.run(
        [tool, "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-m", "pytest", "-q",
         "-p", "no:cacheprovider", "tests/gpu/test_kernels.py", "-k",
         "bf16 and (window or unit or rotation or codes)"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    if "not supported" in done.stdout + done.stderr:
        pytest.skip("compute-sanitizer does not work on this machine")
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
