"""What settings cost a model, and what they leave of its answers: facts planted in a book.

A book that the model was not tuned on is cut to a length, one-sentence facts are planted evenly in
it, and every fact is asked on a fork, with the prompt of `infllm ask`: plainly, and with the
passages read back. A row is one configuration; rows that are in the output already are not made
again.

    python benchmarks/planted_facts.py --model model.gguf --book novel.txt --length 6K,24K \
        --rows n_local=1024,topk=8,block_size=64 n_local=512,topk=8,block_size=64 -o facts.jsonl

Of a row: facts answered (with and without read-back), facts whose sentence is cited, seconds of CPU
time that a token takes to read, seconds to a question.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from common import environment

from infllm.cli.documents import Collection, Document, Span
from infllm.cli.memory import Memory, plan_reading, read_memory
from infllm.cli.options import Sampling
from infllm.cli.output import Output
from infllm.cli.reading import with_prompt_stops
from infllm.cli.tasks.lengths import parse_length
from infllm.cli.tasks.questions import ask_memory
from infllm.engine import Engine, load

ANSWER_TOKENS = 24


class Fact(NamedTuple):
    """A sentence to plant, a question about it, and what a right answer says (a pattern)."""

    sentence: str
    question: str
    answer: str


FACTS = (
    Fact("The lighthouse on Gull Island was built by an engineer named Oskar Lindqvist.",
         "Who built the lighthouse on Gull Island?", r"lindqvist"),
    Fact("Doctor Amara Okafor keeps exactly 47 beehives behind her house.",
         "How many beehives does Doctor Amara Okafor keep?", r"\b47\b|forty.seven"),
    Fact("The annual chess tournament of the Brackwater Club is held in the town of Eldersfield.",
         "In which town is the chess tournament of the Brackwater Club held?", r"eldersfield"),
    Fact("The bakery in Thornbury Lane burned down because a candle was left on a sack of flour.",
         "Why did the bakery in Thornbury Lane burn down?", r"candle"),
    Fact("The door of the observatory at Kestrel Hill is painted turquoise.",
         "What colour is the door of the observatory at Kestrel Hill?", r"turquoise"),
    Fact("The secret ingredient of Madame Fournier's soup is pickled ginger.",
         "What is the secret ingredient of Madame Fournier's soup?", r"ginger"),
    Fact("The locomotive called Silver Heron was retired in the year 1873.",
         "In which year was the locomotive called Silver Heron retired?", r"1873"),
    Fact("The parrot of Captain Ruiz is called Bartholomew.",
         "What is the parrot of Captain Ruiz called?", r"bartholomew"),
    Fact("The password of the archive in Wexcombe is the word marigold.",
         "What is the password of the archive in Wexcombe?", r"marigold"),
    Fact("The violinist Ilse Brandt lost her left glove on the ferry to Norhaven.",
         "What did the violinist Ilse Brandt lose on the ferry to Norhaven?", r"glove"),
    Fact("The bridge over the river Tamsel is 312 metres long.",
         "How long is the bridge over the river Tamsel?", r"\b312\b"),
    Fact("Old Mr. Pettigrew left his whole fortune to a nephew who lives in Lisbon.",
         "In which city does the nephew live to whom Mr. Pettigrew left his fortune?", r"lisbon"),
)  # fmt: skip


def planted(tokenizer: Any, book: str, length: int) -> str:
    """`book` from its middle on, cut to `length` tokens, with the facts spread evenly over it."""
    facts = sum(len(tokenizer.encode(fact.sentence)) for fact in FACTS)
    start = book.index("\n\n", len(book) // 3) + 2
    ids = tokenizer.encode(book[start : start + 12 * length])[: length - facts]
    paragraphs = tokenizer.decode(ids).split("\n\n")
    sizes = [len(paragraph) for paragraph in paragraphs]
    total, done, waiting = sum(sizes), 0, list(FACTS)
    text: list[str] = []
    for paragraph, size in zip(paragraphs, sizes, strict=True):
        place = (len(FACTS) - len(waiting) + 0.5) / len(FACTS)
        if waiting and done >= place * total:
            text.append(waiting.pop(0).sentence)
        text.append(paragraph)
        done += size
    text += [fact.sentence for fact in waiting]
    return "\n\n".join(text)


def examine(
    engine: Engine, memory: Memory, sampling: Sampling, read_back: bool, told: bool
) -> dict[str, Any]:
    """Every fact asked once: how many were answered, how many of those cited, and seconds."""
    right, cited, first, began = [], [], [], time.process_time()
    for fact in FACTS:
        reply = ask_memory(engine, memory, fact.question, sampling, read_back=read_back)
        right.append(bool(re.search(fact.answer, reply.answer.text.lower())))
        quotes = [" ".join(citation.quote.split()) for citation in reply.citations]
        cited.append(any(fact.sentence in quote or quote in fact.sentence for quote in quotes))
        first.append(bool(quotes) and (fact.sentence in quotes[0]))
        if told:
            text = " ".join(reply.answer.text.split())
            print(f"  {'+' if right[-1] else '-'}{'c' if cited[-1] else ' '} {text[:110]}")
    return {
        "right": sum(right),
        "right_cited": sum(r and c for r, c in zip(right, cited, strict=True)),
        "cited": sum(cited),
        "cited_first": sum(first),
        "cpu_s_a_question": round((time.process_time() - began) / len(FACTS), 2),
    }


def measure(
    model: str, settings: dict[str, Any], book: str, length: int, ways: list[str], told: bool
) -> dict[str, Any]:
    with load(model, overrides=settings) as engine:
        text = planted(engine.tokenizer, book, length)
        spans = [Span(0, len(text), "book.txt", line=1)]
        collection = Collection([Document("book.txt", "text", text, spans)])
        plan = plan_reading(engine, collection, 64)
        began = time.process_time()
        memory = read_memory(engine, plan, Output("bench", False, True, 0))
        read = time.process_time() - began
        sampling = with_prompt_stops(engine, Sampling(max_new_tokens=ANSWER_TOKENS))
        row: dict[str, Any] = {"tokens": plan.tokens, "cpu_ms_a_token": 1e3 * read / plan.tokens}
        row["cpu_ms_a_token"] = round(row["cpu_ms_a_token"], 2)
        used = engine.config.flat()
        keys = ("n_local", "topk", "block_size", "exc_block_size", "unit_score", "repr_score")
        row["used"] = {k: used[f"model.{k}"] for k in keys} | {"chunk_size": used["chunk_size"]}
        for way in ways:
            row[way] = examine(engine, memory, sampling, way == "read_back", told)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--book", type=Path, required=True)
    parser.add_argument("--length", default="6K")
    parser.add_argument("--rows", nargs="+", default=[""], metavar="KEY=VALUE,...")
    parser.add_argument("--all", default="", metavar="KEY=VALUE,...", help="of all rows")
    parser.add_argument("--ways", nargs="+", default=["plain", "read_back"])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--answers", action="store_true", help="print every answer")
    given = parser.parse_args()
    book = given.book.read_text(encoding="utf-8")
    lines = given.output.read_text().splitlines() if given.output and given.output.exists() else []
    done = {json.dumps(json.loads(line)["row"]) for line in lines}
    for length in given.length.split(","):
        for row in given.rows:
            pairs = [pair for pair in f"{given.all},{row}".split(",") if pair]
            key = [Path(given.model).name, given.book.name, length, *pairs]
            if json.dumps(key) in done:
                continue
            settings = {k: yaml.safe_load(v) for k, v in (pair.split("=") for pair in pairs)}
            print(*key, flush=True)
            length_of = parse_length(length)
            result = measure(given.model, settings, book, length_of, given.ways, given.answers)
            line = json.dumps({"row": key, **result, "environment": environment()})
            if given.output:
                with given.output.open("a") as file:
                    file.write(line + "\n")
            print(f"  {result['cpu_ms_a_token']:.2f} ms/token; of {len(FACTS)}: ", end="")
            for way in given.ways:
                one = result[way]
                print(
                    f"{way} {one['right']} (cited {one['right_cited']}), "
                    f"{one['cpu_s_a_question']} s; ",
                    end="",
                )
            print(flush=True)


if __name__ == "__main__":
    main()
