"""The rows of `real_models.py`: each method in a process of its own, a line of JSON a row.

The first argument is a JSON object, see `real_models.py`.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BIN = 4096  # tokens of one figure of perplexity
WARM = 256  # tokens read, and not timed, before all else
Row = dict[str, Any]


class Clock:
    """Seconds by the wall and of this process since it was made."""

    def __init__(self) -> None:
        self._wall, self._use = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)

    def read(self) -> Row:
        use = resource.getrusage(resource.RUSAGE_SELF)
        user = use.ru_utime - self._use.ru_utime
        system = use.ru_stime - self._use.ru_stime
        return {
            "seconds": round(time.perf_counter() - self._wall, 3),
            "cpu_seconds": round(user + system, 3),
            "system_share": round(system / max(user + system, 1e-9), 4),
        }


def measured(work: Callable[[], Any]) -> Row:
    clock = Clock()
    work()
    return clock.read()


def within_bound(
    lengths: list[int], asked: Row, read: Callable[[int, list[Row]], Row]
) -> Iterator[Row]:
    """A row a length, ascending, as long as the next one is expected within the bound: in seconds
    of all threads, which other work on the machine changes little."""
    rows: list[Row] = []
    bound = asked["bound"] * asked["threads"]
    for length in lengths:
        if rows and seconds_at(rows, length, "cpu_seconds") > bound:
            return
        row = {"tokens": length, **read(length, rows)}
        row["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        rows.append(row)
        yield row


def seconds_at(rows: list[Row], length: int, key: str) -> float:
    """Reading time expected at `length`: a n + b n^2 through the last two rows, b not negative."""
    last = rows[-1]
    if len(rows) == 1:
        return last[key] * length / last["tokens"]
    (m, s), (n, t) = ((row["tokens"], row[key]) for row in rows[-2:])
    b = max(0.0, (t / n - s / m) / (n - m))
    return (t / n - b * n) * length + b * length**2


# ---- speed ---------------------------------------------------------------------------------------


def open_engine(asked: Row, **settings: Any) -> Any:
    from infllm.cli.heap import keep_large_blocks
    from infllm.engine import load

    keep_large_blocks()
    return load(asked["model"], overrides={"model.device": "cpu", **asked["settings"], **settings})


def random_ids(vocab: int, n: int) -> list[int]:
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocab // 8, vocab // 2, (n,), generator=generator).tolist()


def ours(asked: Row) -> Iterator[Row]:
    from infllm.cli.work import decode_bytes, reading_work
    from infllm.engine.config import read_model_config
    from infllm.engine.sources import local_folder

    engine = open_engine(asked)
    config = engine.config
    spec = read_model_config(local_folder(config.model.path)) or {}
    ids = random_ids(engine.vocab_size, max(asked["lengths"]))
    warm = engine.session()
    warm.read(ids[:WARM])
    list(warm.generate(2))
    session = engine.session()
    shapes = engine.attachment.layers

    chunks = {"tokens": 0, "seconds": 0.0, "cpu_seconds": 0.0}  # read so far, whole ones alone

    def read(length: int, rows: list[Row]) -> Row:
        # The grid of a document goes on, whatever was asked in between: the tail is a fork's.
        step = measured(lambda: session.read(ids[chunks["tokens"] : length]))
        chunks["tokens"] = length
        child = session.fork()
        tail = measured(child.end)
        tokens = child.generate(asked["generate"] + 1)
        next(tokens)
        next(tokens)  # the steps' rooms are made
        decode = measured(lambda: list(tokens))
        total = {}
        for key in ("seconds", "cpu_seconds"):
            chunks[key] += step[key]
            total[key] = round(chunks[key] + tail[key], 3)
        work = reading_work(spec, shapes, config.model, length)
        before = rows[-1] if rows else {"tokens": 0, "cpu_seconds": 0.0}
        new = (total["cpu_seconds"] - before["cpu_seconds"]) / (length - before["tokens"])
        whole = max(step, tail, key=lambda one: one["cpu_seconds"])
        return {
            **total,
            "system_share": whole["system_share"],
            "cpu_ms_of_a_new_token": round(1e3 * new, 3),
            **per_token(decode, asked["generate"] - 1),
            "operations": work.total,
            "decode_bytes": decode_bytes(spec, shapes, config.model, length, engine.dtype.itemsize),
            "dtype": str(engine.dtype).removeprefix("torch."),
            "settings": {key: getattr(config.model, key) for key in SHOWN},
        }

    yield from within_bound(asked["lengths"], asked, read)


SHOWN = ("n_local", "topk", "block_size", "exc_block_size", "repr_score", "unit_score", "kv_dtype")


def per_token(decode: Row, tokens: int) -> Row:
    return {
        "step_seconds": round(decode["seconds"] / max(tokens, 1), 5),
        "step_cpu_seconds": round(decode["cpu_seconds"] / max(tokens, 1), 5),
    }


def sdpa(asked: Row) -> Iterator[Row]:
    import torch
    from transformers import AutoModelForCausalLM

    from infllm.cli.heap import keep_large_blocks
    from infllm.engine.config import dtype_name
    from infllm.engine.sources import local_folder

    keep_large_blocks()
    dtype = getattr(torch, dtype_name(asked["settings"].get("model.dtype", "auto"), "cpu"))
    model: Any = AutoModelForCausalLM.from_pretrained(
        local_folder(asked["model"]), dtype=dtype, attn_implementation="sdpa"
    ).eval()
    ids = torch.tensor([random_ids(model.config.vocab_size, max(asked["lengths"]))])

    @torch.no_grad()
    def read(length: int, rows: list[Row]) -> Row:
        clock = Clock()
        out = model(ids[:, :length], logits_to_keep=1, use_cache=True)
        reading = clock.read()

        def decode(steps: int) -> None:
            for _ in range(steps):
                model(ids[:, -1:], past_key_values=out.past_key_values, use_cache=True)

        decode(1)
        steps = asked["generate"] - 1
        return {**reading, **per_token(measured(lambda: decode(steps)), steps)}

    read(WARM, [])
    yield from within_bound(asked["lengths"], asked, read)


def llama(asked: Row) -> Iterator[Row]:
    from llama_cpp import Llama, with_context

    lengths, steps = asked["lengths"], asked["generate"]
    context = max(lengths) + WARM + 2 * steps
    with tempfile.TemporaryDirectory() as folder:
        path = with_context(Path(asked["model"]), context, Path(folder))
        server = Llama(path, asked["threads"], context, wide=False)
        ids = random_ids(asked["vocab"], max(lengths))
        server.complete(ids[-WARM:], 2)

        def read(length: int, rows: list[Row]) -> Row:
            before = rows[-1] if rows else {"seconds": 0.0, "cpu_seconds": 0.0}
            clock = Clock()
            said = server.complete(ids[:length], 1)
            step = clock.read()
            clock = Clock()
            server.complete(ids[:length], steps + 1)
            decode = clock.read()
            # The prompt's last token is read again.
            row = {key: round(before[key] + step[key], 3) for key in ("seconds", "cpu_seconds")}
            return {
                **row,
                "system_share": step["system_share"],
                "read_now": said["prompt_n"],
                **per_token(decode, steps + 1),
            }

        yield from within_bound(lengths, asked, read)


def ceilings(asked: Row) -> Iterator[Row]:
    """Operations and bytes that this machine does in a CPU second, with the model's shapes."""
    import torch

    from infllm.engine.config import dtype_name, read_model_config
    from infllm.engine.sources import local_folder

    spec = read_model_config(local_folder(asked["model"])) or {}
    dtype = getattr(torch, dtype_name(asked["settings"].get("model.dtype", "auto"), "cpu"))
    hidden, inner, rows = spec["hidden_size"], spec["intermediate_size"], 2048
    x, w = (torch.randn(n, hidden).to(dtype) for n in (rows, inner))
    large = torch.ones(2**27)

    def best(work: Callable[[], Any], key: str) -> float:
        return min(measured(work)[key] for _ in range(5))

    product, reading = lambda: [x @ w.T for _ in range(4)], large.sum
    yield {
        "flops_per_cpu_second": 8.0 * rows * hidden * inner / best(product, "cpu_seconds"),
        "flops_per_second": 8.0 * rows * hidden * inner / best(product, "seconds"),
        "bytes_per_cpu_second": large.nbytes / best(reading, "cpu_seconds"),
        "dtype": str(dtype).removeprefix("torch."),
        "trained_length": spec.get("max_position_embeddings"),
        "vocab": spec["vocab_size"],
    }


# ---- perplexity ----------------------------------------------------------------------------------


def perplexity(asked: Row) -> Iterator[Row]:
    """Along one text: the mean NLL of each `BIN` tokens, in nats; one row, after the last."""
    engine = open_engine(asked, **{"model.type": asked["policy"]})
    text = Path(asked["text"]).read_text(encoding="utf-8")
    tokenizer = engine.tokenizer
    ids = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    first = asked["first"]
    ids += tokenizer.encode(text)[first : first + asked["tokens"] + 1 - len(ids)]
    clock = Clock()
    losses: list[float] = []
    for block in engine.session().nll(ids):
        losses += block.tolist()
        if clock.read()["cpu_seconds"] > asked["bound"] * asked["threads"]:
            break
    bins = [losses[i : i + BIN] for i in range(0, len(losses), BIN)]
    yield {
        "first": first,
        "tokens": len(losses),
        "asked_tokens": asked["tokens"],
        "text": Path(asked["text"]).name,
        "nll": round(math.fsum(losses) / len(losses), 4),
        "perplexity": round(math.exp(math.fsum(losses) / len(losses)), 3),
        "bin": BIN,
        "nll_of_bins": [round(math.fsum(one) / len(one), 4) for one in bins],
        "settings": {key: getattr(engine.config.model, key) for key in SHOWN},
        **clock.read(),
    }


def weights(asked: Row) -> Iterator[Row]:
    """One form of the weights: bytes, and speed and perplexity of decode steps along a text."""
    import torch

    engine = open_engine(asked, **{"model.weights": asked["form"]})
    tokenizer = engine.tokenizer
    ids = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    context, steps = asked["context"], asked["tokens"]
    text = Path(asked["text"]).read_text(encoding="utf-8")
    ids += tokenizer.encode(text[20_000 : 20_000 + 16 * (context + steps)])
    ids = ids[: context + steps + 1]
    session = engine.session()
    session.read(ids[:context])
    session.end()
    clock = Clock()
    logits = session.score(ids[context:-1], step=True)
    used = clock.read()
    nll = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[context + 1 :])).item()
    yield {
        "text": Path(asked["text"]).name, "context": context, "tokens": steps,
        "nll": round(nll, 4), "perplexity": round(math.exp(nll), 3),
        "bytes": weight_bytes(engine.model, asked["form"]), **per_token(used, steps),
    }  # fmt: skip


def weight_bytes(model: Any, form: str) -> int:
    """Of all weights, and of packed ones in place of them or beside them."""
    from torch import nn

    from infllm.engine.attachment.packed_weights import Int8Weight, PackedLinear

    total = sum(x.nbytes for x in {x.data_ptr(): x for x in model.parameters()}.values())
    for one in model.modules():
        if isinstance(one, PackedLinear):
            bits = 8 if isinstance(one.packed, Int8Weight) else 4
            total += one.in_features * one.out_features * bits // 8 + one.scale.nbytes
        elif form == "packed" and type(one) is nn.Linear:
            total += one.in_features * one.out_features + 4 * one.out_features
    return total


METHODS = {"infllm": ours, "sdpa": sdpa, "llama.cpp": llama, "ceilings": ceilings,
           "perplexity": perplexity, "weights": weights}  # fmt: skip


def main() -> None:
    import torch

    asked = json.loads(sys.argv[1])
    torch.set_num_threads(asked["threads"])
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for row in METHODS[asked["method"]](asked):
        print("ROW " + json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
