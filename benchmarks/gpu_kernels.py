"""Each kernel at a shape's sizes, beside its floor."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from gpu_report import Report

from infllm.cli.tasks.lengths import length_name
from infllm.cli.tasks.speed import Ceilings, seconds_of

if TYPE_CHECKING:
    import torch

    from infllm.engine import Engine


@dataclasses.dataclass(frozen=True)
class Trial:
    """One call of a kernel at the shape's sizes: operations, and bytes read and written."""

    name: str
    run: Callable[[], object]
    flop: float
    bytes: float


def measure_kernels(engine: Engine, report: Report, ceilings: Ceilings) -> None:
    deadline = report.deadline("kernels")
    for trial in [*attention_trials(engine), *unit_trials(engine), *sdpa_trials(engine)]:
        if time.monotonic() > deadline:
            report.row("kernels", trial.name, {"skipped": "no time left"})
            continue
        report.attempt("kernels", trial.name, lambda t=trial: kernel_row(t, engine, ceilings))


def kernel_row(trial: Trial, engine: Engine, ceilings: Ceilings) -> dict[str, Any]:
    seconds = seconds_of(trial.run, engine.device, 0.3 if engine.device.type == "cuda" else 0.02)
    floor = max(trial.flop / ceilings.matmul, trial.bytes / ceilings.copy)
    return {
        "seconds": seconds, "flop": trial.flop, "bytes": trial.bytes,
        "tflops": round(trial.flop / seconds / 1e12, 3),
        "gb_per_second": round(trial.bytes / seconds / 1e9, 3),
        "floor_seconds": floor, "of_floor": round(floor / seconds, 4),
    }  # fmt: skip


def attention_trials(engine: Engine) -> Iterator[Trial]:
    """A block: its window, its units, all that it attends, at each tile; near keys of a chunk at
    once and four blocks that go on from there; a decode step."""
    import torch

    from infllm.kernels.attend import attend, attend_state
    from infllm.kernels.partial_attention import Band, Part, State

    cfg, layer = engine.config.model, engine.attachment.layers[0]
    h, hkv, d = layer.n_heads, layer.n_kv_heads, layer.head_dim
    t, near, far = cfg.exc_block_size, cfg.n_local, cfg.topk * cfg.block_size
    scale = d**-0.5

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=engine.device, dtype=engine.dtype)

    def query(n: int, blocks: int = 1) -> torch.Tensor:
        return random(blocks, h, n, d)

    def window(q: torch.Tensor) -> Part:
        shape = (q.shape[0], hkv, near - 1 + q.shape[2], d)
        return Part(q, random(*shape), random(*shape), band=Band(near - 1, 0, near))

    pages = random(cfg.max_cached_block, 2, hkv, cfg.block_size, d)
    table = torch.randperm(cfg.max_cached_block, device=engine.device)[None, None, : cfg.topk]

    def units(q: torch.Tensor) -> Part:
        return Part(q, pages[:, 0], pages[:, 1], table=table.expand(q.shape[0], -1, -1))

    def init(q: torch.Tensor) -> Part:
        shape = (q.shape[0], hkv, cfg.n_init, d)
        return Part(q, random(*shape), random(*shape))

    def trial(name: str, parts: list[Part], keys: int, n: int, passes: int = 4) -> Trial:
        flop = float(passes) * h * d * n * keys
        moved = engine.dtype.itemsize * d * (2.0 * h * n + 2.0 * hkv * (keys + n))
        return Trial(name, lambda: attend(parts, scale), flop, moved)

    q, one = query(t), query(1)
    near_part, unit_part, init_part = window(q), units(q), init(q)
    all_keys = near + far + cfg.n_init
    yield trial("window of a block", [near_part], near, t)
    yield trial("units of a block", [unit_part], far, t)
    plain = trial("block", [near_part, init_part, unit_part], all_keys, t)
    watched = dataclasses.replace(near_part, mass="column")
    yield plain
    more = trial("block with mass", [watched, init_part, unit_part], all_keys, t)
    yield dataclasses.replace(more, flop=more.flop + 2.0 * h * d * t * near)
    yield from tile_trials(plain, [near_part, init_part, unit_part], scale)
    e = engine.config.chunk_size // t
    chunk = window(query(t, e))
    more = trial("near keys of a chunk", [chunk], near, t)
    more = dataclasses.replace(more, run=lambda: attend_state([chunk], scale))
    yield dataclasses.replace(more, flop=e * more.flop, bytes=e * more.bytes)
    four = query(t, min(4, e))
    state = State(four.float(), torch.randn(four.shape[:3], device=engine.device))
    behind = [init(four), units(four)]
    more = trial("four blocks behind their windows", behind, far + cfg.n_init, t)
    more = dataclasses.replace(more, run=lambda: attend(behind, scale, None, None, state))
    yield dataclasses.replace(more, flop=len(four) * more.flop, bytes=len(four) * more.bytes)
    yield trial("decode step", [window(one), init(one), units(one)], all_keys, 1)


def tile_trials(block: Trial, parts: list[Any], scale: float) -> Iterator[Trial]:
    """The attention of a block at each tile that the table has for the card."""
    from infllm.kernels.dispatch import takes_triton

    q, v = parts[0].q, parts[0].v
    if not takes_triton(q):
        return
    from infllm.kernels.triton.arguments import group_of
    from infllm.kernels.triton.joint_attention import joint_attention, plan_of
    from infllm.kernels.triton.tiles import block_m, padded, shared_kib, tiles

    plan = plan_of(parts, scale)
    assert plan is not None
    rows = block_m(q.shape[2] * group_of(parts[0]), v.shape[-1], q.dtype, False)
    dim = max(padded(q.shape[-1]), padded(v.shape[-1]))
    for tile in tiles(rows, dim, q.dtype, shared_kib(q.device), False):
        yield dataclasses.replace(
            block, name=f"block, {rows}x{'x'.join(map(str, tile))}",
            run=lambda tile=tile: joint_attention(plan, scale, tile=tile),
        )  # fmt: skip


def unit_trials(engine: Engine) -> Iterator[Trial]:
    """Lookups of a chunk's blocks among a million tokens' units, storing, rotating, host copies."""
    import torch

    from infllm.kernels.quantize import dequantize, quantize
    from infllm.kernels.query_sums import query_sums, window_scores
    from infllm.kernels.take_step import StepRows, take_step
    from infllm.kernels.unit_topk import Slabs, slab_scores, top_places, top_units

    cfg, layer = engine.config.model, engine.attachment.layers[0]
    h, hkv, d = layer.n_heads, layer.n_kv_heads, layer.head_dim
    device, dtype, size = engine.device, engine.dtype, engine.dtype.itemsize
    on_gpu = device.type == "cuda"
    n = 2**20 // cfg.block_size if on_gpu else 64
    blocks = engine.config.chunk_size // cfg.exc_block_size
    query = torch.randn(1, blocks, h, d, device=device)
    sizes = [min(64 << i, 4096) for i in range(16)]
    sizes = [m for i, m in enumerate(sizes) if sum(sizes[: i + 1]) <= n] or [n]
    slabs = Slabs([torch.randn(m, 1, h, d, device=device).to(dtype) for m in sizes])
    n = slabs.n
    scores = torch.randn(1, blocks, 1, n, device=device)
    flop = 2.0 * blocks * n * h * d
    moved = float(n * h * d * size + blocks * n * 4)
    yield Trial("unit scores", lambda: slab_scores(query, slabs, n), flop, moved)
    yield Trial("top units", lambda: top_units(scores, cfg.topk), 0.0, 4.0 * blocks * n)
    one = query[:, :1]
    yield Trial(
        "unit scores of a step", lambda: slab_scores(one, slabs, n), flop / blocks,
        float(n * h * d * size),
    )  # fmt: skip
    places = torch.zeros(n, dtype=torch.int64, device=device)
    told = torch.zeros(1 + cfg.topk, dtype=torch.int64, device=device)
    row = scores[:, :1].contiguous()
    yield Trial(
        "top units of a step", lambda: top_places(row, cfg.topk, places, told), 0.0, 4.0 * n
    )
    rows = [torch.zeros(1, hkv, cfg.n_local + 128, d, device=device, dtype=dtype) for _ in range(3)]
    sums = torch.zeros(1, h, cfg.n_local + 129, d, device=device)
    at = torch.tensor([cfg.n_local - 1], device=device)
    cos, sin = layer.rotary.tables(cfg.n_local + 128)
    q, k = (torch.randn(1, x, 1, d, device=device).to(dtype) for x in (h, hkv))
    kept = StepRows(*rows, None, sums)
    yield Trial(
        "a step's tokens", lambda: take_step(q, k, k, at, cos, sin, cfg.n_local - 1, kept), 0.0,
        2.0 * size * d * (h + 3 * hkv),
    )  # fmt: skip
    chunk = engine.config.chunk_size
    queries = torch.randn(1, h, chunk, d, device=device).to(dtype)
    before = torch.zeros(1, h, cfg.n_local + 1, d, device=device)
    all_sums = torch.zeros(1, h, cfg.n_local + 1 + chunk, d, device=device)
    keys = torch.randn(1, hkv, chunk, d, device=device).to(dtype)
    moved = float(4 * all_sums.numel() + 4 * before.numel() + size * queries.numel())
    yield Trial("sums of a chunk's queries", lambda: query_sums(queries, before), 0.0, moved)
    yield Trial(
        "scores of a chunk's tokens", lambda: window_scores(all_sums, keys, 0, cfg.n_local), 0.0,
        8.0 * queries.numel() + size * keys.numel(),
    )  # fmt: skip

    cut = engine.config.chunk_size // cfg.block_size
    kv = torch.randn(cut, 1, 2, hkv, cfg.block_size, d, device=device).to(dtype)
    codes, scale = quantize(kv, "int8")
    moved = float(kv.numel() * (size + 1) + kv.numel() // d * 4)
    yield Trial("quantize a chunk", lambda: quantize(kv, "int8"), 0.0, moved)
    yield Trial("dequantize a chunk", lambda: dequantize(codes, scale, dtype), 0.0, moved)
    rotary, moved = layer.rotary, 2.0 * queries.numel() * size
    yield Trial("rotate a chunk", lambda: rotary.run(queries, 0), 0.0, moved)
    if on_gpu:
        there = torch.empty_like(codes)
        here = torch.empty(codes.shape, dtype=codes.dtype, pin_memory=True)
        yield Trial(
            "pinned to device", lambda: there.copy_(here, non_blocking=True), 0.0, codes.nbytes
        )
        yield Trial(
            "device to pinned", lambda: here.copy_(there, non_blocking=True), 0.0, codes.nbytes
        )


def sdpa_trials(engine: Engine) -> Iterator[Trial]:
    """torch's own causal attention over one chunk, by each backend."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    layer = engine.attachment.layers[0]
    t, h, d = engine.config.chunk_size, layer.n_heads, layer.head_dim
    q = torch.randn(1, h, t, d, device=engine.device, dtype=engine.dtype)
    k, v = (
        torch.randn(1, layer.n_kv_heads, t, d, device=engine.device, dtype=engine.dtype)
        for _ in range(2)
    )
    backends = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
    if engine.device.type != "cuda":
        backends = {"math": SDPBackend.MATH}
    flop = 2.0 * h * d * t * t
    moved = float(engine.dtype.itemsize * d * t * (2 * h + 2 * layer.n_kv_heads))
    for name, backend in backends.items():

        def run(backend: SDPBackend = backend) -> torch.Tensor:
            with sdpa_kernel(backend):
                return torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, is_causal=True, enable_gqa=True
                )

        yield Trial(f"SDPA {name}, causal, {length_name(t)} keys", run, flop, moved)
