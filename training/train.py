"""Train the built-in model: `python -m training.train --corpus DIR --out DIR --minutes 80`."""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TextIO

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from training.allocation import give_back_free_pages, restart_with_large_pages
from training.corpus import Corpus, held_out_books, training_books
from training.data import SHORT_KINDS, Batch, Mix, Sampler
from training.export import export
from training.model import hidden_states, pocket_config
from training.optim import build_optimizers
from training.skills import SKILLS, bits_per_byte, skill_accuracy
from training.tokenizer import load_tokenizer, train_tokenizer


@dataclass(frozen=True)
class Phase:
    """A stretch of training: it begins when `start` of the budget is spent.

    batch: samples a step; far_share: share of steps in which keys `window` or more tokens back
    are seen as the memory shows them (see `training.model.hidden_states`).
    """

    start: float
    length: int
    batch: int
    mix: Mix
    far_share: float
    window: int


# Copying must be found at a short length, from short facts and with every token predicted, or it
# is found late; after that every longer length costs little. Late small batches buy more steps.
PHASES = (
    Phase(0.00, 128, 32, Mix(0.30, 0.50, 0.00, SHORT_KINDS, text=1.0, unsaid=0.0), 0.0, 128),
    Phase(0.10, 256, 24, Mix(0.12, 0.58, 0.08, text=1.0, unsaid=0.1), 0.2, 128),
    Phase(0.22, 512, 16, Mix(0.05, 0.70, 0.13, text=0.5), 0.5, 256),
    Phase(0.62, 1024, 8, Mix(0.03, 0.72, 0.13), 0.6, 256),
    Phase(0.84, 2048, 4, Mix(0.02, 0.70, 0.13), 0.7, 256),
)
# For a model that already copies: the same without the beginning.
LATER_PHASES = (
    Phase(0.00, 512, 16, Mix(0.04, 0.70, 0.15), 0.6, 256),
    Phase(0.35, 1024, 8, Mix(0.03, 0.71, 0.15), 0.7, 256),
    Phase(0.70, 2048, 4, Mix(0.02, 0.70, 0.15), 0.8, 256),
)
WARMUP = 0.02
DECAY_FROM = 0.4
EVALUATE_EVERY = 240.0  # seconds of training
SAVE_EVERY = 150.0


@dataclass
class Progress:
    """How far a run is; all that a checkpoint holds besides weights and optimizer state."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def share(self, minutes: float | None, tokens: int | None) -> float:
        """Part of the budget that is spent, 0..1."""
        if tokens is not None:
            return self.tokens / tokens
        return self.seconds / (60.0 * minutes)


def phase_at(share: float, phases: tuple[Phase, ...]) -> Phase:
    return [phase for phase in phases if phase.start <= share][-1]


def rate_at(share: float) -> float:
    """Learning rate as a part of its peak: warm-up, plateau, straight down to 2%."""
    if share < WARMUP:
        return (share + 0.001) / (WARMUP + 0.001)
    if share < DECAY_FROM:
        return 1.0
    return max(0.02, 1.0 - (share - DECAY_FROM) / (1.0 - DECAY_FROM))


def weighted_loss(model: LlamaForCausalLM, batch: Batch, window: int | None) -> Tensor:
    """Mean over the tokens that have a weight; only those go through the output layer."""
    weights = torch.from_numpy(batch.weights)[:, 1:].flatten()
    predicted = weights.nonzero()[:, 0]
    weights = weights[predicted]
    ids = torch.from_numpy(batch.ids)
    targets = ids[:, 1:].flatten()[predicted]
    with torch.autocast("cpu", torch.bfloat16):
        states = hidden_states(model, ids, window)[:, :-1].flatten(0, 1)
        logits = model.lm_head(states[predicted])
    losses = F.cross_entropy(logits.float(), targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


def prepare(
    corpus_dir: Path, out: Path, start: Path | None = None
) -> tuple[PreTrainedTokenizerFast, Corpus]:
    """Tokenizer (that of the model in `start`, if given) and tokenized corpus, made once and kept
    in `out`."""
    if not (out / "corpus.npz").exists():
        books = training_books(corpus_dir)
        tokenizer = train_tokenizer(books.values()) if start is None else load_tokenizer(start)
        tokenizer.save_pretrained(out / "tokenizer")
        Corpus.build(books, tokenizer).save(out / "corpus.npz")
    return load_tokenizer(out / "tokenizer"), Corpus.load(out / "corpus.npz")


class Trainer:
    """One training run: model, optimizers, progress and their checkpoint in `out`."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        corpus: Corpus,
        out: Path,
        seed: int,
        phases: tuple[Phase, ...] = PHASES,
        rate: float = 1.0,
    ):
        torch.manual_seed(seed)
        self.seed, self.out, self.phases, self.rate = seed, out, phases, rate
        self.tokenizer = tokenizer
        self.sampler = Sampler(corpus, tokenizer)
        self.model = LlamaForCausalLM(
            pocket_config(
                len(tokenizer),
                tokenizer.bos_token_id,
                tokenizer.eos_token_id,
                tokenizer.pad_token_id,
            )
        )
        self.optimizers = build_optimizers(self.model)
        self.progress = Progress()

    def step(self, share: float) -> float:
        """One optimizer step at `share` of the budget; returns the loss."""
        phase = phase_at(share, self.phases)
        key = f"{self.seed}-{self.progress.step}"
        batch = self.sampler.batch(key, phase.batch, phase.length, phase.mix)
        far = Random(f"far-{key}").random() < phase.far_share
        loss = weighted_loss(self.model, batch, phase.window if far else None)
        loss.backward()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * self.rate * rate_at(share)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.tokens += batch.ids.size
        return loss.item()

    def save(self) -> None:
        """Write the checkpoint so that a kill at any moment leaves a whole one."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": vars(self.progress),
        }
        partial = self.out / "checkpoint.pt.partial"
        torch.save(state, partial)
        os.replace(partial, self.out / "checkpoint.pt")

    def resume(self) -> None:
        state = torch.load(self.out / "checkpoint.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(**state["progress"])

    def start_from(self, folder: Path) -> None:
        """Take the weights of an exported model of the same shape and tokenizer."""
        self.model.load_state_dict(LlamaForCausalLM.from_pretrained(folder).float().state_dict())

    def evaluate(self, length: int, held_out: dict[str, str]) -> dict[str, float]:
        """Shares of answers right on fresh documents, old keys seen as the memory shows them."""
        figures: dict[str, float] = {}
        window = phase_at(1.0, self.phases).window
        for skill in SKILLS:
            share, _ = skill_accuracy(
                self.model, self.sampler, skill, length, samples=8, window=window
            )
            figures[skill] = round(share, 3)
        if held_out:
            bits = bits_per_byte(self.model, self.tokenizer, held_out, length, samples=16)
            figures["bits_per_byte"] = round(bits, 4)
        return figures


def run(
    trainer: Trainer,
    minutes: float | None,
    tokens: int | None,
    held_out: dict[str, str],
    log: TextIO = sys.stdout,
) -> None:
    """Train until the budget (minutes of training, or tokens) is spent, logging JSON lines."""
    evaluated = saved = trainer.progress.seconds
    losses: list[float] = []
    while (share := trainer.progress.share(minutes, tokens)) < 1.0:
        began = time.perf_counter()
        losses.append(trainer.step(share))
        trainer.progress.seconds += time.perf_counter() - began
        now = trainer.progress
        if now.step % 50 == 0:
            record = {
                "step": now.step,
                "tokens": now.tokens,
                "seconds": round(now.seconds, 1),
                "length": phase_at(share, trainer.phases).length,
                "loss": round(sum(losses) / len(losses), 4),
            }
            print(json.dumps(record), file=log, flush=True)
            losses.clear()
        if now.seconds - evaluated > EVALUATE_EVERY:
            length = phase_at(share, trainer.phases).length
            record = {"step": now.step, "length": length, **trainer.evaluate(length, held_out)}
            print(json.dumps(record), file=log, flush=True)
            evaluated = now.seconds
        if now.seconds - saved > SAVE_EVERY:
            trainer.save()
            give_back_free_pages()
            saved = now.seconds
    trainer.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of *.txt books")
    parser.add_argument("--out", type=Path, required=True, help="checkpoints and the model")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--minutes", type=float, help="time to train, evaluation not counted")
    budget.add_argument("--tokens", type=int, help="tokens to train on; exactly reproducible")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="exported model to go on from, in place of none")
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    args = parser.parse_args()
    restart_with_large_pages("training.train")
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer, corpus = prepare(args.corpus, args.out, args.start)
    phases = PHASES if args.start is None else LATER_PHASES
    trainer = Trainer(tokenizer, corpus, args.out, args.seed, phases, args.rate)
    if args.start is not None:
        trainer.start_from(args.start)
    if args.resume:
        trainer.resume()
    run(trainer, args.minutes, args.tokens, held_out_books(args.corpus))
    export(trainer.model, tokenizer, args.out / "model")


if __name__ == "__main__":
    main()
