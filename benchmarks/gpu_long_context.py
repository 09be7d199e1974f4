"""Reading a million tokens on a GPU: kernels, prefill, decoding and memory beside their floors.

One shape of model a command, with random weights made on the device: nothing is downloaded. The
figures are written after every row, so that a run that is cut short keeps what it measured. Floors
are counted from the model's shape and divided by what a large matrix product and a large copy reach
on the same device, in the same run.

    python benchmarks/gpu_long_context.py --shape llama-3-8b
    python benchmarks/gpu_long_context.py --shape toy --device cpu     # rehearsal, interpreted
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import environment

from infllm.cli.tables import Table
from infllm.cli.tasks.lengths import length_name, parse_length
from infllm.cli.tasks.speed import (
    Ceilings,
    measure,
    measure_ceilings,
    random_ids,
    seconds_of,
    synchronize,
    time_split,
)
from infllm.cli.work import reading_work
from infllm.engine.errors import EngineError

if TYPE_CHECKING:
    import torch

    from infllm.engine import Engine
    from infllm.engine.session import Session

RESULTS = Path(__file__).parent / "results"
PARTS = ("kernels", "prefill", "decode", "dense")
FAILURES = (EngineError, RuntimeError, ValueError)  # out of memory, a backend that is not there
PROFILED_STEPS = 4  # decode steps at most whose time is split
ROWS = {"kernels": 0.15, "dot": 0.35, "mass": 0.6, "dense": 1.0}  # share of the time then left


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model's shape and the memory's settings; sizes as the models' makers publish them."""

    kind: str  # transformers' model type
    model: dict[str, Any]
    settings: dict[str, Any]
    chunk_size: int
    lengths: str
    dense_to: str  # longest length that the whole model reads with full attention
    decode_steps: int = 64


PUBLISHED = {
    "n_init": 128, "n_local": 4096, "block_size": 128, "topk": 16, "repr_topk": 4,
    "max_cached_block": 32, "exc_block_size": 512, "kv_dtype": "int8",
}  # fmt: skip
LONG = {"chunk_size": 8192, "lengths": "32K,128K,512K,1M", "dense_to": "128K"}
SHAPES = {
    "llama-3-8b": Shape(
        "llama",
        {
            "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "head_dim": 128, "tie_word_embeddings": False,
        },
        PUBLISHED, **LONG,
    ),
    "qwen3-4b": Shape(
        "qwen3",
        {
            "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728,
            "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
            "head_dim": 128, "tie_word_embeddings": True,
        },
        PUBLISHED, **LONG,
    ),
    "1b": Shape(
        "llama",
        {
            "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
            "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
            "head_dim": 64, "tie_word_embeddings": True,
        },
        PUBLISHED, **LONG,
    ),
    "toy": Shape(
        "llama",
        {
            "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
            "tie_word_embeddings": False,
        },
        PUBLISHED | {
            "n_init": 8, "n_local": 32, "block_size": 8, "topk": 2, "repr_topk": 2,
            "max_cached_block": 4, "exc_block_size": 32,
        },
        chunk_size=64, lengths="64,128", dense_to="64", decode_steps=1,
    ),
}  # fmt: skip


def failure(error: Exception) -> dict[str, Any]:
    return {"error": f"{type(error).__name__}: {error}"[:300]}


class Report:
    """The figures so far, written to a file after every row."""

    def __init__(self, path: Path, head: dict[str, Any], deadline: float) -> None:
        self.path = path
        self.head = head
        self.rows: list[dict[str, Any]] = []
        self._deadline = deadline
        self.write()

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def deadline(self, part: str) -> float:
        """When a part must have ended, of `time.monotonic`."""
        return time.monotonic() + ROWS[part] * max(0.0, self.seconds_left)

    def row(self, part: str, name: str, fields: dict[str, Any]) -> None:
        self.rows.append({"part": part, "name": name, **fields})
        print(json.dumps(self.rows[-1]), file=sys.stderr, flush=True)
        self.write()

    def attempt(self, part: str, name: str, run: Callable[[], dict[str, Any]]) -> None:
        """A row of what `run` gives, or of why it gives nothing: the others go on."""
        if self.seconds_left <= 0:
            self.row(part, name, {"skipped": "no time left"})
            return
        try:
            self.row(part, name, run())
        except FAILURES as error:
            self.row(part, name, failure(error))

    def as_dict(self) -> dict[str, Any]:
        return {"benchmark": "gpu_long_context", **self.head, "rows": self.rows}

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".part")
        draft.write_text(json.dumps(self.as_dict(), indent=1) + "\n")
        os.replace(draft, self.path)


# ---- kernels ------------------------------------------------------------------------------------


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
    """A block: its window, its units, all that it attends; four blocks at once; a decode step."""
    import torch

    from infllm.kernels.attend import attend
    from infllm.kernels.partial_attention import Band, Part

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
    yield trial("block", [near_part, init_part, unit_part], all_keys, t)
    watched = dataclasses.replace(near_part, mass="column")
    more = trial("block with mass", [watched, init_part, unit_part], all_keys, t)
    yield dataclasses.replace(more, flop=more.flop + 2.0 * h * d * t * near)
    four = query(t, 4)
    more = trial("four blocks at once", [window(four), init(four), units(four)], all_keys, t)
    yield dataclasses.replace(more, flop=4 * more.flop, bytes=4 * more.bytes)
    yield trial("decode step", [window(one), init(one), units(one)], all_keys, 1)


def unit_trials(engine: Engine) -> Iterator[Trial]:
    """Lookups of a chunk's blocks among a million tokens' units, storing, rotating, host copies."""
    import torch

    from infllm.kernels.quantize import dequantize, quantize
    from infllm.kernels.unit_topk import top_units, unit_scores

    cfg, layer = engine.config.model, engine.attachment.layers[0]
    h, hkv, d = layer.n_heads, layer.n_kv_heads, layer.head_dim
    device, dtype, size = engine.device, engine.dtype, engine.dtype.itemsize
    on_gpu = device.type == "cuda"
    n = 2**20 // cfg.block_size if on_gpu else 64
    blocks = engine.config.chunk_size // cfg.exc_block_size
    query = torch.randn(1, blocks, h, d, device=device)
    index = torch.randn(1, n, h, d, device=device).to(dtype)
    scores = torch.randn(1, blocks, 1, n, device=device)
    flop = 2.0 * blocks * n * h * d
    moved = float(n * h * d * size + blocks * n * 4)
    yield Trial("unit scores", lambda: unit_scores(query, index), flop, moved)
    yield Trial("top units", lambda: top_units(scores, cfg.topk), 0.0, 4.0 * blocks * n)

    cut = engine.config.chunk_size // cfg.block_size
    kv = torch.randn(cut, 1, 2, hkv, cfg.block_size, d, device=device).to(dtype)
    codes, scale = quantize(kv, "int8")
    moved = float(kv.numel() * (size + 1) + kv.numel() // d * 4)
    yield Trial("quantize a chunk", lambda: quantize(kv, "int8"), 0.0, moved)
    yield Trial("dequantize a chunk", lambda: dequantize(codes, scale, dtype), 0.0, moved)
    q = torch.randn(1, h, engine.config.chunk_size, d, device=device).to(dtype)
    rotary = layer.rotary
    yield Trial("rotate a chunk", lambda: rotary.run(q, 0), 0.0, 2.0 * q.numel() * size)
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


# ---- reading and decoding -----------------------------------------------------------------------


def measure_policy(
    engine: Engine, report: Report, ceilings: Ceilings, score: str, lengths: list[int], steps: int
) -> None:
    """One reading with representative scores by `score`: a row, with `steps` decode steps, at each
    length."""
    if report.seconds_left <= 0:
        report.row("prefill", f"inf-llm {score}", {"skipped": "no time left"})
        return
    ids = random_ids(engine, engine.config.chunk_size)
    splits: list[dict[str, Any]] = []

    def at_length(session: Session) -> None:
        split = {"chunk_split": time_split(lambda: session.read(ids), engine.device)}
        if steps:
            session.end()
            some = random_ids(engine, min(steps, PROFILED_STEPS))
            split["decode_split"] = time_split(
                lambda: session.score(some, step=True), engine.device
            )
        splits.append(split)

    def rows() -> None:
        for row in measure(
            engine,
            {"repr_score": score},
            lengths,
            decode_steps=steps,
            deadline=report.deadline(score),
            ceilings=ceilings,
            at_length=at_length,
        ):
            assert row.floors is not None
            fields = dataclasses.asdict(row) | splits[-1]
            fields["of_floor"] = round(row.floors.prefill / row.seconds, 4)
            if row.decode_tokens_per_second is not None:
                fields["decode_of_floor"] = round(
                    row.floors.decode * row.decode_tokens_per_second, 4
                )
            report.row("prefill", f"inf-llm {score}", fields)

    try:
        rows()
    except FAILURES as error:
        report.row("prefill", f"inf-llm {score}", failure(error))


# ---- dense attention ----------------------------------------------------------------------------


def measure_dense(
    model: Any, engine: Engine, report: Report, ceilings: Ceilings, lengths: list[int], most: int
) -> None:
    """Full attention by torch: the whole model to `most` tokens, beyond it one layer."""
    for n in lengths:
        if n <= most:
            report.attempt("dense", "whole model", lambda n=n: whole_model(model, engine, n))
        else:
            report.attempt(
                "dense", "one layer x layers", lambda n=n: one_layer(model, engine, n, report)
            )
        row = report.rows[-1]
        if "seconds" in row:
            spec = model.config.to_dict()
            full = engine.config.with_overrides({"type": "origin"}).model
            work = reading_work(spec, engine.attachment.layers, full, n)
            row["of_floor"] = round(work.total / ceilings.matmul / row["seconds"], 4)
            report.write()


def whole_model(model: Any, engine: Engine, n: int) -> dict[str, Any]:
    """Seconds of one forward pass over n tokens."""
    import torch

    ids = torch.tensor([random_ids(engine, n)], device=engine.device)
    with torch.no_grad(), fast_attention(engine.device):
        model(ids[:, : min(n, 1024)], use_cache=False, logits_to_keep=1)  # warm-up
        synchronize(engine.device)
        began = time.perf_counter()
        model(ids, use_cache=False, logits_to_keep=1)
        synchronize(engine.device)
        seconds = time.perf_counter() - began
    return dense_row(n, seconds)


def one_layer(model: Any, engine: Engine, n: int, report: Report) -> dict[str, Any]:
    """Seconds of the model as one layer's attention over n tokens, and its products with weights
    over one chunk, times the chunks and the layers. Norms, rotation and the rest count as nothing.
    """
    import torch

    layer = engine.attachment.layers[0]
    h, hkv, d = layer.n_heads, layer.n_kv_heads, layer.head_dim
    device, dtype = engine.device, engine.dtype
    block = model.model.layers[0]
    chunk = engine.config.chunk_size
    hidden = torch.randn(1, chunk, model.config.hidden_size, device=device, dtype=dtype)
    heads = torch.randn(1, chunk, h * d, device=device, dtype=dtype)
    inputs = [(part, hidden) for part in (block.self_attn.q_proj, block.self_attn.k_proj,
                                          block.self_attn.v_proj, block.mlp)]  # fmt: skip

    def products() -> None:
        for part, x in (*inputs, (block.self_attn.o_proj, heads)):
            part(x)

    def attention(t: int) -> Callable[[], torch.Tensor]:
        q = torch.randn(1, h, t, d, device=device, dtype=dtype)
        k, v = (torch.randn(1, hkv, t, d, device=device, dtype=dtype) for _ in range(2))
        return lambda: torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=True
        )

    with torch.no_grad(), fast_attention(device):
        linear = seconds_of(products, device)
        # Seconds of a shorter one tell what this one will take.
        expected = seconds_of(attention(n // 8), device) * 64
        if expected > report.seconds_left:
            return {"tokens": n, "skipped": f"about {expected:.0f} s, no time left"}
        run = attention(n)
        synchronize(device)
        began = time.perf_counter()
        run()
        synchronize(device)
        attended = time.perf_counter() - began
    layers = len(engine.attachment.layers)
    seconds = layers * (attended + linear * n / chunk)
    return dense_row(n, seconds) | {
        "one_layer_times_layers": layers,
        "layer_attention_seconds": attended,
        "layer_linear_seconds": linear * n / chunk,
    }


def dense_row(n: int, seconds: float) -> dict[str, Any]:
    return {
        "tokens": n,
        "seconds": round(seconds, 4),
        "tokens_per_second": round(n / seconds, 1),
    }


def fast_attention(device: torch.device) -> Any:
    """On a GPU, torch's attention without the slow backend that keeps all logits."""
    from contextlib import nullcontext

    from torch.nn.attention import SDPBackend, sdpa_kernel

    if device.type != "cuda":
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION])


# ---- the run ------------------------------------------------------------------------------------


def make_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    """A model of random weights, made where it will run."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(shape.kind, max_position_embeddings=8192, **shape.model)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)


def describe(device: torch.device) -> dict[str, Any]:
    """What the figures depend on, of the device and its compiler."""
    from importlib.metadata import version

    import torch

    facts: dict[str, Any] = {"device": str(device), "triton": version("triton")}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        facts |= {
            "device": card.name, "cuda": torch.version.cuda, "memory_bytes": card.total_memory,
            "multiprocessors": card.multi_processor_count,
            "compute_capability": f"{card.major}.{card.minor}",
        }  # fmt: skip
    return facts


def run(args: argparse.Namespace, shape: Shape, parts: list[str], lengths: list[int]) -> Report:
    import torch

    from infllm.engine import attach

    device = torch.device(args.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    head = environment() | describe(device) | {
        "shape": args.shape, "model": {"model_type": shape.kind, **shape.model},
        "settings": shape.settings, "chunk_size": shape.chunk_size,
        "dtype": str(dtype).removeprefix("torch."), "minutes": args.minutes,
    }  # fmt: skip
    report = Report(args.output, head, time.monotonic() + 60 * args.minutes)
    model = make_model(shape, device, dtype)
    ceilings = measure_ceilings(device, dtype)
    report.head |= {
        "weight_bytes": sum(p.nbytes for p in model.parameters()),
        "ceilings": dataclasses.asdict(ceilings),
    }
    report.write()
    config = {"model": shape.settings, "chunk_size": shape.chunk_size}
    with attach(model, config=config) as engine:
        if "kernels" in parts:
            measure_kernels(engine, report, ceilings)
        if "prefill" in parts or "decode" in parts:
            steps = shape.decode_steps if "decode" in parts else 0
            for score in ("dot", "mass"):
                measure_policy(engine, report, ceilings, score, lengths, steps)
    if "dense" in parts:
        measure_dense(model, engine, report, ceilings, lengths, parse_length(args.dense_to))
    return report


def tables(report: Report) -> str:
    """What was measured, a table a part."""
    blocks = [
        f"{report.head['shape']} in {report.head['dtype']} on {report.head['device']}: "
        f"a large product reaches {report.head['ceilings']['matmul'] / 1e12:.4g} TFLOP/s, "
        f"a large copy {report.head['ceilings']['copy'] / 1e9:.4g} GB/s"
    ]
    kernels = Table(["kernel", "ms", "TFLOP/s", "GB/s", "of floor"])
    reading = Table(
        ["policy", "tokens", "read s", "floor s", "tok/s", "decode tok/s", "floor", "peak GiB",
         "linear", "attention", "scoring", "copies", "other", "idle"]
    )  # fmt: skip
    dense = Table(["dense", "tokens", "read s", "tok/s", "of floor"])
    for row in report.rows:
        told = row.get("error") or row.get("skipped")
        if row["part"] == "kernels":
            kernels.rows.append(
                [row["name"], *([told, "", "", ""] if told else [
                    f"{row['seconds'] * 1e3:.4g}", f"{row['tflops']:.4g}",
                    f"{row['gb_per_second']:.4g}", f"{row['of_floor']:.0%}",
                ])]
            )  # fmt: skip
        elif row["part"] == "prefill":
            reading.rows.append([row["name"], *([told, *[""] * 12] if told else _reading(row))])
        else:
            dense.rows.append(
                [row["name"], *([told, "", "", ""] if told else [
                    length_name(row["tokens"]), f"{row['seconds']:,.3f}",
                    f"{row['tokens_per_second']:,.0f}", f"{row['of_floor']:.0%}",
                ])]
            )  # fmt: skip
    return "\n\n".join(blocks + [t.plain() for t in (kernels, reading, dense) if t.rows])


def _reading(row: dict[str, Any]) -> list[str]:
    """Cells of a reading: rates, memory, and shares of a chunk's wall time."""
    floors, split = row["floors"], row["chunk_split"]
    floor = floors["linear"] + floors["attention"] + floors["mass"] + floors["scoring"]
    rate = row["decode_tokens_per_second"]
    kinds = ("linear", "attention", "scoring", "copies", "other", "idle")
    return [
        length_name(row["tokens"]), f"{row['seconds']:,.3f}", f"{floor:,.3f}",
        f"{row['tokens_per_second']:,.0f}",
        "-" if rate is None else f"{rate:,.1f}",
        "-" if rate is None else f"{1 / floors['decode']:,.1f}",
        f"{row['peak_bytes_above_model'] / 2**30:.2f}",
        *(f"{split[kind] / split['wall']:.0%}" if kind in split else "-" for kind in kinds),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--lengths", help="tokens to read, e.g. 32K,128K,512K,1M")
    parser.add_argument("--dense-to", help="longest length that a whole model reads densely")
    parser.add_argument("--minutes", type=float, default=8.0, help="stop then, about")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    parts = args.parts.split(",")
    for part in parts:
        if part not in PARTS:
            parser.error(f"--parts: {part!r} is none of {', '.join(PARTS)}")
    lengths = sorted(parse_length(part) for part in (args.lengths or shape.lengths).split(","))
    args.dense_to = args.dense_to or shape.dense_to
    args.output = args.output or RESULTS / f"gpu_long_context_{args.shape}.json"
    if args.device == "cpu":
        if args.shape != "toy":
            parser.error("--device cpu rehearses the script in Triton's interpreter: --shape toy")
        # Before any kernel is loaded.
        os.environ |= {"TRITON_INTERPRET": "1", "INFLLM_KERNELS": "triton"}
    else:
        import torch

        if not torch.cuda.is_available():
            parser.error("this torch sees no CUDA device; rehearse with --shape toy --device cpu")
    report = run(args, shape, parts, lengths)
    print(tables(report))
    print(json.dumps(report.as_dict()))


if __name__ == "__main__":
    main()
