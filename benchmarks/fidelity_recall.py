"""Do lookups find what full attention attends? By layer and head, for planted facts.

Full attention reads a document with planted facts and is asked about each: how much of a head's
mass falls on the tokens of the fact says whether it carries it (`CARRIES`). Then the same with a
memory: is the fact's unit among those that the layer looked up while it read the question, or in
the first steps of the answer?

    python benchmarks/fidelity_recall.py --model PATH --corpus DIR --len 6K --plot recall.png
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from common import environment
from fidelity import BASE, Method, asked_otherwise, method, settings_of
from fidelity_facts import Planted, plant

from infllm.cli.tasks.lengths import parse_length
from infllm.engine import load
from infllm.engine.policies.inf_llm import InfLLM
from infllm.engine.policies.lookup_scores import Lookup
from infllm.engine.text import build_prompt

if TYPE_CHECKING:
    from torch import Tensor

    from infllm.engine import Engine, Session

CARRIES = 0.1  # of a head's attention, at one of the question's tokens or of the first steps
STEPS = 4  # of the answer


class Watch:
    """Queries and keys of a session's passes, as the model gives them: not rotated."""

    def __init__(self, session: Session) -> None:
        self.q: dict[int, list[Tensor]] = {}
        self.k: dict[int, list[Tensor]] = {}
        attend = type(session).attend

        def watched(layer: int, q: Tensor, k: Tensor, *rest: Any) -> Tensor:
            self.q.setdefault(layer, []).append(q[0])
            self.k.setdefault(layer, []).append(k[0])
            return attend(session, layer, q, k, *rest)

        session.attend = watched  # type: ignore[method-assign]


def full_mass(
    engine: Engine, ids: list[int], tails: list[list[int]], places: list[tuple[int, int]]
) -> Tensor:
    """float32 [questions, layers, H]: the largest share of a head's mass on the fact's tokens."""
    session = engine.session(overrides={"type": "origin"})
    document = Watch(session)
    session.read(ids)
    session.end()
    del session.__dict__["attend"]
    layers = engine.attachment.layers
    keys = {layer.index: torch.cat(document.k[layer.index], dim=1) for layer in layers}
    out = torch.zeros(len(tails), len(layers), max(layer.n_heads for layer in layers))
    for i, (tail, (start, stop)) in enumerate(zip(tails, places, strict=True)):
        fork = session.fork()
        watch = Watch(fork)
        fork.read(tail)
        for _ in fork.generate(max_new_tokens=STEPS):
            pass
        for n, layer in enumerate(layers):
            q = torch.cat(watch.q[layer.index], dim=1)
            k = torch.cat([keys[layer.index], *watch.k[layer.index]], dim=1)
            if layer.sliding_window is not None:
                continue
            q = layer.rotary.run(q[None], len(ids))[0].float()
            k = layer.rotary.run(k[None], 0)[0].float()
            k = k.repeat_interleave(layer.n_heads // layer.n_kv_heads, dim=0)
            logits = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
            after = torch.arange(k.shape[1]) > len(ids) + torch.arange(q.shape[1])[:, None]
            weight = logits.masked_fill(after, float("-inf")).softmax(dim=-1)
            out[i, n, : layer.n_heads] = weight[:, :, start:stop].sum(dim=-1).amax(dim=-1)
    return out


def looked_up(
    session: Session, how: Method, tail: list[int], place: tuple[int, int]
) -> dict[str, list[list[float]]]:
    """[layers][H] of 0 and 1: whether all units of the fact were looked up, by the question and in
    one of the first steps. What is in the window or initial counts as looked up."""
    fork = asked_otherwise(session, how.asking)
    policies = [p for p in fork.policies.values() if isinstance(p, InfLLM)]
    for policy in policies:
        policy.record = []
    fork.read(tail)
    for _ in fork.generate(max_new_tokens=STEPS):
        pass
    found: dict[str, list[list[float]]] = {"question": [], "steps": []}
    for policy in policies:
        looks = [x for x in policy.record or [] if isinstance(x, Lookup)]
        first, size = policy.config.n_init, policy.config.block_size
        wanted = set(range(max(0, place[0] - first) // size, (place[1] - 1 - first) // size + 1))
        heads = policy.layer.n_heads

        def hit(some: list[Lookup], wanted: set[int] = wanted, heads: int = heads) -> list[float]:
            hits = [0.0] * heads
            for look in some:
                groups = look.chosen[0].tolist()
                for h in range(heads):
                    there = set(groups[h * len(groups) // heads])
                    seen = all(u in there or u >= look.n_units for u in wanted)
                    hits[h] = max(hits[h], float(seen))
            return hits or [1.0] * heads

        found["question"].append(hit(looks[:1]))
        found["steps"].append(hit(looks[1:] or looks))
    return found


def summary(mass: Tensor, found: Tensor) -> dict[str, float]:
    """Shares [questions, layers, H] of carriers whose lookups found the fact, and of their mass."""
    carries = mass >= CARRIES
    if not bool(carries.any()):
        return {"carriers": 0, "recall": 0.0, "recall_of_mass": 0.0}
    return {
        "carriers": int(carries.sum()),
        "recall": round(float(found[carries].mean()), 4),
        "recall_of_mass": round(float((found * mass)[carries].sum() / mass[carries].sum()), 4),
    }


def plot(path: Path, mass: Tensor, found: Mapping[str, Tensor], title: str) -> None:
    """By layer (down) and head: what full attention gives the facts, and how much is found."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    carries = mass >= CARRIES
    height = 1.2 + 0.17 * mass.shape[1]
    figure, axes = plt.subplots(
        1, 1 + len(found), figsize=(2.6 * (1 + len(found)), height), layout="constrained",
        sharey=True,
    )  # fmt: skip
    shown = axes[0].imshow(mass.mean(dim=0), aspect="auto", cmap="Blues", vmin=0)
    axes[0].set_title("full attention's\nmass on the fact", fontsize=9)
    figure.colorbar(shown, ax=axes[0])
    for axis, (name, hits) in zip(axes[1:], found.items(), strict=True):
        weight = mass * carries
        recall = (hits * weight).sum(dim=0) / weight.sum(dim=0)  # NaN: carries nothing
        shown = axis.imshow(recall, aspect="auto", cmap="RdYlGn", vmin=0, vmax=1)
        axis.set_facecolor("0.93")
        axis.set_title(f"found by\n{name}", fontsize=9)
    figure.colorbar(shown, ax=axes[-1])
    for axis in axes:
        axis.set_xlabel("head")
    axes[0].set_ylabel("layer")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)


def document(engine: Engine, args: argparse.Namespace, number: int) -> Planted:
    books = args.books.split(",")
    book = args.corpus / f"{books[number % len(books)]}.txt"
    return plant(engine.tokenizer, book, parse_length(args.length), number, args.facts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--books", default="emma,walden-and-on-the-duty-of-civil-disobedience")
    parser.add_argument("--len", default="6K", dest="length")
    parser.add_argument("--documents", type=int, default=1)
    parser.add_argument("--facts", type=int, default=8)
    parser.add_argument(
        "--methods", default="published default", help="by blanks, as in fidelity.py"
    )
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    methods = [method(spec) for spec in args.methods.split()]
    if any(m.reads_back for m in methods):
        parser.error("--methods: what is read back is no lookup")
    engine = load(args.model)
    masses, found = [], {m.name: {"question": [], "steps": []} for m in methods}
    for number in range(args.documents):
        planted = document(engine, args, number)
        prompts = [build_prompt(engine.tokenizer, engine.config, "ask", question=f.question)
                   for f in planted.facts]  # fmt: skip
        head, tails = prompts[0].head_ids, [p.tail_ids for p in prompts]
        ids = [*head, *planted.ids]
        places = [(a + len(head), z + len(head)) for a, z in planted.places]
        masses.append(full_mass(engine, ids, tails, places))
        print(f"document {number}: full attention read", file=sys.stderr, flush=True)
        sessions: dict[str, Session] = {}
        for how in methods:
            key = json.dumps(how.reading, sort_keys=True)
            if key not in sessions:
                sessions[key] = engine.session(overrides={**settings_of(args.base), **how.reading})
                sessions[key].read(ids)
                sessions[key].end()
            for tail, place in zip(tails, places, strict=True):
                hits = looked_up(sessions[key], how, tail, place)
                for when, rows in hits.items():
                    found[how.name][when].append(rows)
            print(f"document {number}: {how.name} asked", file=sys.stderr, flush=True)
    mass = torch.cat(masses)
    report: dict[str, Any] = {
        "benchmark": "fidelity_recall", **environment(), "model": Path(args.model).name,
        "base": args.base, "methods": args.methods,
        "mass": mass.mean(dim=0).round(decimals=4).tolist(),
    }  # fmt: skip
    pictures = {}
    print(f"{'method':20} {'when':9} {'carriers':>8} {'found':>7} {'of mass':>8}")
    for name, by_time in found.items():
        for when, rows in by_time.items():
            hits = torch.tensor(rows)
            told = summary(mass, hits)
            report[f"{name}, {when}"] = {**told, "by_head": hits.mean(dim=0).tolist()}
            print(f"{name:20} {when:9} {told['carriers']:8} {told['recall']:7.1%} "
                  f"{told['recall_of_mass']:8.1%}")  # fmt: skip
            if when == "question":
                pictures[name] = hits
    if args.output:
        args.output.write_text(json.dumps(report) + "\n")
    if args.plot:
        title = f"{Path(args.model).stem}, {args.length}, {len(mass)} facts"
        plot(args.plot, mass, pictures, title)


if __name__ == "__main__":
    main()
