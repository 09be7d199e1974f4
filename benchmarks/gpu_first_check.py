"""The steps of the first light's `check`, each in a process of its own: rows as JSON lines."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from common import environment
from gpu_kernels import Trial, attention_trials, kernel_row, sdpa_trials, unit_trials
from gpu_shapes import SHAPES, Shape

if TYPE_CHECKING:
    import torch

GIB = 2**30
# What an H200 was predicted to reach before any card had run this: TFLOP/s from what the loops of
# the machine code issue, and the traffic of all else at 4 TB/s.
PREDICTED = {
    "block": {"tflops": 500}, "near keys of a chunk": {"tflops": 500},
    "window of a block": {"tflops": 480}, "four blocks behind their windows": {"tflops": 450},
    "block with mass": {"tflops": 400}, "decode step": {"seconds": 20e-6},
    "unit scores of a step": {"seconds": 22e-6}, "top units of a step": {"seconds": 28e-6},
    "a step's tokens": {"seconds": 4e-6}, "sums of a chunk's queries": {"seconds": 120e-6},
    "scores of a chunk's tokens": {"seconds": 80e-6}, "running sum by torch": {"seconds": 2.5e-3},
}  # fmt: skip


def tell(**row: Any) -> None:
    """A row; what was predicted of its name beside it."""
    predicted = PREDICTED.get(row.get("name", ""))
    print(json.dumps(row | ({"predicted": predicted} if predicted else {})), flush=True)


def like_engine(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    """What the trials ask of an engine, without a model."""
    import torch

    from infllm.engine.attachment import Layer, Rotary
    from infllm.engine.config import Config
    from infllm.kernels.rotate import Rope

    d = shape.model["head_dim"]
    freq = 500000.0 ** (-torch.arange(d // 2, dtype=torch.float64, device=device) / (d // 2))
    layer = Layer(
        0, shape.model["num_attention_heads"], shape.model["num_key_value_heads"], d, device, dtype,
        Rotary(Rope(freq)),
    )  # fmt: skip
    config = Config.model_validate({"model": shape.settings, "chunk_size": shape.chunk_size})
    return SimpleNamespace(
        device=device, dtype=dtype, config=config, attachment=SimpleNamespace(layers=[layer])
    )


def engine_of(args: argparse.Namespace) -> Any:
    import torch

    device = torch.device(args.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return like_engine(SHAPES[args.shape], device, dtype)


# ---- ceilings -----------------------------------------------------------------------------------


def ceilings(args: argparse.Namespace) -> None:
    """What the machine gives: the host's memory, the way to the device, the device."""
    import torch

    from infllm.cli.tasks.speed import measure_ceilings, seconds_of

    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    facts = environment()
    if on_gpu:
        card = torch.cuda.get_device_properties(device)
        facts |= {"device": card.name, "cuda": torch.version.cuda,
                  "multiprocessors": card.multi_processor_count}  # fmt: skip
    tell(name="environment", **facts)
    n_bytes = 8 * GIB if on_gpu else 2**26
    for name in ("first touch", "second allocation"):
        began = time.perf_counter()
        torch.empty(n_bytes, dtype=torch.uint8).zero_()
        tell(name=name, gb_per_second=round(n_bytes / (time.perf_counter() - began) / 1e9, 2))
    engine = engine_of(args)
    found = measure_ceilings(device, engine.dtype)
    tell(name="product and copy", tflops=found.matmul / 1e12, gb_per_second=found.copy / 1e9)
    if on_gpu:
        here = torch.empty(GIB // 4, dtype=torch.uint8, pin_memory=True)
        there = torch.empty_like(here, device=device)
        for name, run in (
            ("pinned to device", lambda: there.copy_(here, non_blocking=True)),
            ("device to pinned", lambda: here.copy_(there, non_blocking=True)),
        ):
            tell(name=name, gb_per_second=here.nbytes / seconds_of(run, device, 0.1) / 1e9)
    layer = engine.attachment.layers[0]
    q = torch.randn(
        1, layer.n_heads, engine.config.chunk_size, layer.head_dim, device=device
    )  # fmt: skip
    tell(name="running sum by torch", seconds=seconds_of(lambda: q.cumsum(dim=2), device, 0.1))


# ---- compiling ----------------------------------------------------------------------------------


def compile_all(args: argparse.Namespace) -> None:
    """Every kernel at the shape's sizes launched once, by processes side by side: what they compile
    is found by all that come later."""
    jobs = min(12, os.cpu_count() or 1) if args.device != "cpu" else 1
    context = multiprocessing.get_context("spawn")
    began = time.perf_counter()
    with context.Pool(jobs, maxtasksperchild=None) as pool:
        work = [(i, jobs, args) for i in range(jobs)]
        for rows in pool.imap_unordered(_compile_share, work):
            for row in rows:
                print(json.dumps(row), flush=True)
    tell(name="all compiled", seconds=round(time.perf_counter() - began, 2), processes=jobs)


def _compile_share(work: tuple[int, int, argparse.Namespace]) -> list[dict[str, Any]]:
    """A share of the trials, and in two of the shares whole layers by the way of sessions."""
    i, jobs, args = work
    engine = engine_of(args)
    every: list[tuple[str, Callable[[], object]]] = [
        (f"a layer, {score}", lambda score=score: a_layer(engine, score))
        for score in ("dot", "mass")
    ]
    every += [(trial.name, trial.run) for trial in trials(engine)]
    rows = []
    for name, run in every[i::jobs]:
        began = time.perf_counter()
        try:
            run()
            row: dict[str, Any] = {"seconds": round(time.perf_counter() - began, 2)}
        except Exception as error:  # one kernel's fault is no other's
            row = {"error": f"{type(error).__name__}: {error}"[:400]}
        rows.append({"name": name, **row})
    return rows


def trials(engine: Any) -> Iterator[Trial]:
    yield from attention_trials(engine)
    yield from unit_trials(engine)


def a_layer(engine: Any, score: str) -> None:
    """Three chunks and a few steps of a layer, its attention and memory alone."""
    import torch

    from infllm.engine.attachment import Call
    from infllm.engine.policies import FastInfLLM, run_policy

    layer, chunk = engine.attachment.layers[0], engine.config.chunk_size
    config = engine.config.with_overrides({"repr_score": score}).model
    policy = FastInfLLM(config, layer)
    with torch.no_grad():
        for n in (chunk, chunk, chunk, 1, 1):
            q, k, v = (
                torch.randn(1, n, h, layer.head_dim, device=engine.device)
                .to(engine.dtype).transpose(1, 2)
                for h in (layer.n_heads, layer.n_kv_heads, layer.n_kv_heads)
            )  # fmt: skip
            run_policy(policy, q, k, v, Call(policy.count, policy.count), layer.head_dim**-0.5)


# ---- attention ----------------------------------------------------------------------------------


def attention(args: argparse.Namespace) -> None:
    """One block's attention against float32, then the time of each kernel while there is any."""
    deadline = time.monotonic() + args.seconds
    import torch

    from infllm.cli.tasks.speed import measure_ceilings
    from infllm.kernels.attend import attend, attend_reference

    engine = engine_of(args)
    parts = block_of(engine)
    scale = engine.attachment.layers[0].head_dim ** -0.5
    got, _ = attend(parts, scale)
    want, _ = attend_reference([in_float32(part) for part in parts], scale)
    error = (got.float() - want).pow(2).mean().sqrt() / want.pow(2).mean().sqrt()
    tell(name="attention of a block against float32", relative_rms=float(error),
         right=bool(error < 1e-2))  # fmt: skip
    found = measure_ceilings(torch.device(args.device), engine.dtype)
    for trial in [*attention_trials(engine), *sdpa_trials(engine), *unit_trials(engine)]:
        if time.monotonic() > deadline - 2:
            tell(name=trial.name, skipped="no time left")
            continue
        try:
            tell(name=trial.name, **kernel_row(trial, engine, found))
        except Exception as error:
            tell(name=trial.name, error=f"{type(error).__name__}: {error}"[:400])


def block_of(engine: Any) -> list[Any]:
    """What a block of queries attends, of random numbers."""
    import torch

    from infllm.kernels.partial_attention import Band, Part

    cfg, layer = engine.config.model, engine.attachment.layers[0]
    h, hkv, d, t = layer.n_heads, layer.n_kv_heads, layer.head_dim, cfg.exc_block_size

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=engine.device).to(engine.dtype)

    def keys(n: int) -> list[torch.Tensor]:
        return [random(1, hkv, n, d) for _ in range(2)]

    q, far, near = random(1, h, t, d), random(1, h, t, d), cfg.n_local
    pages = random(2 * cfg.topk, 2, hkv, cfg.block_size, d)
    table = torch.randperm(2 * cfg.topk, device=engine.device)[None, None, : cfg.topk]
    waiting = t + cfg.block_size // 2
    return [
        Part(q, *keys(near - 1 + t), band=Band(near - 1, 0, near)),
        Part(far, *keys(cfg.n_init)),
        Part(far, pages[:, 0], pages[:, 1], table=table),
        Part(far, *keys(waiting), band=Band(near + cfg.block_size // 2, near)),
    ]


def in_float32(part: Any) -> Any:
    import dataclasses

    return dataclasses.replace(part, q=part.q.float(), k=part.k.float(), v=part.v.float())


STEPS = {"ceilings": ceilings, "compile": compile_all, "attention": attention}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    STEPS[args.step](args)


if __name__ == "__main__":
    sys.exit(main())
