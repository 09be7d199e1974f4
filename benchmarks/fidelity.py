"""What the memory costs a model: answers with a memory policy beside those of full attention.

One document at a time: read once for each way of reading, asked on forks in each way of asking.
Each result is a JSON line on the disk before the next; the same command goes on where it stopped.

    python benchmarks/fidelity.py --model PATH --corpus DIR --output fidelity.jsonl \\
        --tasks facts,texts,ruler,local --len 2K,6K \\
        --methods "origin published default default+read-back"

A method is a name below, or NAME:KEY=VALUE,... on top of what fits the model and of `--base`.
Behind a slash stand settings that only the questions have (`more:/topk=16,far_position=capped`), so
that the document is read once for all that read alike. With `+read-back` at its end it answers as
`infllm ask --read-back` does: from passages that the question found, read again next to it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from common import environment
from fidelity_facts import plant
from fidelity_texts import TextsError, cut, read_stretches

from infllm.cli.bench.examine import sample_memory
from infllm.cli.bench.metrics import score
from infllm.cli.bench.prompts import EncodedSample, encode_sample, fitted_sources
from infllm.cli.bench.sample import BadSample, Sample, Turn
from infllm.cli.bench.source import Source
from infllm.cli.bench.statistics import mean_score
from infllm.cli.bench.suites import find_tasks
from infllm.cli.options import Sampling
from infllm.cli.tasks.answer import generate_answer
from infllm.cli.tasks.lengths import parse_length
from infllm.cli.tasks.policies import BACK, CITING, reads_back
from infllm.cli.tasks.questions import answer_prompt
from infllm.engine import load
from infllm.engine.text import Prompt, build_prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from infllm.engine import Engine, Session

# Attended alike by all: 64 initial tokens, a window of 1,024, 8 units of 64.
BASE = "n_init=64,n_local=1024,block_size=64,topk=8,exc_block_size=512,chunk_size=2048"
METHODS = {
    "origin": "type=origin",
    "window": "type=stream-lm",
    "default": "",
    "published": "/unit_score=representatives,far_position=capped",
    "keys": "/unit_score=keys",
    "capped": "/far_position=capped",
    "exact": "/far_position=exact",
}
SUITES = {
    "ruler": "ruler:niah_single_1,niah_single_2,niah_multikey_1,niah_multikey_2,"
    "niah_multivalue,niah_multiquery",
    "local": "local:passkey,kv",
}
BOOKS = "emma,walden-and-on-the-duty-of-civil-disobedience,lord-jim,the-moonstone"
ANSWER_TOKENS = 24
TEXTS_ANSWER_TOKENS = 32  # a longer question is repeated in a longer answer


@dataclass(frozen=True)
class Method:
    """How a document is read and how it is asked, in settings that differ from the base."""

    name: str
    reading: dict[str, Any]
    asking: dict[str, Any]
    reads_back: bool = False


@dataclass(frozen=True)
class Asked:
    """One question: its name in rows, and whether an answer is right, 0 to 1."""

    name: str
    score: Callable[[str], float]
    answer_tokens: int = ANSWER_TOKENS


@dataclass(frozen=True)
class Paper:
    """One document with its questions, as text and as ids: a turn and a tail for each question."""

    task: str
    length: int
    number: int
    sample: Sample
    encoded: EncodedSample
    questions: list[Asked]

    @property
    def ids(self) -> list[int]:
        """Of the document, with the prompt's head."""
        return [*self.encoded.head, *self.encoded.context]


def method(spec: str) -> Method:
    """Raises SystemExit for a name that stands for nothing, or cannot read back."""
    name, colon, given = spec.removesuffix(BACK).partition(":")
    if not colon and name not in METHODS:
        raise SystemExit(f"no method {name!r}; there are {', '.join(METHODS)}, and NAME:KEY=VALUE")
    settings = given if colon else METHODS[name]
    reading, _, asking = settings.partition("/")
    found = Method(name, settings_of(reading), settings_of(asking))
    if not reads_back(spec):
        return found
    if found.reading.get("type", CITING) != CITING:
        raise SystemExit(f"{spec}: only {CITING} tells which passages to read back; omit {BACK}")
    return replace(found, name=name + BACK, reads_back=True)


def settings_of(text: str) -> dict[str, Any]:
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {key: yaml.safe_load(value) for key, _, value in pairs}


# ---- documents ------------------------------------------------------------------------------


def papers(engine: Engine, args: argparse.Namespace, task: str, length: int) -> Iterator[Paper]:
    if task == "facts":
        yield from _with_facts(engine, args, length)
    elif task == "texts":
        yield from _of_texts(engine, args, length)
    else:
        yield from _of_suites(engine, args, SUITES[task], length)


def _with_facts(engine: Engine, args: argparse.Namespace, length: int) -> Iterator[Paper]:
    books = [args.corpus / f"{name}.txt" for name in args.books.split(",")]
    for number in range(args.first, args.documents):
        book = books[number % len(books)]
        planted = plant(engine.tokenizer, book, length, number, args.facts)
        turns = tuple(Turn(f.question, f.answer) for f in planted.facts)
        sample = Sample(book.stem, "", planted.text, turns)
        questions = [
            Asked(f.kind, lambda answer, f=f: float(f.is_right(answer))) for f in planted.facts
        ]
        encoded = _asked_as_ask(engine, sample, planted.ids)
        yield Paper("facts", length, number, sample, encoded, questions)


def _of_texts(engine: Engine, args: argparse.Namespace, length: int) -> Iterator[Paper]:
    stretches = read_stretches(args.corpus)[: args.documents]
    for number, stretch in [*enumerate(stretches)][args.first :]:
        document = cut(stretch, engine.tokenizer, length)
        if not document.questions:
            continue
        turns = tuple(Turn(q.asks, q.accepts) for q in document.questions)
        sample = Sample(stretch.book, "", document.text, turns)
        questions = [
            Asked(
                f"{stretch.book} {i}", lambda answer, q=q: float(q.is_right(answer)),
                TEXTS_ANSWER_TOKENS,
            )
            for i, q in enumerate(document.questions)
        ]  # fmt: skip
        encoded = _asked_as_ask(engine, sample, engine.tokenizer.encode(document.text))
        yield Paper("texts", length, number, sample, encoded, questions)


def _asked_as_ask(engine: Engine, sample: Sample, ids: list[int]) -> EncodedSample:
    """With the prompts of `infllm ask` around a document's ids, and around each question."""
    tokenizer, config = engine.tokenizer, engine.config
    prompts = [build_prompt(tokenizer, config, "ask", question=t.tail) for t in sample.turns]
    tails = [prompt.tail_ids for prompt in prompts]
    return EncodedSample(prompts[0].head_ids, ids, tails, [(0, len(ids))])


def _of_suites(
    engine: Engine, args: argparse.Namespace, names: str, length: int
) -> Iterator[Paper]:
    haystack = args.corpus / f"{args.books.split(',')[0]}.txt"
    source = Source(lengths=[length], count=args.samples, haystack=haystack)
    sources = fitted_sources(source, engine.tokenizer, engine.config)
    for task in find_tasks(names):
        for number, sample in enumerate(task.samples(sources[task.chat])):
            if isinstance(sample, BadSample):
                continue
            encoded = encode_sample(engine.tokenizer, engine.config, sample, task.chat)
            asked = [
                Asked(
                    task.name, lambda answer, turn=turn, task=task: score(task, turn, answer),
                    task.answer_tokens,
                )
                for turn in sample.turns
            ]  # fmt: skip
            yield Paper(task.id, length, number, sample, encoded, asked)


# ---- one document, all methods --------------------------------------------------------------


def examine(
    engine: Engine, paper: Paper, methods: list[Method], base: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """A row for each method. Those that read alike share one reading."""
    alike: dict[str, list[Method]] = defaultdict(list)
    for each in methods:
        alike[json.dumps(each.reading, sort_keys=True)].append(each)
    for some in alike.values():
        session, seconds = _read(engine, paper, {**base, **some[0].reading})
        for each in some:
            yield {**_ask(engine, session, paper, each), "seconds_reading": seconds}


def _read(engine: Engine, paper: Paper, settings: Mapping[str, Any]) -> tuple[Session, float]:
    began = time.process_time()
    session = engine.session(overrides=settings)
    session.read(paper.ids)
    session.end()
    return session, round(time.process_time() - began, 2)


def _ask(engine: Engine, session: Session, paper: Paper, how: Method) -> dict[str, Any]:
    answers, scores, read_back, attended, tokens = [], [], [], 0, 0
    began = time.process_time()
    document = asked_otherwise(session, how.asking)
    passages = (
        sample_memory(engine, document, paper.sample, paper.encoded) if how.reads_back else None
    )
    asked = zip(paper.questions, paper.sample.turns, paper.encoded.tails, strict=True)
    for question, turn, tail in asked:
        sampling = Sampling(max_new_tokens=question.answer_tokens, draft="off")
        if passages is None:
            fork = document.fork()
            fork.read(tail)
            answer = generate_answer(fork, engine.tokenizer, sampling)
            attended = max(attended, attended_by_step(fork))
        else:
            alone = Prompt(paper.encoded.head, tail)
            reply = answer_prompt(
                engine, passages, turn.tail, tail, alone, sampling, read_back=True
            )
            answer = reply.answer
            read_back.append(reply.read_back)
            attended = max(attended, attended_by_step(document))
        answers.append(answer.text)
        scores.append(question.score(answer.text))
        tokens += answer.tokens
    row = {
        "task": paper.task, "length": paper.length, "number": paper.number, "method": how.name,
        "tokens": len(paper.ids), "scores": scores, "answers": answers, "attended": attended,
        "kinds": [q.name for q in paper.questions],
        "seconds_answering": round(time.process_time() - began, 2), "answer_tokens": tokens,
    }  # fmt: skip
    return {**row, "tokens_read_back": read_back} if how.reads_back else row


def asked_otherwise(session: Session, asking: Mapping[str, Any]) -> Session:
    """A fork whose lookups follow other settings than those that it was read with."""
    fork = session.fork()
    if asking:
        fork.config = fork.config.model_copy(update=asking)
        for policy in fork.policies.values():
            policy.config = fork.config
    return fork


def attended_by_step(session: Session) -> int:
    """Keys that a decode step attends, in the layer that attends most."""
    most = 0
    for policy in session.policies.values():
        seen = sum(stop - start for start, stop in policy.in_sight())
        if policy.config.type == "inf-llm":
            seen += policy.config.short_topk * policy.config.block_size
        most = max(most, seen)
    return most


# ---- the run --------------------------------------------------------------------------------


def key_of(row: Mapping[str, Any]) -> str:
    return json.dumps([row["task"], row["length"], row["number"], row["method"]])


def table(rows: list[dict[str, Any]]) -> str:
    """Scores by method, task and length, intervals by bootstrap over documents.

    `back`: tokens of passages read back for a question, where the method does that.
    """
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["task"].partition(":")[0], row["length"], row["method"]].append(row)
    lines = [f"{'task':10} {'length':>7} {'method':20} {'right %':>7} {'95%':>13} {'asked':>5} "
             f"{'attended':>8} {'read s':>7} {'ask s':>7} {'back':>5}"]  # fmt: skip
    for (task, length, name), some in sorted(groups.items(), key=lambda x: x[0][:2]):
        mean = mean_score([sum(r["scores"]) / len(r["scores"]) for r in some])
        asked = sum(len(r["scores"]) for r in some)
        back = [tokens for r in some for tokens in r.get("tokens_read_back", ())]
        lines.append(
            f"{task:10} {length:7} {name:20} {100 * mean.mean:7.1f} "
            f"{100 * mean.low:5.1f} - {100 * mean.high:5.1f} {asked:5} "
            f"{max(r['attended'] for r in some):8} "
            f"{sum(r['seconds_reading'] for r in some) / len(some):7.1f} "
            f"{sum(r['seconds_answering'] for r in some) / asked:7.2f} "
            f"{f'{sum(back) / len(back):.0f}' if back else '':>5}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a preset, a folder or a GGUF file")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of books as text")
    parser.add_argument("--output", type=Path, required=True, help="JSON lines; goes on if there")
    parser.add_argument("--tasks", default="facts", help="of facts, texts, ruler, local")
    parser.add_argument("--len", default="2K,6K", dest="lengths")
    parser.add_argument("--methods", default="origin published default", help="by blanks")
    parser.add_argument("--base", default=BASE, help="settings of all methods")
    parser.add_argument(
        "--documents", type=int, default=8, help="with facts, at each length; of texts, at most 5"
    )
    parser.add_argument("--first", type=int, default=0, help="of these, the first to be read")
    parser.add_argument("--facts", type=int, default=5, help="a document, at most 8")
    parser.add_argument("--samples", type=int, default=2, help="of each task of a suite")
    parser.add_argument("--books", default=BOOKS)
    args = parser.parse_args()
    unknown = set(args.tasks.split(",")) - {"facts", "texts", *SUITES}
    if unknown:
        parser.error(f"--tasks: no {', '.join(sorted(unknown))}")
    if not 1 <= args.facts <= 8:
        parser.error("--facts: 1 to 8")
    methods = [method(spec) for spec in args.methods.split()]
    if "texts" in args.tasks.split(","):
        try:
            read_stretches(args.corpus)
        except TextsError as error:
            parser.error(f"--corpus: {error}")
    rows = []
    if args.output.exists():
        rows = [json.loads(line) for line in args.output.read_text().splitlines()]
        rows = [row for row in rows if "method" in row]
    done = {key_of(row) for row in rows}
    base = settings_of(args.base)
    engine = load(args.model, overrides=base)  # what is read back is read with the base, too
    with args.output.open("a") as out:
        if not rows:
            print(json.dumps({**environment(), "model": Path(args.model).name}), file=out)
        for length in map(parse_length, args.lengths.split(",")):
            for task in args.tasks.split(","):
                for paper in papers(engine, args, task, length):
                    about = {"task": paper.task, "length": length, "number": paper.number}
                    left = [m for m in methods if key_of({**about, "method": m.name}) not in done]
                    for row in examine(engine, paper, left, base):
                        rows.append(row)
                        print(json.dumps(row), file=out, flush=True)
                        print(_line(row), file=sys.stderr, flush=True)
    print(table(rows))


def _line(row: Mapping[str, Any]) -> str:
    right = sum(row["scores"])
    return (
        f"{row['task']} {row['length']} #{row['number']} {row['method']}: {right:g} of "
        f"{len(row['scores'])}, read {row['seconds_reading']} s, asked {row['seconds_answering']} s"
    )


if __name__ == "__main__":
    main()
