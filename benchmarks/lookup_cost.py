"""What one decode step's lookups cost at any length: bytes read and seconds, by each rule.

One layer of a model's shape with keys of random numbers, which change neither; times the layers.
`moments` has the units beside that a question put first, as if it had put them far apart.
How well a rule chooses takes keys of a real text: `lookup_mass.py`.

    python benchmarks/lookup_cost.py --len 64K,1M --heads 14 --kv-heads 2 --head-dim 64 --layers 24
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import environment

from infllm.cli.tasks.lengths import parse_length
from infllm.engine.attachment import Layer, Rotary, Softmax
from infllm.engine.config import ModelConfig
from infllm.engine.units import UnitStore, key_masses, moment_masses
from infllm.engine.units.lookup_by_keys import OF_TOPK, n_candidates, reads_all
from infllm.kernels.quantize import storage_dtype
from infllm.kernels.rotate import Rope
from infllm.kernels.unit_topk import top_units

RULES = ("representatives", "keys", "moments")


def layer_of(args: argparse.Namespace) -> Layer:
    rope = Rope(10_000.0 ** (-torch.arange(args.head_dim // 2).double() / (args.head_dim // 2)))
    return Layer(
        0, args.heads, args.kv_heads, args.head_dim, torch.device("cpu"), torch.bfloat16,
        Rotary(rope),
    )  # fmt: skip


def filled(config: ModelConfig, layer: Layer, n: int) -> UnitStore:
    """A store of n units."""
    store, some = UnitStore(config, layer, 1), 256
    shape = (1, layer.n_kv_heads, some, config.block_size, layer.head_dim)
    g = torch.Generator().manual_seed(0)
    while store.n < n:
        k = torch.randn(shape, generator=g).to(layer.dtype)
        store.append(k, k, torch.randn(1, layer.n_heads, some, layer.head_dim, generator=g))
    return store


def bytes_of(config: ModelConfig, layer: Layer, store: UnitStore, rule: str) -> int:
    """Bytes that a lookup by `rule` reads in a layer."""
    n, d = store.n, layer.head_dim
    unit = layer.n_kv_heads * config.block_size * d * storage_dtype(config.kv_dtype).itemsize
    vector = d * store.index_dtype.itemsize
    if rule == "representatives":
        return n * layer.n_heads * vector
    if rule == "keys" or reads_all(store, n):
        return n * unit
    moments = 2 * layer.n_kv_heads * d * store.moment_dtype.itemsize
    return n * moments + (n_candidates(store, n, step=True) + OF_TOPK * store.most) * unit


def step(
    config: ModelConfig, store: UnitStore, rule: str, q: torch.Tensor, likely: torch.Tensor
) -> torch.Tensor:
    beside = torch.zeros(*q.shape[:3])
    how = Softmax(q.shape[-1] ** -0.5)
    if rule == "representatives":
        scores = store.scores(q.transpose(1, 2), 0, store.n, per_head=False)[:, 0]
    elif rule == "keys":
        scores = key_masses(store, q, beside, store.n, how, 1)
    else:
        scores = moment_masses(store, q, beside, store.n, how, 1, likely)
    return top_units(scores, config.topk)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--len", default="64K,1M", dest="lengths")
    parser.add_argument("--heads", type=int, default=14)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--block-size", type=int, default=64)
    parser.add_argument("--topk", type=int, default=8)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    layer = layer_of(args)
    config = ModelConfig(
        type="inf-llm", block_size=args.block_size, topk=args.topk, kv_dtype="bf16",
        unit_score="moments",
    )  # fmt: skip
    q = torch.randn(1, args.heads, 1, args.head_dim, generator=torch.Generator().manual_seed(1))
    rows: list[dict[str, Any]] = []
    print(f"{'tokens':>9} {'rule':16} {'MB a step':>9} {'of published':>12} {'CPU ms':>8} {'':>6}")
    for length in map(parse_length, args.lengths.split(",")):
        store = filled(config, layer, length // args.block_size)
        likely = torch.linspace(0, store.n - 1, OF_TOPK * store.most).long()[None]
        seconds: dict[str, list[float]] = {rule: [] for rule in RULES}
        for _ in range(args.times):
            for rule in RULES:  # in turns: what else runs slows all alike
                began = time.process_time()
                step(config, store, rule, q, likely)
                seconds[rule].append(time.process_time() - began)
        base = bytes_of(config, layer, store, RULES[0]), median(seconds[RULES[0]])
        for rule in RULES:
            size, took = bytes_of(config, layer, store, rule), median(seconds[rule])
            rows.append({
                "tokens": length, "rule": rule, "bytes": size * args.layers,
                "seconds": round(took * args.layers, 5), "bytes_ratio": round(size / base[0], 2),
                "seconds_ratio": round(took / base[1], 2),
            })  # fmt: skip
            print(f"{length:9,} {rule:16} {size * args.layers / 1e6:9.1f} {size / base[0]:12.2f} "
                  f"{took * args.layers * 1e3:8.1f} {took / base[1]:6.2f}", flush=True)  # fmt: skip
    report = {"benchmark": "lookup_cost", **environment(), "shape": vars(args) | {"output": None},
              "rows": rows}  # fmt: skip
    print(json.dumps(report))
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
