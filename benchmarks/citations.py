"""Do citations point to where the answer stands? Questions with known places, asked of PDFs.

Each PDF is made of text of books that the built-in model never saw, with facts planted in it. It
is read once, as `infllm ask` reads it, and each question goes to a fork: plainly, and with the
passages read back.

    python benchmarks/citations.py --corpus DIR --documents 40 --length 64K
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from common import environment
from reportlab.lib.pagesizes import A5
from reportlab.pdfgen.canvas import Canvas
from transformers import AutoTokenizer

from infllm.cli.documents import Collection, read_sources
from infllm.cli.memory import Memory, plan_reading, read_memory
from infllm.cli.options import Sampling
from infllm.cli.output import Output
from infllm.cli.tasks.citations import Citation
from infllm.cli.tasks.lengths import parse_length
from infllm.cli.tasks.questions import ask_memory
from infllm.engine import Engine, load
from training.corpus import Corpus, held_out_books
from training.data import Sampler
from training.examination import Question, facts_document, json_document, score

COLUMNS, LINES = 78, 44  # of a page
QUESTIONS = 5  # a document
NOT_ASKED = ("not said",)


@dataclass(frozen=True)
class Result:
    """One question, asked in one way. Of the citations only the first three count.

    `unit`: a unit of the cited sentences holds the fact; `first`: one of the first citation's.
    """

    document: int
    skill: str
    read_back: bool
    right: float
    unit: bool
    first: bool
    page: bool | None
    verified: int
    verbatim: int
    citations: int
    seconds: float


def make_pdf(text: str, path: Path) -> list[str]:
    """Writes `text` as pages labelled 1, 2, ...; gives their texts."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        lines += [*textwrap.wrap(" ".join(paragraph.split()), COLUMNS), ""]
    canvas = Canvas(str(path), pagesize=A5, invariant=1)
    pages = []
    for start in range(0, len(lines), LINES):
        canvas.setFont("Courier", 7)
        for row, line in enumerate(lines[start : start + LINES]):
            canvas.drawString(40, A5[1] - 50 - 11 * row, line)
        canvas.showPage()
        pages.append(" ".join(lines[start : start + LINES]))
    canvas.save()
    return pages


def asked(questions: Sequence[Question], rng: Random) -> list[Question]:
    """`QUESTIONS` of those that the document answers, of as many skills as there are."""
    by_skill: dict[str, list[Question]] = {}
    for question in questions:
        if question.skill not in NOT_ASKED:
            by_skill.setdefault(question.skill, []).append(question)
    chosen: list[Question] = []
    while len(chosen) < QUESTIONS:
        skills = [skill for skill, left in by_skill.items() if left]
        for skill in rng.sample(skills, min(len(skills), QUESTIONS - len(chosen))):
            chosen.append(by_skill[skill].pop(rng.randrange(len(by_skill[skill]))))
    return chosen


def statements(question: Question) -> list[str]:
    """Those that state the answer."""
    fact = question.fact
    values = fact.values or (fact.answer.rstrip("."),)
    return [s for s in fact.statements if any(v in s for v in values)] or list(fact.statements)


def places(text: str, sentences: Sequence[str]) -> list[tuple[int, int]]:
    """Characters of `text` where the sentences stand, however their lines are broken."""
    found = []
    for sentence in sentences:
        pattern = r"\s+".join(map(re.escape, sentence.split()))
        found += [match.span() for match in re.finditer(pattern, text)]
    return found


def examine(
    engine: Engine, memory: Memory, pages: Sequence[str], question: Question, number: int
) -> Iterator[Result]:
    text = memory.collection.text
    stated = statements(question)
    spots = places(text, stated)
    labels = {str(index + 1) for index, page in enumerate(pages) for _ in places(page, stated)} or {
        str(index + 1) for index in _straddled(pages, stated)
    }
    most = len(engine.tokenizer.encode(question.fact.answer)) + 8
    sampling = Sampling(max_new_tokens=most, stop=("\nQuestion:",))
    for read_back in (False, True):
        reply = ask_memory(engine, memory, question.fact.question, sampling, read_back=read_back)
        cited = reply.citations
        hits = [_unit_holds(engine, memory, citation, spots) for citation in cited]
        pages_right = [
            citation.page in labels for citation, hit in zip(cited, hits, strict=True) if hit
        ]
        verbatim = [" ".join(c.quote.split()) in " ".join(text.split()) for c in cited]
        yield Result(
            number,
            question.skill,
            read_back,
            score(question, reply.answer.text),
            any(hits),
            bool(hits) and hits[0],
            pages_right[0] if pages_right else None,
            sum(citation.verified for citation in cited),
            sum(ok for citation, ok in zip(cited, verbatim, strict=True) if citation.verified),
            len(cited),
            round(reply.seconds + reply.answering, 3),
        )


def _straddled(pages: Sequence[str], stated: Sequence[str]) -> list[int]:
    """Pages whose end and the next one's beginning hold a statement together."""
    return [i for i in range(len(pages) - 1) if places(f"{pages[i]} {pages[i + 1]}", stated)]


def _unit_holds(
    engine: Engine, memory: Memory, citation: Citation, spots: Sequence[tuple[int, int]]
) -> bool:
    """Whether the units that a quote stands in hold the fact's last characters, its value."""
    config, passages = engine.config.model, memory.passages
    size, origin = config.block_size, config.n_init
    first, last = passages.tokens(citation.start, citation.stop)
    low = origin + (first - origin) // size * size
    high = origin + -(-(last - origin) // size) * size
    held = passages.characters(low, high)
    return held is not None and any(a >= held[0] - 200 and b <= held[1] for a, b in spots)


def summary(results: Sequence[Result]) -> dict:
    pages = [result.page for result in results if result.page is not None]
    skills = sorted({result.skill for result in results})
    verified = sum(result.verified for result in results)
    return {
        "questions": len(results),
        "right": _mean([result.right for result in results]),
        "right_by_skill": {
            skill: _mean([r.right for r in results if r.skill == skill]) for skill in skills
        },
        "cited_unit_holds_fact": _mean([result.unit for result in results]),
        "first_cited_unit_holds_fact": _mean([result.first for result in results]),
        "unit_by_skill": {
            skill: _mean([r.unit for r in results if r.skill == skill]) for skill in skills
        },
        "page_right_of_those": _mean(pages),
        "verified_quotes": verified,
        "verified_quotes_verbatim": sum(result.verbatim for result in results),
        "quotes": sum(result.citations for result in results),
        "seconds_per_question": _mean([result.seconds for result in results]),
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / max(1, len(values)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of *.txt books")
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--length", type=parse_length, default=65536)
    parser.add_argument("--json-documents", type=int, default=0, help="of JSON key-value pairs")
    parser.add_argument("--seed", default="citations")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the preset")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    books = held_out_books(args.corpus)
    if not books:
        parser.error(f"none of the held-out books is in {args.corpus}")
    engine = load("pocket", overrides=dict(setting.split("=", 1) for setting in args.set))
    tokenizer = AutoTokenizer.from_pretrained(engine.config.model.path)
    sampler = Sampler(Corpus.build(books, tokenizer), tokenizer)
    results: list[Result] = []
    for number in range(args.documents + args.json_documents):
        rng = Random(f"{args.seed}-{args.length}-{number}")
        make = facts_document if number < args.documents else json_document
        document = make(sampler, rng, args.length)
        text = engine.tokenizer.decode(document.ids)
        collection, pages = as_pdf(text)
        plan = plan_reading(engine, collection, 64)
        memory = read_memory(engine, plan, Output("ask", quiet=True))
        for question in asked(document.questions, rng):
            results += examine(engine, memory, pages, question, number)
        done = {
            way: summary([result for result in results if result.read_back == back])
            for way, back in (("plain", False), ("read_back", True))
        }
        print(
            f"{number + 1}: " + json.dumps({way: [s["right"], s["cited_unit_holds_fact"], s[
                "first_cited_unit_holds_fact"]] for way, s in done.items()}),
            file=sys.stderr,
        )  # fmt: skip
        report = {
            "benchmark": "citations", "length": args.length, "documents": number + 1,
            "set": args.set, **environment(), **done,
            "results": [asdict(result) for result in results],
        }  # fmt: skip
        if args.output:
            args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(done, indent=1))


def as_pdf(text: str) -> tuple[Collection, list[str]]:
    """The text as it comes back out of a PDF, and that of each page as it went in."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "document.pdf"
        pages = make_pdf(text, path)
        return read_sources([str(path)]), pages


if __name__ == "__main__":
    main()
