"""Training samples: real text, repeated segments, and documents with planted facts to ask for."""

from dataclasses import dataclass
from random import Random

import numpy as np
from transformers import PreTrainedTokenizerFast

from training.corpus import Corpus
from training.facts import (
    PASSKEY_FILLER,
    PASSKEY_HEAD,
    Draw,
    Fact,
    attributes,
    magic_numbers,
    passkey,
    relations,
)
from training.tokenizer import BEGIN, END

ANSWER_WEIGHT = 5.0


@dataclass(frozen=True)
class Mix:
    """Shares of a batch; what remains is plain book text.

    kinds: relative shares of documents with a passkey, magic numbers, attributes and relations.
    """

    repeats: float
    questions: float
    kinds: tuple[int, int, int, int] = (25, 25, 25, 25)


@dataclass(frozen=True)
class Batch:
    """ids: int64 [B, T]; weights: float32 [B, T], the loss weight of predicting each token;
    answers: bool [B, T], the tokens of an answer, its end token included."""

    ids: np.ndarray
    weights: np.ndarray
    answers: np.ndarray


class Sampler:
    """Draws samples of exactly `length` tokens, each reproducible from its seed."""

    def __init__(self, corpus: Corpus, tokenizer: PreTrainedTokenizerFast):
        self.corpus = corpus
        self.core = tokenizer.backend_tokenizer
        self.begin = tokenizer.convert_tokens_to_ids(BEGIN)
        self.end = tokenizer.convert_tokens_to_ids(END)
        self.grass = [self.encode(" " + PASSKEY_FILLER), self.encode("\n" + PASSKEY_FILLER)]

    def encode(self, text: str) -> list[int]:
        return self.core.encode(text).ids

    def batch(self, seed: str, size: int, length: int, mix: Mix) -> Batch:
        """`size` samples; the same arguments give the same batch on any machine."""
        rng = Random(seed)
        ids = np.empty((size, length), dtype=np.int64)
        answers = np.zeros((size, length), dtype=bool)
        for row in range(size):
            kind = rng.random()
            if kind < mix.repeats:
                ids[row] = self.repeats(rng, length)
            elif kind < mix.repeats + mix.questions:
                ids[row], answers[row] = self.document(
                    rng, length, self.facts(rng, length, mix.kinds)
                )
            else:
                ids[row] = [self.begin, *self.book(rng, length - 1)]
        weights = np.where(answers, ANSWER_WEIGHT, 1.0).astype(np.float32)
        return Batch(ids, weights, answers)

    def book(self, rng: Random, count: int) -> list[int]:
        start = rng.randrange(len(self.corpus.ids) - count)
        return self.corpus.ids[start : start + count].tolist()

    def repeats(self, rng: Random, length: int) -> list[int]:
        """A few short segments told over and over in random order: what induction learns from."""
        if rng.random() < 0.5:
            segments = [self.book(rng, rng.randint(4, 20)) for _ in range(rng.randint(2, 6))]
        else:
            draw = self.draw(rng)
            segments = [
                self.encode(f"\n{draw.word()} {draw.digits()}") for _ in range(rng.randint(3, 10))
            ]
        ids = [self.begin]
        while len(ids) < length:
            ids += rng.choice(segments)
        return ids[:length]

    def draw(self, rng: Random) -> Draw:
        return Draw(rng, self.corpus.words, self.corpus.names)

    def facts(self, rng: Random, length: int, kinds: tuple[int, int, int, int]) -> list[Fact]:
        """Facts of one or two kinds, about as many as fit well into `length` tokens."""
        draw = self.draw(rng)
        most = max(3, min(length // 28, 24))
        count = rng.randint(2, most)
        kind = rng.choices([None, magic_numbers, attributes, relations], kinds)[0]
        if kind is not None:
            return kind(draw, count)
        extra = rng.choice([magic_numbers, attributes, relations])
        others = extra(draw, rng.randint(1, max(1, count // 2))) if rng.random() < 0.5 else []
        return [passkey(draw), *others]

    def document(self, rng: Random, length: int, facts: list[Fact]) -> tuple[list[int], list[bool]]:
        """A document of filler and facts and the questions about it: ids and answer mask."""
        has_passkey = facts[0].question.startswith("What is the pass key")
        opening = self.encode(PASSKEY_HEAD) if has_passkey and rng.random() < 0.5 else []
        gap = rng.choice([" ", " ", "\n", "\n\n"])
        room = length - 1 - len(opening)
        told: list[list[int]] = []
        asked: list[tuple[list[int], list[int]]] = []
        for fact in rng.sample(facts, len(facts)) if not has_passkey else facts:
            statement = self.encode(gap + fact.statement)
            question, answer = self.question(rng, fact)
            if room < len(statement) + len(question) + len(answer):
                break
            told.append(statement)
            asked.append((question, answer))
            room -= len(statement) + len(question) + len(answer)
        if not asked:
            return [self.begin, *self.book(rng, length - 1)], [False] * length
        # On short samples most of the room goes to questions, so that every token teaches.
        spare = int(room * rng.random() * (0.8 if length <= 256 else 0.25))
        for _ in range(3 * len(told)):
            question, answer = self.question(rng, rng.choice(facts[: len(told)]))
            if has_passkey and len(question) + len(answer) <= spare:
                asked.append((question, answer))
                spare -= len(question) + len(answer)
                room -= len(question) + len(answer)
        rng.shuffle(told)
        rng.shuffle(asked)
        ids = [self.begin, *opening, *self.hidden(rng, told, room, has_passkey)]
        mask = [False] * len(ids)
        for question, answer in asked:
            ids += question + answer
            mask += [False] * len(question) + [True] * len(answer)
        return ids, mask

    def question(self, rng: Random, fact: Fact) -> tuple[list[int], list[int]]:
        """Ids of the prompt's tail and of the answer with its end token."""
        tail = f"\n\nQuestion: {fact.question}\nAnswer:"
        form = rng.random()
        if fact.prefix and form < 0.12:
            tail = f"{tail} {fact.prefix}"
        elif fact.prefix and form < 0.18:
            tail = f"\n\n{fact.question} {fact.prefix}"
        return self.encode(tail), [*self.encode(f" {fact.answer}"), self.end]

    def hidden(self, rng: Random, told: list[list[int]], room: int, has_passkey: bool) -> list[int]:
        """`told` spread over `room` tokens of filler, between sentences more often than not."""
        if has_passkey and rng.random() < 0.5:
            unit = rng.choice(self.grass)
            filler = (unit * (room // len(unit) + 1))[:room]
            ends = list(range(len(unit), room, len(unit)))
        else:
            start = rng.randrange(len(self.corpus.ids) - room)
            filler = self.corpus.ids[start : start + room].tolist()
            low, high = np.searchsorted(self.corpus.sentence_ends, [start, start + room])
            ends = (self.corpus.sentence_ends[low:high] - start).tolist()
        if not ends or rng.random() < 0.2:
            ends = list(range(room + 1))
        cuts = sorted(rng.choice(ends) for _ in told)
        ids: list[int] = []
        for before, cut, statement in zip([0, *cuts], cuts, told, strict=False):
            ids += filler[before:cut] + statement
        return ids + filler[cuts[-1] :]
