"""Does it matter where in a long stream a passage stands? NLL of the same passages at two depths.

The stream is books one after the other; the passages come from other books, and are scored on
forks at both positions.

    python benchmarks/passage_nll.py --stream BOOK... --passages BOOK... --positions 100K,950K
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path

from common import environment

from infllm.cli.tasks.lengths import parse_length
from infllm.engine import load

PASSAGE = 4096  # tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stream", nargs="+", type=Path, required=True, help="text files")
    parser.add_argument("--passages", nargs="+", type=Path, required=True, help="other text files")
    parser.add_argument("--positions", default="100K,950K")
    parser.add_argument("--policy", default="inf-llm")
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    engine = load(args.preset)
    tokenizer = engine.tokenizer
    assert tokenizer is not None
    positions = [parse_length(x) for x in args.positions.split(",")]
    stream: list[int] = []
    for path in args.stream:
        if len(stream) < max(positions):
            stream.extend(tokenizer.encode(path.read_text(encoding="utf-8")))
    if len(stream) < max(positions):
        raise SystemExit(f"the stream has {len(stream)} tokens, {max(positions)} are needed")
    passages = {
        path.stem: tokenizer.encode(path.read_text(encoding="utf-8"))[20_000 : 20_000 + PASSAGE]
        for path in args.passages
    }
    session = engine.session(overrides={"type": args.policy})
    figures: dict[str, list[float]] = {name: [] for name in passages}
    for position in positions:
        session.read(stream[session.position : position])
        session.end()
        for name, ids in passages.items():
            losses = [float(block.sum()) for block in session.fork().nll(ids)]
            figures[name].append(sum(losses) / len(ids))
            print(f"{name} at {position:,}: {figures[name][-1]:.4f} nats a token", flush=True)
    means = [sum(row[i] for row in figures.values()) / len(figures) for i in range(len(positions))]
    report = {
        "benchmark": "passage_nll", **environment(), "policy": args.policy,
        "positions": positions, "nll": figures, "mean": means,
        "difference": means[-1] / means[0] - 1,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip
    print(f"mean {means[0]:.4f} and {means[-1]:.4f}: {report['difference']:+.2%}")
    print(json.dumps(report))
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
