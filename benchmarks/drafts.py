"""What drafts gain: tokens a pass and seconds of CPU time an answer, on and off in one run.

    python benchmarks/drafts.py [--model PATH] [--tokens 4000] [--repeats 3] [--threads 1]

Three kinds of answers about one made-up text: a fact of it (`ask`), its summary (`summarize`), and
its first sentences word for word (`copy`, whose first words are put into the model's mouth). The
answers with drafts are those without; the run says so where they are not, as near ties may fall
otherwise where products of several rows round. Weights are full ones: with packed ones, which large
models have on a CPU by default, nothing is drafted.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from typing import Any

from common import environment

import infllm.engine
from infllm.engine.drafts import DocumentDrafts, Lookahead, SuffixArray
from infllm.engine.text import build_prompt

PEOPLE = ("Ada Finch", "Bert Stone", "Cleo Marsh", "Dora Vale", "Emil Birch", "Fay Holt")
VERBS = ("walked along", "looked over", "swept", "painted", "measured", "left")
THINGS = ("the quay", "the long pier", "the boat house", "the market", "the mill", "the bridge")
TIMES = ("in the morning", "at noon", "before the rain", "after supper", "all day", "late at night")
BEGUN = 16  # tokens of a copy
FACT = "The harbour master of Orn keeps the key of the lighthouse under the third step of the mill."
TASKS = {
    "ask": ("ask", "Where does the harbour master of Orn keep the key of the lighthouse?", 48),
    "summarize": ("summarize", "", 128),
    "copy": ("ask", "Repeat the first ten sentences of the document word for word.", 128),
}


def story(tokenizer: Any, n: int) -> list[int]:
    """About n tokens of one sentence after another, with the fact in the middle."""
    chance = random.Random(7)
    told: list[str] = []
    while len(told) * 10 < n:
        who, does, what, when = map(chance.choice, (PEOPLE, VERBS, THINGS, TIMES))
        told.append(f"{who} {does} {what} {when}.")
    told.insert(len(told) // 2, FACT)
    ids: list[int] = tokenizer.encode(" ".join(told))[:n]
    return ids


def answer(session: Any, tail: list[int], n: int, drafts: Any) -> tuple[list[int], float, int]:
    """Tokens, CPU seconds, and passes through the model."""
    fork = session.fork()
    fork.read(tail)
    fork.end()
    first = fork.passes
    began = time.process_time()
    said = [token.id for token in fork.generate(n, drafts=drafts)]
    took = time.process_time() - began
    return said, took, fork.passes - first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lookahead", action="store_true", help="also by the model's own guesses")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    with infllm.engine.load(given.model, overrides={"weights": "full"}) as engine:
        document = story(engine.tokenizer, given.tokens)
        rows = []
        for name, (task, question, n) in TASKS.items():
            fields = {"question": question} if question else {}
            prompt = build_prompt(engine.tokenizer, engine.config, task, **fields)
            tail = [*prompt.tail_ids, *(document[:BEGUN] if name == "copy" else ())]
            session = engine.session()
            session.read([*prompt.head_ids, *document])
            session.end()
            suffixes = SuffixArray.of(document)
            ways: dict[str, Any] = {
                "off": lambda: None,
                "document": lambda tail=tail, head=prompt.head_ids, s=suffixes: DocumentDrafts(
                    s, tail, len(head)
                ),
            }
            if given.lookahead:
                ways["lookahead"] = lambda tail=tail: Lookahead([*document, *tail])
            best: dict[str, tuple[list[int], float, int]] = {}
            for _ in range(given.repeats):  # one after another: load of the machine falls on all
                for way, make in ways.items():
                    one = answer(session, tail, n, make())
                    if way not in best or one[1] < best[way][1]:
                        best[way] = one
            for way, (said, took, passes) in best.items():
                same = said == best["off"][0]
                rows.append(
                    {
                        "task": name, "draft": way, "tokens": len(said), "passes": passes,
                        "tokens_a_pass": round((len(said) - 1) / passes, 2) if passes else 0,
                        "cpu_seconds": round(took, 3),
                        "ratio": round(best["off"][1] / took, 2), "same": same,
                    }
                )  # fmt: skip
        kind = str(engine.dtype)
    print(f"{'task':<10}{'draft':<11}{'tokens':>7}{'a pass':>8}{'seconds':>9}{'ratio':>7}  same")
    for row in rows:
        print(
            f"{row['task']:<10}{row['draft']:<11}{row['tokens']:>7}{row['tokens_a_pass']:>8}"
            f"{row['cpu_seconds']:>9}{row['ratio']:>7}  {row['same']}"
        )
    about = {"model": given.model.rpartition("/")[2], "dtype": kind, "document": given.tokens}
    print(json.dumps({**environment(), **about, "rows": rows}), file=sys.stdout)


if __name__ == "__main__":
    main()
