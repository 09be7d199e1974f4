"""LLM-to-SLM (arXiv 2402.16844): does a small model write better when a large one has read for it?

    python -m training.llm_to_slm --encoder MODEL --corpus DIR --json OUT.json [--save FOLDER]

Each example is the end of a paragraph: `--prompt` tokens, and the `--answer` tokens that follow.
Three models are trained alike from the same weights, on answers alone:

    alone     the small model by itself
    full      with the encoder's states of the prompt, through a projector, added to embeddings
    shuffled  the same with the states of another prompt: as many parameters, nothing to tell

and measured, beside the encoder itself, by bits a byte of the answers of books that no one was
trained on: tokenizers do not matter. Differences are paired by example, with intervals by
bootstrap. `full` must beat both others, or the projector is mere extra parameters; only then
`--save` writes a folder that `infllm --model FOLDER` loads. Every run of an arm and seed is
written when it is done: the same command goes on with what is missing.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infllm.engine.guide import Encoder, Projector, carried, overlaps, save_projector, spans
from infllm.engine.text import Tokenizer

ARMS = ("alone", "full", "shuffled")
SMALL_RATE, PROJECTOR_RATE, WARM_UP, BATCH = 3e-4, 1e-3, 0.03, 32
RESAMPLES = 2000
CLOSED = 0.2  # of the gap to the encoder that `full` has to close


@dataclass(frozen=True)
class Examples:
    """Prompts int64 [n, P] and answers int64 [n, A] of the small model's tokens, and their text."""

    prompts: Tensor
    answers: Tensor
    texts: list[tuple[str, str]]

    @property
    def answer_bytes(self) -> Tensor:
        """float32 [n]."""
        return torch.tensor([float(len(answer.encode())) for _, answer in self.texts])


def find_examples(
    texts: Sequence[str], tokenizer: Tokenizer, n: int, prompt: int, answer: int, seed: int
) -> Examples:
    """The ends of `n` paragraphs, drawn from those that are long enough.

    Raises ValueError where there are too few.
    """
    found = []
    for text in texts:
        for paragraph in text.split("\n\n"):
            ids = tokenizer.encode(" ".join(paragraph.split()))
            if len(ids) >= prompt + answer:
                found.append(ids[-prompt - answer :])
    if len(found) < n:
        raise ValueError(f"{len(found)} paragraphs of {prompt + answer} tokens, {n} are wanted")
    drawn = torch.tensor(Random(seed).sample(found, n))
    prompts, answers = drawn[:, :prompt], drawn[:, prompt:]
    pairs = [
        (tokenizer.decode(p), tokenizer.decode(a))
        for p, a in zip(prompts.tolist(), answers.tolist(), strict=True)
    ]
    return Examples(prompts, answers, pairs)


@dataclass(frozen=True)
class Read:
    """What the encoder makes of one prompt: states bfloat16 [m, encoder], and which tokens of the
    small model they belong to, see `overlaps`."""

    states: Tensor
    at: tuple[Tensor, Tensor, Tensor]


def read_prompts(examples: Examples, encoder: Encoder, tokenizer: Tokenizer) -> list[Read]:
    """Each prompt by itself, as `Guide` reads what is asked."""
    found = []
    for ids in examples.prompts.tolist():
        text, ours = spans(tokenizer, ids)
        theirs = encoder.tokenizer.encode(text)
        at = overlaps(ours, spans(encoder.tokenizer, theirs)[1])
        found.append(Read(encoder.states(theirs).bfloat16(), at))
    return found


def shifted(reads: Sequence[Read]) -> list[Read]:
    """Each prompt's place taken by another's."""
    return [*reads[1:], reads[0]]


def added(projector: Projector, reads: Sequence[Read], length: int) -> Tensor:
    """float32 [B, length, small]: what is added to the embeddings of a batch of prompts."""
    rows, columns, weights = [], [], []
    row = column = 0
    for read in reads:
        rows.append(read.at[0] + row)
        columns.append(read.at[1] + column)
        weights.append(read.at[2])
        row, column = row + length, column + len(read.states)
    z = projector(torch.cat([read.states for read in reads]).float())
    at = torch.cat(rows), torch.cat(columns), torch.cat(weights)
    return carried(z, at, row).view(len(reads), length, -1)


def answer_losses(
    model: Any, projector: Projector | None, examples: Examples, reads: Sequence[Read], at: Tensor
) -> Tensor:
    """float32 [B, A], nats: of the answers of examples `at`, teacher-forced."""
    prompts, answers = examples.prompts[at], examples.answers[at]
    embedded = model.get_input_embeddings()(torch.cat([prompts, answers], 1))
    if projector is not None:
        z = added(projector, [reads[i] for i in at.tolist()], prompts.shape[1])
        embedded = embedded + F.pad(z, (0, 0, 0, answers.shape[1]))
    body = model.get_decoder()
    states = body(inputs_embeds=embedded, use_cache=False).last_hidden_state
    logits = model.get_output_embeddings()(states[:, prompts.shape[1] - 1 : -1])
    losses = F.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none")
    return losses.view(answers.shape)


def train(
    model: Any, projector: Projector | None, examples: Examples, reads: Sequence[Read],
    epochs: int, seed: int,
) -> float:  # fmt: skip
    """Train in place; the mean loss of the last epoch, in nats a token."""
    groups = [{"params": list(model.parameters()), "lr": SMALL_RATE}]
    if projector is not None:
        groups.append({"params": list(projector.parameters()), "lr": PROJECTOR_RATE})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    n = len(examples.prompts)
    total = epochs * math.ceil(n / BATCH)

    def rate(step: int) -> float:
        warm = max(1, round(WARM_UP * total))
        done = max(0, step - warm) / max(1, total - warm)
        return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    for _ in range(epochs):
        losses = []
        for at in torch.randperm(n, generator=generator).split(BATCH):
            loss = answer_losses(model, projector, examples, reads, at).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


@torch.no_grad()
def nats(
    model: Any, projector: Projector | None, examples: Examples, reads: Sequence[Read]
) -> list[float]:
    """Of each example's answer."""
    parts = torch.arange(len(examples.prompts)).split(BATCH)
    rows = [answer_losses(model, projector, examples, reads, at).sum(1) for at in parts]
    return torch.cat(rows).tolist()


@torch.no_grad()
def encoder_nats(model: Any, tokenizer: Tokenizer, examples: Examples) -> list[float]:
    """Of each answer, by the encoder itself: of the tokens that begin in the answer, as it splits
    prompt and answer together."""
    found = []
    for prompt, answer in examples.texts:
        ids = tokenizer.encode(prompt + answer)
        begins = [start for start, _ in spans(tokenizer, ids)[1]]
        first = max(1, sum(start < len(prompt) for start in begins))
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
        losses = F.cross_entropy(logits[first - 1 : -1], torch.tensor(ids[first:]), reduction="sum")
        found.append(float(losses))
    return found


def interval(differences: Tensor, seed: int = 0) -> tuple[float, float, float]:
    """Mean of [n], and the 95% interval of it by bootstrap."""
    generator = torch.Generator().manual_seed(seed)
    n = len(differences)
    drawn = torch.randint(n, (RESAMPLES, n), generator=generator)
    means = differences[drawn].mean(1).sort().values
    low, high = means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]
    return float(differences.mean()), float(low), float(high)


def figures(runs: dict[str, list[list[float]]], encoder: list[float], n_bytes: Tensor) -> Any:
    """Bits a byte, the differences of `full` with their intervals, and the verdict.

    `runs`: nats of each example, a list for each seed, by arm; `encoder`: nats of each example.
    """
    bits = {arm: torch.tensor(x).mean(0) / math.log(2) for arm, x in runs.items()}  # [n]
    bits["encoder"] = torch.tensor(encoder) / math.log(2)
    mean_bytes = n_bytes.mean()
    told: dict[str, Any] = {
        "bits_per_byte": {arm: float(x.sum() / n_bytes.sum()) for arm, x in bits.items()}
    }
    for arm in ("alone", "shuffled"):
        mean, low, high = interval((bits["full"] - bits[arm]) / mean_bytes)
        told[f"full_minus_{arm}"] = {"mean": mean, "low": low, "high": high}
    gap = told["bits_per_byte"]["alone"] - told["bits_per_byte"]["encoder"]
    told["gap_closed"] = -told["full_minus_alone"]["mean"] / gap if gap else 0.0
    told["beats_both"] = all(told[f"full_minus_{arm}"]["high"] < 0 for arm in ("alone", "shuffled"))
    told["success"] = told["beats_both"] and told["gap_closed"] >= CLOSED
    return told


def decode_speed(model: Any, ids: Tensor, steps: int = 16) -> float:
    """Tokens of a greedy answer per second of CPU time, reading the prompt [1, P] left out."""

    def took(n: int) -> float:
        began = time.process_time()
        model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n,
            min_new_tokens=n,
        )  # fmt: skip
        return time.process_time() - began

    took(1)
    return steps / max(1e-9, took(1 + steps) - took(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--small", default="pocket", metavar="MODEL")
    parser.add_argument("--encoder", required=True, metavar="MODEL")
    parser.add_argument("--layer", type=int, help="of the encoder; default: two thirds of them")
    parser.add_argument("--corpus", required=True, type=Path, metavar="DIR")
    parser.add_argument("--examples", type=int, default=1500)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of the small model")
    parser.add_argument("--answer", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, required=True, metavar="OUT")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="only if both are beaten")
    args = parser.parse_args()
    experiment(args)


def experiment(args: argparse.Namespace) -> dict[str, Any]:
    """Everything; gives what is written to `args.json`."""
    from infllm.engine.attachment import load_parts
    from infllm.engine.config import load_config
    from training.corpus import held_out_books, training_books

    def parts(name: str) -> tuple[Any, Tokenizer]:
        return load_parts(load_config(name, {"model.dtype": "float32"}, environ={}).model)

    report: dict[str, Any] = json.loads(args.json.read_text()) if args.json.is_file() else {}
    _, tokenizer = parts(args.small)
    sizes = args.prompt, args.answer
    learnt = find_examples(
        list(training_books(args.corpus).values()), tokenizer, args.examples, *sizes, 1
    )
    asked = find_examples(
        list(held_out_books(args.corpus).values()), tokenizer, args.held_out, *sizes, 2
    )
    large, of_encoder = parts(args.encoder)
    if "encoder_nats" not in report:
        report["encoder_nats"] = encoder_nats(large, of_encoder, asked)
        prompt = torch.tensor([of_encoder.encode(asked.texts[0][0])])
        report["decode_tokens_per_second"] = {"encoder": decode_speed(large, prompt)}
        write(args.json, report)
    depth = large.config.num_hidden_layers
    encoder = Encoder(large, of_encoder, args.layer or round(depth * 2 / 3))
    began = time.process_time()
    reads, asked_reads = (read_prompts(x, encoder, tokenizer) for x in (learnt, asked))
    report["seconds_encoding"] = time.process_time() - began
    runs = report.setdefault("nats", {arm: {} for arm in ARMS})
    kept: Any = None
    for seed in args.seeds:
        for arm in ARMS:
            if str(seed) in runs[arm] and not (args.save and arm == "full" and kept is None):
                continue
            torch.manual_seed(seed)
            small, _ = parts(args.small)
            small.requires_grad_(True)
            size = small.get_input_embeddings().weight.shape[1]
            projector = None if arm == "alone" else Projector(encoder.size, size)
            other = arm == "shuffled"
            began = time.process_time()
            loss = train(
                small, projector, learnt, shifted(reads) if other else reads, args.epochs, seed
            )
            tested = shifted(asked_reads) if other else asked_reads
            runs[arm][str(seed)] = nats(small, projector, asked, tested)
            write(args.json, report)
            if arm == "full" and kept is None:
                kept = small, projector
                report["decode_tokens_per_second"]["small"] = decode_speed(small, asked.prompts[:1])
            mean = sum(runs[arm][str(seed)]) / float(asked.answer_bytes.sum()) / math.log(2)
            took = time.process_time() - began
            print(
                f"{arm}, seed {seed}: trained to {loss:.3f} nats, held out {mean:.4f} bits a byte, "
                f"{took:.0f} s of CPU time", file=sys.stderr, flush=True,
            )  # fmt: skip
    every = {arm: list(runs[arm].values()) for arm in ARMS}
    report["figures"] = figures(every, report["encoder_nats"], asked.answer_bytes)
    report["settings"] = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in vars(args).items()
        if key not in ("json", "save", "corpus", "encoder")
    } | {"encoder": Path(args.encoder).name, "layer": encoder.layer}
    write(args.json, report)
    print(json.dumps(report["figures"], indent=1))
    if args.save and report["figures"]["success"]:
        small, projector = kept
        small.save_pretrained(args.save)
        tokenizer.hf.save_pretrained(args.save)
        save_projector(args.save, projector, encoder, tokenizer, args.encoder)
        print(f"saved {args.save}", file=sys.stderr)
    elif args.save:
        print("not saved: both controls are to be beaten", file=sys.stderr)
    return report


def write(path: Path, report: dict[str, Any]) -> None:
    """Whole or not at all."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(report, indent=1) + "\n")
    beside.replace(path)


if __name__ == "__main__":
    main()
