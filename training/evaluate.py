"""Measure an exported model: `python -m training.evaluate --corpus DIR --model presets/pocket`.

Up to the trained length the plain transformers model answers with full attention; beyond it the
engine reads through its memory. Documents come from books that training never saw. Prints JSON.
"""

import argparse
import json
import time
from pathlib import Path
from random import Random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as Tokenizer

from training.corpus import Corpus, held_out_books
from training.data import Sampler
from training.skills import SKILLS, bits_per_byte, skill_accuracy

SEED = "evaluation"
QUESTIONS = 4  # asked of each document read through the memory


def short_lengths(
    model: LlamaForCausalLM, sampler: Sampler, lengths: list[int], samples: int
) -> list[dict]:
    """Share of answers right at each length, every token of an answer by greedy choice."""
    rows = []
    for length in lengths:
        row: dict = {"length": length, "attention": "full"}
        for skill in SKILLS:
            share, _ = skill_accuracy(model, sampler, skill, length, samples, SEED)
            row[skill] = round(share, 4)
        rows.append(row)
    return rows


def long_lengths(
    model: Path, tokenizer: Tokenizer, sampler: Sampler, lengths: list[int], samples: int
) -> list[dict]:
    """Share of answers right when documents are read through the engine's memory."""
    from infllm.engine import load

    engine = load("pocket", overrides={"model.path": str(model)})
    rows = []
    for length in lengths:
        row: dict = {"length": length, "attention": "inf-llm"}
        began = time.perf_counter()
        for skill in SKILLS:
            outcomes = []
            for index in range(samples):
                rng = Random(f"{SEED}-{skill}-{length}-{index}")
                facts = SKILLS[skill](sampler.draw(rng))
                session = engine.session()
                session.read(_long_document(sampler, rng, length, facts))
                session.end()
                for fact in facts[:QUESTIONS]:
                    child = session.fork()
                    child.read(sampler.encode(f"\n\nQuestion: {fact.question}\nAnswer:"))
                    ids = [token.id for token in child.generate(max_new_tokens=24)]
                    answer = tokenizer.decode(ids, skip_special_tokens=True).strip()
                    outcomes.append(answer == fact.answer)
            row[skill] = round(sum(outcomes) / len(outcomes), 4)
        row["seconds"] = round(time.perf_counter() - began, 1)
        rows.append(row)
    return rows


def _long_document(sampler: Sampler, rng: Random, length: int, facts: list) -> list[int]:
    told = [sampler.encode(f" {fact.statement}") for fact in facts]
    room = length - 1 - sum(map(len, told))
    return [sampler.begin, *sampler.hidden(rng, told, room, has_passkey=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of *.txt books")
    parser.add_argument("--model", type=Path, required=True, help="exported model")
    parser.add_argument("--lengths", type=int, nargs="*", default=[256, 512, 1024])
    parser.add_argument("--samples", type=int, default=100, help="documents a skill and length")
    parser.add_argument("--long-lengths", type=int, nargs="*", default=[])
    parser.add_argument("--long-samples", type=int, default=10)
    args = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    books = held_out_books(args.corpus)
    if not books:
        parser.error(f"none of the held-out books is in {args.corpus}")
    sampler = Sampler(Corpus.build(books, tokenizer), tokenizer)
    result = {
        "schema": 1,
        "command": "training.evaluate",
        "model": str(args.model),
        "samples": args.samples,
        "bits_per_byte": {
            str(length): round(bits_per_byte(model, tokenizer, books, length, samples=64), 4)
            for length in args.lengths
        },
        "skills": short_lengths(model, sampler, args.lengths, args.samples),
    }
    if args.long_lengths:
        result["skills"] += long_lengths(
            args.model, tokenizer, sampler, args.long_lengths, args.long_samples
        )
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
