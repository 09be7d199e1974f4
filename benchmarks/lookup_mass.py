"""How much of the attention mass that the best units would receive does a lookup choose?

A model reads a document with planted facts, and is asked about them. In every layer, while it reads
a question and at the first steps of the answer, the units chosen by a rule are compared with those
that all keys choose: their mass, and what falls on the unit of the fact. `moments` with fewer
candidates than there are units shows what becomes of it in a text so much longer.

    python benchmarks/lookup_mass.py --model PATH --corpus DIR --len 16K --candidates 16,32,64
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
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
from infllm.engine.units import key_masses, lookup_by_keys, moment_masses
from infllm.kernels.unit_mass import dense_lse
from infllm.kernels.unit_topk import top_units

if TYPE_CHECKING:
    from torch import Tensor

    from infllm.engine import Session
    from infllm.kernels.partial_attention import Part

STEPS = 3  # of the answer


class Compared:
    """Sums over lookups, by when they were made and by rule: mass chosen, mass on the fact."""

    def __init__(self, candidates: list[int]) -> None:
        self.candidates = candidates
        self.wanted: range = range(0)  # units of the fact
        self.sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.units = 0

    def look(self, policy: InfLLM, beside: list[Part], n: int) -> Tensor:
        """In place of `InfLLM.key_scores`."""
        assert policy.units is not None
        how, store = policy.softmax, policy.units
        others = dense_lse(beside, how.scale, how.softcap, how.sink)
        q = policy.layer.rotary.at(policy.tokens.q_far, 0)
        scores = {"keys": key_masses(store, q, others, n, how, 1)}
        means = policy.unit_scores.query
        scores["representatives"] = store.scores(means, 0, n, per_head=False)[:, 0]
        for count in self.candidates:
            if count < n:
                lookup_by_keys.CANDIDATES, lookup_by_keys.OF_TOPK = count * store.block_size, 0
                lookup_by_keys.AS_QUICK, lookup_by_keys.SHARE = 1, n
                name = f"moments, {count} candidates"
                scores[name] = moment_masses(store, q, others, n, how, 1)
        mass = scores["keys"][0, 0].exp()
        when = "step" if policy.tokens.n_new == 1 else "question"
        for rule, score in scores.items():
            chosen = top_units(score, policy.config.topk)[0, 0]
            fact = [u for u in chosen.tolist() if u in self.wanted]
            sums = self.sums[when, rule]
            sums[0] += float(mass[chosen].sum())
            sums[1] += float(mass[fact].sum())
        self.units = max(self.units, n)
        return scores["keys"]


def read(args: argparse.Namespace, compared: Compared) -> None:
    engine = load(args.model)
    planted = plant(
        engine.tokenizer, args.corpus / f"{args.book}.txt", parse_length(args.length), 0, args.facts
    )
    prompts = [build_prompt(engine.tokenizer, engine.config, "ask", question=f.question)
               for f in planted.facts]  # fmt: skip
    head = prompts[0].head_ids
    settings = {**settings_of(args.base), "unit_score": "moments", "far_position": "capped"}
    session: Session = engine.session(overrides=settings)
    session.read([*head, *planted.ids])
    session.end()
    size, n_init = session.config.block_size, session.config.n_init

    def key_scores(policy: InfLLM, beside: list[Part], n: int) -> Tensor:
        return compared.look(policy, beside, n)

    InfLLM.key_scores = key_scores  # type: ignore[method-assign]
    for prompt, (start, stop) in zip(prompts, planted.places, strict=True):
        first, last = start + len(head) - n_init, stop - 1 + len(head) - n_init
        compared.wanted = range(first // size, last // size + 1)
        fork = session.fork()
        fork.read(prompt.tail_ids)
        for _ in fork.generate(max_new_tokens=STEPS):
            pass


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
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    compared = Compared([int(x) for x in args.candidates.split(",")])
    with torch.no_grad():
        read(args, compared)
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
