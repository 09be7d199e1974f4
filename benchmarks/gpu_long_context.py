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
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import environment
from gpu_dense import measure_dense
from gpu_kernels import measure_kernels
from gpu_report import FAILURES, Report, failure, tables
from gpu_shapes import SHAPES, Shape

from infllm.cli.tasks.lengths import parse_length
from infllm.cli.tasks.speed import Ceilings, measure, measure_ceilings, random_ids, time_split

if TYPE_CHECKING:
    import torch

    from infllm.engine import Engine
    from infllm.engine.session import Session

RESULTS = Path(__file__).parent / "results"
PARTS = ("kernels", "prefill", "decode", "dense")
PROFILED_STEPS = 4  # decode steps at most whose time is split


def measure_policy(
    engine: Engine, report: Report, ceilings: Ceilings, score: str, lengths: list[int], steps: int
) -> None:
    """One reading with representative scores by `score`: a row, with `steps` decode steps, at each
    length."""
    if report.seconds_left <= 0:
        report.row("prefill", f"inf-llm {score}", {"skipped": "no time left"})
        return
    ids = random_ids(engine, engine.config.chunk_size, seed=1)
    splits: list[dict[str, Any]] = []

    def at_length(session: Session) -> None:
        split = {"chunk_split": time_split(lambda: session.read(ids), engine.device)}
        if steps:
            session.end()
            some = random_ids(engine, min(steps, PROFILED_STEPS))
            session.score(some, step=True)  # which records them: the next ones are replayed
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
