"""The first light's `speed`: a model of random weights reads, decodes, and is profiled."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_first_check import trials
from gpu_kernels import kernel_row
from gpu_long_context import make_model
from gpu_shapes import SHAPES, Shape

if TYPE_CHECKING:
    from infllm.engine import Engine
    from infllm.engine.session import Session

# Of an H200, before any card had run this: a million tokens in 35 s, as told a chunk of 8192.
PREDICTED = {
    "reading": {"ms_a_chunk": 275}, "decoding": {"tokens_per_second": 150},
    "reading, mass": {"ms_a_chunk": 600},
}  # fmt: skip
TRACE_BYTES = 14 * 2**20  # of a profile, at most


def tell(**row: Any) -> None:
    predicted = PREDICTED.get(row.get("name", ""))
    print(json.dumps(row | ({"predicted": predicted} if predicted else {})), flush=True)


def attempt(name: str, run: Callable[[], None]) -> None:
    """What fails says so, and the rest goes on."""
    try:
        run()
    except Exception as error:
        tell(name=name, error=f"{type(error).__name__}: {error}"[:400])


@dataclasses.dataclass
class Reader:
    """A session that reads ids, other ones in each chunk."""

    engine: Engine
    session: Session
    seconds: float = 0.0
    tokens: int = 0

    def chunk(self) -> float:
        """Read one; seconds that it took."""
        from infllm.cli.tasks.speed import random_ids, synchronize

        size = self.engine.config.chunk_size
        ids = random_ids(self.engine, size, seed=self.tokens)
        synchronize(self.engine.device)
        began = time.perf_counter()
        self.session.read(ids)
        synchronize(self.engine.device)
        took = time.perf_counter() - began
        self.seconds += took
        self.tokens += size
        return took

    def to(self, tokens: int, deadline: float, name: str) -> None:
        """Read on, a row for every so many chunks."""
        last = 0.0
        while self.tokens < tokens and time.monotonic() < deadline:
            last = self.chunk()
            if self.tokens % (16 * self.engine.config.chunk_size) == 0:
                self.row(name, last)
        self.row(name, last)

    def row(self, name: str, last: float) -> None:
        from infllm.cli.tasks.speed import peak_bytes

        stats = self.session.stats
        tell(
            name=name, tokens=self.tokens, seconds=round(self.seconds, 3),
            ms_a_chunk=round(1e3 * last, 2), device_bytes=stats.device_bytes,
            host_bytes=stats.host_bytes, peak_bytes=peak_bytes(self.engine.device),
            cache_hits=stats.cache_hits, cache_misses=stats.cache_misses,
        )  # fmt: skip

    def decode(self, steps: int) -> None:
        """Steps on a fork: tokens a second, and how often each was replayed."""
        from infllm.cli.tasks.speed import decode_rate

        session = self.session.fork()
        rate = decode_rate(session, steps, self.engine.device)
        tell(
            name="decoding", tokens=self.tokens, tokens_per_second=round(rate, 2), steps=steps,
            replayed=session.replays_steps, replays_a_step=session.replays_a_step,
            why_not=self.engine.not_recorded,
        )  # fmt: skip

    def profile(self, name: str, output: Path, run: Callable[[], object]) -> None:
        """One profile: seconds by kind of kernel, an idle device, and a trace where it is small."""
        from torch.profiler import ProfilerActivity, profile

        from infllm.cli.tasks.speed import synchronize, time_split

        device = self.engine.device
        tell(name=name, **time_split(run, device))
        if device.type != "cuda":
            return
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as watched:
            run()
            synchronize(device)
        trace = output / f"{name.replace(' ', '-')}.trace.json.gz"
        watched.export_chrome_trace(str(trace))
        if trace.stat().st_size > TRACE_BYTES:
            trace.unlink()
        busiest = sorted(
            (x for x in watched.key_averages() if x.self_device_time_total > 0),
            key=lambda x: -x.self_device_time_total,
        )
        for event in busiest[:25]:
            tell(name=f"{name}: {event.key[:80]}", count=event.count,
                 ms=round(event.self_device_time_total / 1e3, 3))  # fmt: skip


def lengths(engine: Engine) -> Iterator[int]:
    """32K, 128K and 1M tokens, in chunks; few of them in a rehearsal."""
    size = engine.config.chunk_size
    yield from (4 * size, 16 * size, 128 * size) if engine.device.type == "cuda" else (
        2 * size, 3 * size, 4 * size,
    )  # fmt: skip


def read_and_decode(
    engine: Engine, shape: Shape, output: Path, until: Callable[[float], float]
) -> None:
    """Representatives by dot products: to 1M tokens as far as time goes, and steps on the way."""
    from infllm.cli.tasks.speed import random_ids

    first, second, third = lengths(engine)
    steps = shape.decode_steps
    reader = Reader(engine, engine.session(overrides={"repr_score": "dot"}))

    def a_chunk() -> None:
        fork, ids = reader.session.fork(), random_ids(engine, shape.chunk_size, seed=1)
        reader.profile("a chunk", output, lambda: fork.read(ids))

    def some_steps() -> None:
        fork, ids = reader.session.fork(), random_ids(engine, min(4, steps), seed=2)
        fork.end()
        fork.score(ids, step=True)  # records them
        reader.profile("steps", output, lambda: fork.score(ids, step=True))

    attempt("reading", lambda: reader.to(first, until(0.15), "reading"))
    attempt("a chunk", a_chunk)
    attempt("reading", lambda: reader.to(second, until(0.3), "reading"))
    attempt("decoding", lambda: reader.decode(steps))
    attempt("reading", lambda: reader.to(third, until(0.75), "reading"))
    attempt("decoding", lambda: reader.decode(min(16, steps)))
    attempt("steps", some_steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["speed"])
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    args = parser.parse_args()
    began = time.monotonic()

    def until(share: float) -> float:
        return began + share * args.seconds

    import torch

    from infllm.cli.tasks.speed import measure_ceilings
    from infllm.engine import attach

    device, shape = torch.device(args.device), SHAPES[args.shape]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = make_model(shape, device, dtype)
    tell(name="model", seconds=round(time.monotonic() - began, 2),
         weight_bytes=sum(p.nbytes for p in model.parameters()))  # fmt: skip
    config = {"model": shape.settings, "chunk_size": shape.chunk_size}
    with attach(model, config=config) as engine:
        read_and_decode(engine, shape, args.output, until)
        found = measure_ceilings(device, dtype)
        for trial in trials(engine):
            if time.monotonic() > until(0.88):
                tell(name=trial.name, skipped="no time left")
                continue
            attempt(trial.name, lambda t=trial: tell(name=t.name, **kernel_row(t, engine, found)))
        mass = Reader(engine, engine.session(overrides={"repr_score": "mass"}))
        last, chunks = until(0.97), 6 if device.type == "cuda" else 3
        attempt(
            "reading, mass", lambda: mass.to(chunks * shape.chunk_size, last, "reading, mass")
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
