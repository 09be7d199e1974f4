"""Measure an exported model: `python -m training.evaluate --corpus DIR --model presets/pocket`.

Documents come from books that training never saw and are read through the engine, by each memory
policy that is named. Prints JSON; with --output also after every row, so that a run that is cut
short keeps what it measured.
"""

import argparse
import json
import lzma
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from random import Random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from infllm.cli.tasks.lengths import parse_length
from infllm.engine import Engine, load
from training.corpus import Corpus, held_out_books
from training.data import Sampler
from training.examination import KINDS, Mark, definition_documents, examine, summary
from training.skills import bits_per_byte

SEED = "evaluation"
READ_BACK = "read-back"  # behind a policy and +: answer as `infllm ask --read-back`
DOCUMENTS = {2048: 40, 4096: 40, 65536: 10, 1048576: 2}


@dataclass(frozen=True)
class Row:
    """What one policy reached at one length."""

    length: int
    policy: str
    seconds: float
    skills: dict[str, dict]


def row(
    engine: Engine,
    sampler: Sampler,
    books: dict[str, str],
    length: int,
    documents: int,
    policy: str,
    seed: str = SEED,
    overrides: dict | None = None,
    kinds: tuple[str, ...] = (*KINDS, "definitions"),
    wrong: list[Mark] | None = None,
) -> Row:
    """Examine `documents` documents of each kind. Wrong answers are added to `wrong`."""
    began = time.perf_counter()
    policy, _, looks = policy.partition("+")
    settings = {**(overrides or {}), "type": policy}
    marks: list[Mark] = []
    for kind in kinds:
        if kind == "definitions":
            found = [
                document
                for book in books.values()
                for document in definition_documents(sampler, book, length)
            ]
            if length > 2**18:  # books are not so long
                found = []
        else:
            rngs = [Random(f"{seed}-{kind}-{length}-{index}") for index in range(documents)]
            found = (KINDS[kind](sampler, rng, length) for rng in rngs)
        for number, document in enumerate(found):
            back = looks == READ_BACK
            marks += examine(engine, sampler, document, number, settings, back)
        print(f"{length} {policy} {kind}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    if wrong is not None:
        wrong += [mark for mark in marks if mark.score < 1]
    seconds = round(time.perf_counter() - began, 1)
    return Row(
        length, "+".join(filter(None, (policy, looks))), seconds, summary(marks, Random(seed))
    )


def compression(model: Path, books: dict[str, str]) -> dict:
    """Bits per byte of the held-out books by the model at its trained length, and by xz -9e."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    texts = [text.encode() for text in books.values()]
    packed = sum(len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) for text in texts)
    return {
        "bits_per_byte": {
            str(length): round(bits_per_byte(plain, tokenizer, books, length, samples=64), 4)
            for length in (512, 1024, 2048)
        },
        "xz_bits_per_byte": round(8 * packed / sum(map(len, texts)), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of *.txt books")
    parser.add_argument("--model", type=Path, required=True, help="exported model")
    parser.add_argument(
        "--rows", nargs="*", metavar="LENGTH:POLICY[+read-back][:DOCUMENTS]",
        default=["2048:origin", "2048:inf-llm", "4096:inf-llm", "65536:inf-llm",
                 "65536:stream-lm", "65536:infinite-lm", "1048576:inf-llm"],
    )  # fmt: skip
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the preset")
    parser.add_argument("--kinds", nargs="*", default=[*KINDS, "definitions"])
    parser.add_argument("--seed", default=SEED, help="another one draws other documents")
    parser.add_argument("--no-books", action="store_true", help="leave out bits per byte")
    parser.add_argument("--wrong", type=Path, help="file for the wrong answers, one a line")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    books = held_out_books(args.corpus)
    if not books:
        parser.error(f"none of the held-out books is in {args.corpus}")
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    sampler = Sampler(Corpus.build(books, tokenizer), tokenizer)
    overrides = dict(setting.split("=", 1) for setting in args.set)
    engine = load("pocket", overrides={"model.path": str(args.model)})
    report = {
        "schema": 2, "command": "training.evaluate", "date": date.today().isoformat(),
        "torch": torch.__version__, "model": str(args.model), "seed": args.seed,
        "set": overrides,
    }  # fmt: skip
    if not args.no_books:
        report |= compression(args.model, books)
    report["rows"] = []
    wrong: list[Mark] = []
    for spec in args.rows:
        size, policy, *count = spec.split(":")
        length = parse_length(size)
        documents = int(count[0]) if count else DOCUMENTS.get(length, 5)
        done = row(
            engine, sampler, books, length, documents, policy, args.seed, overrides,
            tuple(args.kinds), wrong,
        )  # fmt: skip
        report["rows"].append(asdict(done))
        if args.output:
            args.output.write_text(json.dumps(report, indent=1) + "\n")
    if args.wrong:
        lines = [
            json.dumps({"skill": m.question.skill, "question": m.question.fact.question,
                        "wanted": m.question.fact.answer, "said": m.said})
            for m in wrong
        ]  # fmt: skip
        args.wrong.write_text("\n".join(lines) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
