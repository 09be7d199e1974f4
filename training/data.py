"""Training samples: real text, repeated segments, and documents with planted facts to ask for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from transformers import PreTrainedTokenizerFast

from training.corpus import Corpus
from training.draw import Draw
from training.facts import (
    PASSKEY_FILLER,
    PASSKEY_HEAD,
    Fact,
    attributes,
    definitions,
    json_pairs,
    latest,
    magic_numbers,
    multi_query,
    multi_value,
    number_string,
    passkey,
    quoted,
    relations,
    report,
    two_hop,
    unsaid,
)
from training.tokenizer import BEGIN, END

# Loss weights of an answer's tokens and of the rest.
ANSWER_WEIGHT, TEXT_WEIGHT = 5.0, 1.0

QUOTED_SHARE = 0.04

# What may be planted together in filler: facts of one form, each a distractor of the others.
PLANTED: dict[str, Callable[[Draw, int], list[Fact]]] = {
    "passkey": lambda draw, _: [passkey(draw)],
    "number": number_string,
    "magic": magic_numbers,
    "multi_value": multi_value,
    "multi_query": multi_query,
    "attributes": attributes,
    "relations": relations,
    "latest": latest,
    "two_hop": two_hop,
    "definitions": definitions,
    "report": lambda draw, _: [report(draw)],
}
MAY_BE_UNSAID = ("magic", "attributes", "relations", "latest", "two_hop", "definitions")
MAY_BE_QUOTED = ("magic", "attributes", "relations")
# Rough cost of a fact with its question and answer, in tokens.
_TOKENS = {"multi_value": 90, "multi_query": 90, "number": 60, "definitions": 70, "latest": 55,
           "two_hop": 55}  # fmt: skip
_TOKENS_OF_OTHERS = 40

KINDS = {"passkey": 3, "number": 4, "magic": 9, "multi_value": 11, "multi_query": 11,
         "attributes": 16, "relations": 26, "latest": 6, "two_hop": 10, "definitions": 5,
         "report": 1}  # fmt: skip
# Those of which several fit into 128 tokens, each with its question.
SHORT_KINDS = {"passkey": 3, "number": 4, "magic": 10, "attributes": 16, "relations": 10}


@dataclass(frozen=True)
class Mix:
    """Shares of a batch; what remains is plain book text.

    json: documents that are one JSON object. kinds: relative shares of what the `questions`
    documents hold (see PLANTED). text: of the tokens that are no answer, how many are predicted;
    a share alone spares the output layer most of its work. unsaid: of the facts whose statement
    could be left out, how many the document does not say.
    """

    repeats: float
    questions: float
    json: float = 0.0
    kinds: dict[str, float] = field(default_factory=lambda: dict(KINDS))
    text: float = 0.25
    unsaid: float = 0.20


@dataclass(frozen=True)
class Batch:
    """ids: int64 [B, T]; weights: float32 [B, T], the loss weight of predicting each token (0:
    not predicted); answers: bool [B, T], the tokens of an answer, its end token included."""

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
            elif kind < mix.repeats + mix.json:
                ids[row], answers[row] = self.json_document(rng, length)
            elif kind < mix.repeats + mix.json + mix.questions:
                facts = self.facts(rng, length, mix)
                ids[row], answers[row] = self.document(rng, length, facts)
            else:
                ids[row] = [self.begin, *self.book(rng, length - 1)]
        predicted = np.random.default_rng(rng.getrandbits(63)).random(ids.shape) < mix.text
        weights = np.where(answers, ANSWER_WEIGHT, predicted * TEXT_WEIGHT).astype(np.float32)
        return Batch(ids, weights, answers)

    def book(self, rng: Random, count: int) -> list[int]:
        start = rng.randrange(len(self.corpus.ids) - count)
        return self.corpus.ids[start : start + count].tolist()

    def repeats(self, rng: Random, length: int) -> list[int]:
        """A few short segments told over and over in random order: what induction learns from."""
        draw = self.draw(rng)
        kind = rng.random()
        if kind < 0.4:
            segments = [self.book(rng, rng.randint(4, 20)) for _ in range(rng.randint(2, 6))]
        elif kind < 0.7:
            segments = [
                self.encode(f"\n{draw.word()} {draw.digits()}") for _ in range(rng.randint(3, 10))
            ]
        else:
            segments = [
                self.encode(f"\n{draw.hexadecimal(8, 4)} {draw.person()}")
                for _ in range(rng.randint(2, 8))
            ]
        ids = [self.begin]
        while len(ids) < length:
            ids += rng.choice(segments)
        return ids[:length]

    def draw(self, rng: Random) -> Draw:
        return Draw(rng, self.corpus.words, self.corpus.names, self.corpus.definitions)

    def facts(self, rng: Random, length: int, mix: Mix) -> list[Fact]:
        """Facts of one to three kinds, at most about as many as fill `length` tokens."""
        draw = self.draw(rng)
        shares = list(mix.kinds.values())
        drawn = rng.choices(list(mix.kinds), shares, k=rng.choice([1, 1, 2, 3]))
        names = list(dict.fromkeys(drawn))
        facts = []
        for name in names:
            most = length // len(names) // _TOKENS.get(name, _TOKENS_OF_OTHERS)
            for fact in PLANTED[name](draw, rng.randint(2, max(2, most))):
                if name in MAY_BE_UNSAID and rng.random() < mix.unsaid:
                    fact = unsaid(fact)
                elif name in MAY_BE_QUOTED and rng.random() < QUOTED_SHARE:
                    fact = quoted(fact)
                facts.append(fact)
        return facts

    def document(
        self, rng: Random, length: int, facts: Sequence[Fact]
    ) -> tuple[list[int], list[bool]]:
        """A document of filler and facts and the questions about it: ids and answer mask."""
        has_passkey = any(fact.question.startswith("What is the pass key") for fact in facts)
        opening = self.encode(PASSKEY_HEAD) if has_passkey and rng.random() < 0.5 else []
        gap = rng.choice([" ", " ", "\n", "\n\n"])
        room = length - 1 - len(opening)
        told: list[list[list[int]]] = []
        asked: list[tuple[list[int], list[int]]] = []
        for fact in facts if has_passkey else rng.sample(facts, len(facts)):
            statements = [self.encode(gap + statement) for statement in fact.statements]
            question, answer = self.question(rng, fact)
            cost = sum(map(len, statements)) + len(question) + len(answer)
            if room < cost:
                break
            told.append(statements)
            asked.append((question, answer))
            room -= cost
        if not any(told):
            return [self.begin, *self.book(rng, length - 1)], [False] * length
        rng.shuffle(asked)
        body = [self.begin, *opening, *self.hidden(rng, told, room, has_passkey)]
        return _with_questions(body, asked)

    def json_document(self, rng: Random, length: int) -> tuple[list[int], list[bool]]:
        """One JSON object of many entries, behind the end of other text, and questions for keys."""
        joint = rng.choice([", ", ",\n", ",\n  "])
        share = rng.uniform(0.15, 0.6)  # of the entries that are asked for
        body = self.encode("{")
        close = self.encode("}")
        room = length - 1 - len(body) - len(close)
        asked: list[tuple[list[int], list[int]]] = []
        for fact in json_pairs(self.draw(rng), max(3, length // 24)):
            entry = self.encode(f"{joint if len(body) > 1 else ''}{fact.statements[0]}")
            is_asked = rng.random() < share or not asked
            question, answer = self.question(rng, fact) if is_asked else ([], [])
            room -= len(entry) + len(question) + len(answer)
            if room < 0:
                room += len(entry) + len(question) + len(answer)
                break
            body += entry
            if is_asked:
                asked.append((question, answer))
        rng.shuffle(asked)
        return _with_questions([self.begin, *self.book(rng, room), *body, *close], asked)

    def question(self, rng: Random, fact: Fact) -> tuple[list[int], list[int]]:
        """Ids of the prompt's tail and of the answer with its end token."""
        tail = f"\n\nQuestion: {fact.question}\nAnswer:"
        form = rng.random()
        if fact.prefix and form < 0.2:
            tail = f"{tail} {fact.prefix}"
        elif fact.prefix and form < 0.24:
            tail = f"\n\n{fact.question} {fact.prefix}"
        return self.encode(tail), [*self.encode(f" {fact.answer}"), self.end]

    def hidden(
        self, rng: Random, told: Sequence[Sequence[list[int]]], room: int, has_passkey: bool = False
    ) -> list[int]:
        """The statements of each fact of `told`, in their order, spread over `room` tokens of
        filler, between sentences more often than not."""
        if has_passkey and rng.random() < 0.5:
            unit = rng.choice(self.grass)
            filler = (unit * (room // len(unit) + 1))[:room]
            ends = list(range(len(unit), room, len(unit)))
        else:
            filler, ends = self.filler(rng, room)
        if not ends or rng.random() < 0.2:
            ends = list(range(room + 1))
        # Whose statement stands at each place; a fact's own statements keep their order.
        places = [number for number, statements in enumerate(told) for _ in statements]
        rng.shuffle(places)
        following = [iter(statements) for statements in told]
        cuts = sorted(rng.choice(ends) for _ in places)
        ids: list[int] = []
        for before, cut, number in zip([0, *cuts], cuts, places, strict=False):
            ids += filler[before:cut] + next(following[number])
        return ids + filler[cuts[-1] :]

    def filler(self, rng: Random, room: int) -> tuple[list[int], list[int]]:
        """`room` tokens of books, read again from the start where they are too short, and where
        in them sentences end."""
        books, ends = self.corpus.ids, self.corpus.sentence_ends
        if room >= len(books):
            times = room // len(books) + 1
            ends = np.concatenate([ends + number * len(books) for number in range(times)])
            books = np.tile(books, times)
        start = rng.randrange(len(books) - room)
        low, high = np.searchsorted(ends, [start, start + room])
        return books[start : start + room].tolist(), (ends[low:high] - start).tolist()


def _with_questions(
    ids: list[int], asked: Sequence[tuple[list[int], list[int]]]
) -> tuple[list[int], list[bool]]:
    mask = [False] * len(ids)
    for question, answer in asked:
        ids = ids + question + answer
        mask += [False] * len(question) + [True] * len(answer)
    return ids, mask
