"""Whether answers with drafts are those without: many answers, under several policies, in float32.

    python benchmarks/draft_equality.py [--model PATH] [--answers 200] [--policies inf-llm,...]

One made-up document tells of as many people where they keep something; each is asked for on a fork,
greedily, once without drafts and once with those that the document gives. Where tokens differ, the
run tells how near the two best logits were at the first that does. Exits with 1 if any answer
differs, or if no draft was ever taken, since then nothing was compared.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from itertools import takewhile
from typing import Any

from common import environment

import infllm.engine
from infllm.engine.drafts import DocumentDrafts, SuffixArray
from infllm.engine.text import build_prompt

FIRST = (
    "Ada", "Bert", "Cleo", "Dora", "Emil", "Fay", "Gus", "Hedy", "Ivo", "June", "Kurt", "Lena",
    "Milo", "Nora", "Otto", "Pia",
)  # fmt: skip
LAST = (
    "Finch", "Stone", "Marsh", "Vale", "Birch", "Holt", "Ford", "Crane", "Moss", "Reed", "Thorn",
    "West", "Drake", "Hale", "Pike",
)  # fmt: skip
THINGS = ("key", "map", "letter", "ring", "book", "flute", "lamp", "coat")
PLACES = ("mill", "bridge", "boat house", "chapel", "market hall", "old school", "inn", "quarry")


def document(answers: int) -> tuple[str, list[str]]:
    """Sentences, and a question about each."""
    chance = random.Random(11)
    people = chance.sample([f"{a} {b}" for a in FIRST for b in LAST], answers)
    told, asked = [], []
    for who in people:
        thing, place = chance.choice(THINGS), chance.choice(PLACES)
        told.append(f"{who} keeps the {thing} on shelf {chance.randint(10, 99)} of the {place}.")
        asked.append(f"What does {who} keep?")
    return " ".join(told), asked


def margin(session: Any, said: list[int]) -> float:
    """Between the two best logits behind the tokens `said`."""
    fork = session.fork()
    fork.read(said)
    best = fork.end().float().flatten().topk(2).values
    return float(best[0] - best[1])


def compare(engine: Any, policy: str, given: argparse.Namespace) -> dict[str, Any]:
    """One policy's row."""
    text, questions = document(given.answers)
    ids = engine.tokenizer.encode(text)
    suffixes = SuffixArray.of(ids)
    prompts = [build_prompt(engine.tokenizer, engine.config, "ask", question=one)
               for one in questions]  # fmt: skip
    head = prompts[0].head_ids
    session = engine.session(overrides={"type": policy})
    session.read([*head, *ids])
    session.end()
    same, tokens, passes, margins = 0, 0, 0, []
    for number, prompt in enumerate(prompts):
        fork = session.fork()
        fork.read(prompt.tail_ids)
        fork.end()
        drafted = fork.fork()
        plain = [one.id for one in fork.generate(given.tokens)]
        before = drafted.passes
        drafts = DocumentDrafts(suffixes, prompt.tail_ids, len(head))
        said = [one.id for one in drafted.generate(given.tokens, drafts=drafts)]
        passes += drafted.passes - before
        tokens += len(said)
        if said == plain:
            same += 1
        else:
            alike = takewhile(lambda pair: pair[0] == pair[1], zip(said, plain, strict=False))
            margins.append(margin(session, [*prompt.tail_ids, *(token for token, _ in alike)]))
        if sys.stderr.isatty():
            print(f"{policy}: {number + 1} answers, {same} the same", end="\r", file=sys.stderr)
    return {
        "policy": policy, "document": len(ids), "answers": len(prompts), "same": same,
        "tokens": tokens, "passes": passes, "tokens_a_pass": round(tokens / passes, 2),
        "margins": margins,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=24, help="of an answer")
    parser.add_argument("--policies", default="inf-llm,stream-lm,origin")
    given = parser.parse_args()
    if not 1 <= given.answers <= len(FIRST) * len(LAST):
        parser.error(f"--answers: 1 to {len(FIRST) * len(LAST)}")
    overrides = {"model.dtype": "float32", "model.weights": "full"}
    with infllm.engine.load(given.model, overrides=overrides) as engine:
        rows = [compare(engine, policy, given) for policy in given.policies.split(",")]
    for row in rows:
        print(f"{row['policy']}: {row['same']} of {row['answers']} answers the same, "
              f"{row['tokens_a_pass']} tokens a pass, margins {row['margins']}")  # fmt: skip
    about = {"model": given.model.rpartition("/")[2], "dtype": "float32"}
    print(json.dumps({**environment(), **about, "rows": rows}))
    # Each answer's last pass may say that it ends, and no token.
    sys.exit(any(row["same"] < row["answers"] or row["tokens_a_pass"] <= 1 for row in rows))


if __name__ == "__main__":
    main()
