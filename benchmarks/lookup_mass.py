"""How much of the attention mass that the best units would receive does a lookup choose?

A model reads a document with planted facts, and is asked about them. In every layer, while it reads
a question and at the first steps of the answer, the units chosen by a rule are compared with those
that all keys choose: their mass, and what falls on the unit of the fact. `moments` with fewer
candidates than there are units shows what becomes of it in a text so much longer; alone: without
those that the question put first.

    python benchmarks/lookup_mass.py --model PATH --corpus DIR --len 16K --candidates 16,32,64

`--memory FOLDER` saves what was read, and opens it in place of reading where it is there.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from common import environment
from fidelity import BASE, settings_of
from fidelity_facts import plant

from infllm.cli.tasks.lengths import parse_length
from infllm.engine import load
from infllm.engine.policies.inf_llm import InfLLM
from infllm.engine.text import build_prompt
from infllm.engine.units import key_masses, likely_units, lookup_by_keys, moment_masses
from infllm.kernels.unit_mass import dense_lse
from infllm.kernels.unit_topk import top_units

if TYPE_CHECKING:
    from torch import Tensor

    from infllm.engine import Engine, Session
    from infllm.kernels.partial_attention import Part


@contextmanager
def candidates(tokens: int, n: int) -> Iterator[None]:
    """Lookups of n units by moments have candidates of so many tokens."""
    names = "CANDIDATES", "OF_TOPK", "AS_QUICK", "SHARE", "STEP_SHARE"
    before = [getattr(lookup_by_keys, name) for name in names]
    for name, value in zip(names, (tokens, 0, 1, n, n), strict=True):
        setattr(lookup_by_keys, name, value)
    try:
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(lookup_by_keys, name, value)


class Compared:
    """Sums over lookups, by when they were made and by rule: mass chosen, mass on the fact."""

    def __init__(self, candidates: list[int]) -> None:
        self.candidates = candidates
        self.wanted: range = range(0)  # units of the fact
        self.sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.units = 0
        self.likely: dict[int, Tensor] = {}  # by layer, what the question put first

    def look(self, policy: InfLLM, beside: list[Part], n: int) -> Tensor:
        """In place of `InfLLM.key_scores`."""
        assert policy.units is not None
        how, store = policy.softmax, policy.units
        others = dense_lse(beside, how.scale, how.softcap, how.sink)
        q = policy.layer.rotary.at(policy.tokens.q_far, 0)
        scores = {"keys": key_masses(store, q, others, n, how, 1)}
        means = policy.unit_scores.query
        scores["representatives"] = store.scores(means, 0, n, per_head=False)[:, 0]
        asks = policy.tokens.n_new > 1
        likely = None if asks else self.likely.get(policy.layer.index)
        about = store, q, others, n, how, 1
        if not lookup_by_keys.reads_all(store, n):
            scores["moments"] = moment_masses(*about, likely)
            if likely is not None:
                scores["moments, alone"] = moment_masses(*about)
        for count in self.candidates:
            if count < n:
                with candidates(count * store.block_size, n):
                    scores[f"moments, {count} candidates"] = moment_masses(*about, likely)
        if asks:
            best = scores.get("moments", scores["keys"])
            self.likely[policy.layer.index] = likely_units(store, best)
        mass = scores["keys"][0, 0].exp()
        when = "question" if asks else "step"
        for rule, score in scores.items():
            chosen = top_units(score, policy.config.topk)[0, 0]
            fact = [u for u in chosen.tolist() if u in self.wanted]
            sums = self.sums[when, rule]
            sums[0] += float(mass[chosen].sum())
            sums[1] += float(mass[fact].sum())
        self.units = max(self.units, n)
        return scores["keys"]

    def shares(self) -> str:
        """Of the mass of the best units, by `moments`, so far."""
        found = []
        for when in ("question", "step"):
            best, mine = self.sums[when, "keys"], self.sums[when, "moments"]
            if best[0] > 0 and mine[0] > 0:
                found.append(f"{when} {mine[0] / best[0]:.1%}, on facts {mine[1] / best[1]:.1%}")
        return "; ".join(found)


@dataclass(frozen=True)
class Asked:
    """A question, and the units of the fact that answers it."""

    question: str
    units: range


def read(engine: Engine, args: argparse.Namespace) -> tuple[Session, list[Asked]]:
    """A document with facts, read or opened, and what is to be asked."""
    told = args.memory and args.memory.with_name(args.memory.name + ".facts.json")
    settings = {**settings_of(args.base), "unit_score": "moments", "far_position": "capped"}
    settings |= settings_of(args.settings)
    if told and told.is_file():
        session = engine.open(args.memory, overrides=settings)
        session.end()
        facts = json.loads(told.read_text(encoding="utf-8"))
        asked = [Asked(f["question"], range(f["units"][0], f["units"][1] + 1)) for f in facts]
        return session, asked[: args.facts]
    book, length = args.corpus / f"{args.book}.txt", parse_length(args.length)
    planted = plant(engine.tokenizer, book, length, 0, args.facts)
    head = build_prompt(engine.tokenizer, engine.config, "ask", question="").head_ids
    session = engine.session(overrides=settings)
    session.read([*head, *planted.ids])
    session.end()
    size, before = session.config.block_size, len(head) - session.config.n_init
    asked = [
        Asked(fact.question, range((start + before) // size, (stop - 1 + before) // size + 1))
        for fact, (start, stop) in zip(planted.facts, planted.places, strict=True)
    ]
    if told:
        session.save(args.memory)
        facts = [{"question": x.question, "units": [x.units[0], x.units[-1]]} for x in asked]
        told.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return session, asked


def ask(args: argparse.Namespace, compared: Compared) -> None:
    engine = load(args.model)
    session, asked = read(engine, args)

    def key_scores(policy: InfLLM, beside: list[Part], n: int) -> Tensor:
        return compared.look(policy, beside, n)

    InfLLM.key_scores = key_scores  # type: ignore[method-assign]
    for one in asked:
        prompt = build_prompt(engine.tokenizer, engine.config, "ask", question=one.question)
        compared.wanted = one.units
        compared.likely.clear()
        fork = session.fork()
        fork.read(prompt.tail_ids)
        for _ in fork.generate(max_new_tokens=args.steps + 1):  # the first by the question itself
            pass
        print(f"{one.question}: {compared.shares()}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--book", default="emma")
    parser.add_argument("--len", default="16K", dest="length")
    parser.add_argument("--facts", type=int, default=5)
    parser.add_argument("--candidates", default="8,16,32,64,128")
    parser.add_argument("--steps", type=int, default=3, help="of each answer")
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--settings", default="", help="others, as kv_dtype=int8")
    parser.add_argument("--memory", type=Path)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    compared = Compared([int(x) for x in args.candidates.split(",")])
    with torch.no_grad():
        ask(args, compared)
    print(f"{compared.units} units\n{'when':9} {'rule':24} {'of the mass':>11} {'on facts':>9}")
    rows: list[dict[str, Any]] = []
    for (when, rule), (mass, fact) in sorted(compared.sums.items()):
        best, of_fact = compared.sums[when, "keys"]
        rows.append({"when": when, "rule": rule, "mass": round(mass / best, 4),
                     "fact": round(fact / of_fact, 4)})  # fmt: skip
        print(f"{when:9} {rule:24} {mass / best:11.1%} {fact / of_fact:9.1%}")
    report = {"benchmark": "lookup_mass", **environment(), "units": compared.units, "rows": rows}
    print(json.dumps(report))
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
