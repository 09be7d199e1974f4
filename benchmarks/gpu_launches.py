"""Launches, host waits and Python time of a layer on a GPU, counted without one.

Is a chunk, or a decode step, bound by what the host must launch? One layer of the Llama-3-8B shape,
thin: as many heads, execution blocks, units and slabs, in vectors and blocks so small that what a
CPU computes takes no time. Triton kernels are specialised and launched up to where the device
begins, PyTorch's operators are counted, and a wait is each call that needs a value on the host.

    python benchmarks/gpu_launches.py                      # a document of a million tokens
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from common import environment

if TYPE_CHECKING:
    from torch import Tensor

    from infllm.engine.policies import FastInfLLM

HEADS, KV_HEADS, DIM = 32, 8, 16
# Each a 16th of the published: blocks of 512 queries and units of 128 tokens become 32 and 8.
SETTINGS = {
    "type": "inf-llm", "n_init": 8, "n_local": 256, "block_size": 8, "topk": 16, "repr_topk": 4,
    "max_cached_block": 64, "exc_block_size": 32, "kv_dtype": "int8",
    "unit_score": "representatives",
}  # fmt: skip
CHUNK = 512


def staging() -> Any:
    """Copies as a GPU makes them: asked for early, gathered by a thread; what the host does to its
    own tensors is no launch."""
    from infllm.engine.units.staging import Staging, Threads
    from infllm.kernels.launches import uncounted

    class Early(Staging):
        ahead = True

        def __init__(self) -> None:
            super().__init__()
            self.threads = Threads()

        def upload_later(self, gather: Any, put: Any) -> Any:
            with uncounted():
                host = self.threads.up(gather).result()
            return self.upload(host, put)

    return Early()


def chosen_apart(arguments: dict[str, Any]) -> None:
    """In place of the choice of units: every row chooses others, as many as there are."""
    import torch

    out, n, k = arguments["out"], arguments["n_units"], arguments["k"]
    rows = torch.arange(out.numel(), device=out.device) * 7 % int(n)
    out.copy_(rows.view(-1, k).sort(dim=1).values.view_as(out))


def layer() -> Any:
    import torch

    from infllm.engine.attachment import Layer, Rotary
    from infllm.kernels.rotate import Rope

    freq = 500000.0 ** (-torch.arange(DIM // 2, dtype=torch.float64) / (DIM // 2))
    return Layer(0, HEADS, KV_HEADS, DIM, torch.device("cpu"), torch.float32, Rotary(Rope(freq)))


def tokens(n: int) -> tuple[Tensor, Tensor, Tensor]:
    import torch

    return tuple(  # type: ignore[return-value]
        torch.randn(1, n, heads, DIM).transpose(1, 2) for heads in (HEADS, KV_HEADS, KV_HEADS)
    )


def read(policy: FastInfLLM, n: int) -> None:
    """One call of n tokens, as a session makes it."""
    from infllm.engine.attachment import Call
    from infllm.engine.policies import run_policy

    run_policy(policy, *tokens(n), Call(policy.count, policy.count), DIM**-0.5)


def with_units(settings: dict[str, Any], units: int) -> FastInfLLM:
    """The memory of a layer that has read a few chunks, and has `units` units by now."""
    import torch

    from infllm.engine.config import ModelConfig
    from infllm.engine.policies import FastInfLLM
    from infllm.engine.units import store as units_module

    units_module.make_staging = lambda device: staging()
    policy = FastInfLLM(ModelConfig(**settings), layer())
    for _ in range(2):
        read(policy, CHUNK)
    store = policy.units
    assert store is not None
    while store.n < units:
        n = min(1024, units - store.n)
        kv = (torch.randn(1, KV_HEADS, n, policy.config.block_size, DIM) for _ in range(2))
        store.append(*kv, torch.randn(1, HEADS, n, DIM))
    read(policy, CHUNK)
    return policy


def chunk_row(settings: dict[str, Any], units: int, repeats: int) -> dict[str, Any]:
    """A layer and chunk of prefill."""
    from infllm.kernels.launches import PROCESSORS, counted

    stands = {"top_units_kernel": chosen_apart}
    few = PROCESSORS // 16  # blocks have a 16th of the queries
    with counted(stands, processors=few) as counts:
        policy = with_units(settings, units)
        given = tokens(CHUNK)
        counts.clear()
        read_these(policy, given)
        found = {
            "launches": counts.launches, "triton": dict(counts.triton),
            "torch": dict(counts.torch.most_common()), "waits": dict(counts.waits),
            "compiled": counts.compiled.total(),
        }  # fmt: skip
        counts.clear()
        for n in (CHUNK - 8, CHUNK - 3, 77, CHUNK, 33):
            read(policy, n)
        found["compiled_by_other_lengths"] = dict(counts.compiled)
    with counted(stands, operators=False, processors=few):
        policy = with_units(settings, units)
        given = [tokens(CHUNK) for _ in range(repeats)]
        found["python_ms"] = milliseconds(lambda: read_these(policy, given.pop()), repeats)
    return found


def read_these(policy: FastInfLLM, qkv: Sequence[Tensor]) -> None:
    from infllm.engine.attachment import Call
    from infllm.engine.policies import run_policy

    run_policy(policy, *qkv, Call(policy.count, policy.count), DIM**-0.5)  # type: ignore[arg-type]


def step_row(settings: dict[str, Any], units: int) -> dict[str, Any]:
    """A layer of a recorded decode step: its nodes in the graph."""
    import torch

    from infllm.engine.attachment import Call
    from infllm.engine.policies import run_policy
    from infllm.kernels.launches import counted

    with counted({"top_units_kernel": chosen_apart}) as counts:
        policy = with_units(settings, units)
        read(policy, 1)
        clock = torch.zeros(3, dtype=torch.int64)
        clock.copy_(torch.tensor(policy.times()))
        policy.open_recording(clock, torch.zeros(policy.n_asked, dtype=torch.int64))
        qkv = tokens(1)
        call = Call(policy.count, policy.count, recorded=True)
        run_policy(policy, *qkv, call, DIM**-0.5)  # as before a capture
        counts.clear()
        run_policy(policy, *qkv, call, DIM**-0.5)
    return {
        "nodes": counts.launches, "triton": dict(counts.triton),
        "torch": dict(counts.torch.most_common()), "waits": dict(counts.waits),
    }  # fmt: skip


def milliseconds(run: Callable[[], object], repeats: int) -> float:
    """Least CPU time of a call in this thread: what others do on the machine only adds to it."""
    times: deque[float] = deque()
    for _ in range(repeats):
        began = time.thread_time()
        run()
        times.append(time.thread_time() - began)
    return round(1e3 * min(times), 2)


def rows(units: int, repeats: int) -> dict[str, Any]:
    """All figures, by score and position rule."""
    found: dict[str, Any] = {}
    for name, more in (
        ("dot", {"repr_score": "dot"}),
        ("mass", {"repr_score": "mass"}),
        ("dot, exact", {"repr_score": "dot", "far_position": "exact"}),
    ):
        settings = {**SETTINGS, **more}
        found[name] = {
            "chunk": chunk_row(settings, units, repeats), "step": step_row(settings, units),
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--units", type=int, default=8192, help="in memory: 8192 are 1M tokens")
    parser.add_argument("--repeats", type=int, default=8)
    args = parser.parse_args()
    os.environ["INFLLM_KERNELS"] = "triton"
    os.environ.pop("TRITON_INTERPRET", None)
    import torch

    torch.set_num_threads(1)
    found = rows(args.units, args.repeats)
    for name, row in found.items():
        chunk, step = row["chunk"], row["step"]
        print(
            f"{name}: a layer and chunk {chunk['launches']} launches "
            f"({sum(chunk['triton'].values())} Triton), {sum(chunk['waits'].values())} waits, "
            f"{chunk['python_ms']} ms of Python; a layer of a step {step['nodes']} nodes "
            f"({sum(step['triton'].values())} Triton)"
        )
    print(json.dumps({"benchmark": "gpu_launches", **environment(), "units": args.units, **found}))


if __name__ == "__main__":
    main()
