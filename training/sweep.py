"""Try settings of the built-in model's preset on validation documents:

`python -m training.sweep --corpus DIR --model presets/pocket preset topk=8`

Each argument is one row: settings that differ from the preset's. Prints JSON lines.
"""

import argparse
import json
from pathlib import Path

from transformers import AutoTokenizer

from infllm.cli.tasks.lengths import parse_length
from infllm.engine import load
from training.corpus import Corpus, held_out_books
from training.data import Sampler
from training.evaluate import row
from training.examination import KINDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of *.txt books")
    parser.add_argument("--model", type=Path, required=True, help="exported model")
    parser.add_argument("--length", type=parse_length, default=16384)
    parser.add_argument("--documents", type=int, default=6)
    parser.add_argument("rows", nargs="+", metavar="KEY=VALUE[,KEY=VALUE]", help="or: preset")
    args = parser.parse_args()
    books = held_out_books(args.corpus)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    sampler = Sampler(Corpus.build(books, tokenizer), tokenizer)
    engine = load("pocket", overrides={"model.path": str(args.model)})
    for spec in args.rows:
        settings = {} if spec == "preset" else dict(s.split("=", 1) for s in spec.split(","))
        done = row(
            engine, sampler, books, args.length, args.documents, "inf-llm", "validation",
            settings, tuple(KINDS),
        )  # fmt: skip
        scores = {skill: figures["score"] for skill, figures in done.skills.items()}
        answers = [value for skill, value in scores.items() if skill != "false alarms"]
        mean = round(sum(answers) / len(answers), 4)
        print(json.dumps({"set": spec, "seconds": done.seconds, "mean": mean, **scores}))


if __name__ == "__main__":
    main()
