"""Aggregation (RULER cwe and fwe): which words of a long list occur most often."""

import math
from bisect import bisect_right
from random import Random
from string import ascii_lowercase
from typing import ClassVar

from infllm.cli.bench.generators.base import Fill, Generator, Made, Order, Question
from infllm.cli.bench.generators.words import distinct_words

SHORT = 4096  # below this many tokens RULER repeats words less often

NOISE = "..."


class CommonWords(Generator):
    """A numbered list in which `common` words occur `often` times and all others `seldom` times.

    A solved case with 40 words goes before the prompt.
    """

    HEAD: ClassVar = frozenset({"example"})

    common: int = 10
    often: int = 30
    seldom: int = 3

    def libraries(self) -> tuple[str, ...]:
        return ("wonderwords",)

    def plan(self, rng: Random, order: Order) -> Fill:
        short = order.length < SHORT
        words = distinct_words(rng)
        many, few = (6, 1) if short else (self.often, self.seldom)
        top, others = [next(words) for _ in range(self.common)], 20 if short else 40
        shown = [next(words) for _ in range(others)]
        example = self._list(shown[: self.common], shown[self.common :], 3 if short else 10,
                             1 if short else 3, rng.random())  # fmt: skip
        rare: list[str] = []
        order_seed = rng.random()

        def fill(characters: int) -> Made:
            # An entry is a word, its number, a dot and two blanks.
            used = sum(many * (len(word) + 4) for word in top)
            entries = many * len(top)
            taken = 0
            while True:
                if taken == len(rare):
                    rare.append(next(words))
                entry = len(rare[taken]) + len(str(entries + few)) + 3
                if used + few * entry > characters:
                    break
                used += few * entry
                entries += few
                taken += 1
            return self._list(top, rare[:taken], many, few, order_seed, example)

        return fill

    def _list(
        self,
        top: list[str],
        rare: list[str],
        many: int,
        few: int,
        seed: float,
        example: Made | None = None,
    ) -> Made:
        entries = top * many + rare * few
        Random(seed).shuffle(entries)
        context = " ".join(f"{i}. {word}" for i, word in enumerate(entries, 1))
        answer = " ".join(f"{i}. {word}" for i, word in enumerate(top, 1))
        question = Question({}, tuple(top), {"answer": answer})
        return Made(context, (question,), example=example)


class FrequentWords(Generator):
    """Coded words whose counts fall as rank ** -alpha; the first rank is noise, three are asked."""

    alpha: float = 2.0
    letters: int = 6
    asked: int = 3

    def plan(self, rng: Random, order: Order) -> Fill:
        vocabulary = max(order.length // 50, 20)
        words: dict[str, None] = {NOISE: None}
        while len(words) < vocabulary:
            words["".join(rng.choices(ascii_lowercase, k=self.letters))] = None
        ranked = list(words)
        seed = rng.random()
        shares = [rank**-self.alpha / zeta(self.alpha) for rank in range(1, len(ranked) + 1)]
        question = Question({}, tuple(ranked[1 : self.asked + 1]))

        def counts(total: int) -> list[int]:
            return [int(total * share) for share in shares]

        def size(total: int) -> int:
            return sum(n * (len(w) + 1) for n, w in zip(counts(total), ranked, strict=True))

        def fill(characters: int) -> Made:
            total = bisect_right(range(characters), characters, key=size) - 1
            entries = [w for n, w in zip(counts(total), ranked, strict=True) for _ in range(n)]
            # Noise, whose count nobody asks for, makes up what is less than a step of the counts.
            entries += [NOISE] * ((characters - size(total)) // (len(NOISE) + 1))
            Random(seed).shuffle(entries)
            return Made(" ".join(entries), (question,))

        return fill


def zeta(alpha: float) -> float:
    """Riemann's zeta function for alpha > 1, to about 1e-9 (Euler and Maclaurin)."""
    first = 1000
    head = math.fsum(n**-alpha for n in range(1, first))
    tail = first ** (1 - alpha) / (alpha - 1) + first**-alpha / 2
    return head + tail + alpha * first ** (-alpha - 1) / 12
