"""Pruned models beside the whole one: perplexity, what they still find, bytes and time a token.

    python benchmarks/prune.py --model MODEL.gguf --text BOOK.txt --haystack BOOK.txt \
        --json benchmarks/results/prune.json

Every way of choosing (--criteria) at every share (--ratios) prunes a fresh copy of the model; the
random way with each of --seeds. A row is written when it is done: the same command goes on with
what is missing. Of a text it reads one stream of --tokens under inf-llm with a window of 2,048, so
that the first 2,048 tokens are read by full attention and the rest with lookups; perplexity of both
parts, and of what lies between doublings of the length. Then --samples of each retrieval task at
--length: pass key, a number in a text (RULER's niah_single_2), the value of a UUID in a JSON
object. The question is put without a chat template and the right answer is scored: its nats a
token, and whether greedy decoding would write it.

Time is the process's CPU time, of reading the stream and of 12 decode steps, so that other work
beside it shows little; the table prints it as a share of the whole model's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import environment

WINDOW = 2048
# Task, and what stands between its question and the answer.
TASKS = {"local:passkey": " ", "ruler:niah_single_2": " ", "local:kv": ' "'}


def settings_of(criterion: str, ratio: float, seed: int, args: argparse.Namespace) -> Any:
    from infllm.engine.prune import PruneSettings

    return PruneSettings(ratio, criterion, seed=seed, everywhere=args.everywhere)  # type: ignore[arg-type]


def small_model(args: argparse.Namespace, criterion: str | None, ratio: float, seed: int) -> Any:
    """The model in the dtype that this machine runs it in, its tokenizer and configuration."""
    from infllm.engine.attachment import load_parts
    from infllm.engine.config import dtype_name, load_config
    from infllm.engine.prune import BUILTIN_TEXT, calibration_sequences, prune

    flags = {"model.dtype": "float32", "model.n_local": WINDOW, "model.exc_block_size": 256}
    config = load_config(args.model, flags, environ={}, project=Path(os.devnull))
    model, tokenizer = load_parts(config.model)
    removal = None
    if criterion is not None:
        settings = settings_of(criterion, ratio, seed, args)
        text = args.calibrate.read_text(encoding="utf-8") if args.calibrate else BUILTIN_TEXT
        sequences = calibration_sequences(
            tokenizer.encode(text), args.examples, args.example_length
        )
        removal = prune(model, settings, sequences)
    model.to(getattr(torch, dtype_name("auto", "cpu")))
    return model, tokenizer, config, removal


def measure(
    args: argparse.Namespace, criterion: str | None, ratio: float, seed: int
) -> dict[str, Any]:
    from infllm.engine.engine import Engine
    from infllm.engine.prune import count_parameters, shape_of

    began = time.process_time()
    model, tokenizer, config, removal = small_model(args, criterion, ratio, seed)
    making = time.process_time() - began
    shape = shape_of(model)
    width = model.model.layers[0].self_attn.head_dim
    row: dict[str, Any] = {
        "parameters": count_parameters(model),
        "kv_bytes_per_token": sum(2 * kv * width * 2 for _, kv in shape.heads),  # of 16 bits
        "kv_heads": sum(kv for _, kv in shape.heads),
        "channels": sum(shape.channels),
        "seconds_making": round(making, 1),
        "calibration_nll": removal.losses[0] if removal and removal.losses else None,
    }
    with Engine(model, tokenizer, config, check=False) as engine:
        row |= perplexity(engine, args)
        row["found"] = retrieval(engine, config, args)
        row["ms_a_step"] = step_time(engine, args)
    return row


def perplexity(engine: Any, args: argparse.Namespace) -> dict[str, Any]:
    ids = engine.tokenizer.encode(args.text.read_text(encoding="utf-8"))
    start = args.skip
    session = engine.session()
    began = time.process_time()
    losses = [x for block in session.nll(ids[start : start + args.tokens]) for x in block.tolist()]
    took = time.process_time() - began
    near, far = losses[:WINDOW], losses[WINDOW:]
    return {
        "nll_2k": sum(near) / len(near),
        "nll_beyond": sum(far) / len(far) if far else None,
        "nll_along": along(losses),
        "ms_a_token_read": 1000 * took / args.tokens,
    }


def along(losses: list[float]) -> dict[str, float]:
    """Mean loss of the first WINDOW tokens, of as many behind them, of twice as many, and so on:
    by the token at which each stretch ends."""
    found, start, stop = {}, 0, WINDOW
    while start < len(losses):
        some = losses[start:stop]
        found[str(start + len(some))] = sum(some) / len(some)
        start, stop = stop, 2 * stop
    return found


def retrieval(engine: Any, config: Any, args: argparse.Namespace) -> dict[str, Any]:
    """By task: nats a token of the right answers, and which would be written greedily."""
    from infllm.cli.bench.prompts import encode_sample, fitted_sources
    from infllm.cli.bench.source import Source
    from infllm.cli.bench.suites import find_tasks

    tokenizer = engine.tokenizer
    source = Source(lengths=[args.length], count=args.samples, haystack=args.haystack)
    source = replace(fitted_sources(source, tokenizer, config)[False], completion=False)
    found: dict[str, Any] = {}
    for name, before in TASKS.items():
        (task,) = find_tasks(name)
        nats, right = [], []
        for sample in task.samples(source, None):
            encoded = encode_sample(tokenizer, config, sample, chat=False)  # type: ignore[arg-type]
            session = engine.session()
            session.read([*encoded.head, *encoded.context])
            session.end()
            wanted = sample.turns[0].references[0]  # type: ignore[union-attr]
            answer = tokenizer.encode(before + wanted, inner=True)
            lead = tokenizer.encode(before, inner=True)
            logits = session.score([*encoded.tails[0], *answer])[-len(answer) - 1 : -1]
            losses = -logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]
            first = len(lead) if answer[: len(lead)] == lead else 0
            nats.append(float(losses[first:].mean()))
            right.append(logits.argmax(-1).tolist()[first:] == answer[first:])
        found[name] = {"nats": nats, "right": right}
    return found


def step_time(engine: Any, args: argparse.Namespace) -> float:
    """CPU milliseconds of a decode step after `--length` tokens."""
    session = engine.session()
    session.read(engine.tokenizer.encode(args.text.read_text("utf-8")[:20_000])[: args.length])
    session.end()
    steps = iter(session.generate(max_new_tokens=13))
    next(steps)
    began = time.process_time()
    count = sum(1 for _ in steps)
    return 1000 * (time.process_time() - began) / max(1, count)


def wanted_rows(args: argparse.Namespace) -> list[tuple[str, str | None, float, int]]:
    rows: list[tuple[str, str | None, float, int]] = [("whole", None, 0.0, 0)]
    for ratio in args.ratios:
        for criterion in args.criteria:
            for seed in args.seeds if criterion == "random" else (0,):
                name = f"{criterion} {ratio:g}" + (f" seed {seed}" if criterion == "random" else "")
                rows.append((name, criterion, ratio, seed))
    return rows


def table(rows: dict[str, Any]) -> str:
    whole = rows["whole"]
    columns = (
        "", "parameters", "KV bytes", "perplexity to 2K", "beyond", "pass key", "needle",
        "key-value", "time reading", "a step",
    )  # fmt: skip
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, row in rows.items():
        found = [
            f"{sum(t['right'])} of {len(t['right'])}, {sum(t['nats']) / len(t['nats']):.2f}"
            for t in row["found"].values()
        ]
        beyond = "-" if row["nll_beyond"] is None else f"{math.exp(min(row['nll_beyond'], 99)):.1f}"
        cells = [
            name,
            f"{row['parameters'] / whole['parameters']:.1%}",
            f"{row['kv_bytes_per_token'] / whole['kv_bytes_per_token']:.1%}",
            f"{math.exp(min(row['nll_2k'], 99)):.1f}",
            beyond,
            *found,
            f"{row['ms_a_token_read'] / whole['ms_a_token_read']:.2f}",
            f"{row['ms_a_step'] / whole['ms_a_step']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", required=True, metavar="PATH")
    parser.add_argument("--text", required=True, type=Path, metavar="FILE")
    parser.add_argument("--haystack", required=True, type=Path, metavar="FILE")
    parser.add_argument("--calibrate", type=Path, metavar="FILE", help="default: the built-in text")
    parser.add_argument("--examples", type=int, default=10)
    parser.add_argument("--example-length", type=int, default=64)
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.1, 0.25, 0.5])
    parser.add_argument(
        "--criteria", nargs="+", default=["element1", "element2", "vector", "l2", "random"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--everywhere", action="store_true", help="one list over all groups")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--skip", type=int, default=2000, help="tokens of the text left out before")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--json", type=Path, required=True, metavar="OUT")
    args = parser.parse_args()
    report: dict[str, Any] = json.loads(args.json.read_text()) if args.json.is_file() else {}
    name = Path(args.model).name
    entry = report.setdefault(name, {"environment": environment(), "rows": {}})
    for key, criterion, ratio, seed in wanted_rows(args):
        if key in entry["rows"]:
            continue
        entry["rows"][key] = row = measure(args, criterion, ratio, seed)
        whole = args.json.with_suffix(".part")
        whole.write_text(json.dumps(report, indent=1) + "\n")
        whole.replace(args.json)
        print(
            f"{key}: nll {row['nll_2k']:.3f}, beyond {row['nll_beyond'] or math.nan:.3f}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    print(table(entry["rows"]))


if __name__ == "__main__":
    main()
