"""Variable tracking (RULER vt): chains of assignments hidden in filler, all names of a value."""

from itertools import pairwise
from random import Random
from string import ascii_uppercase
from typing import ClassVar, Literal

from infllm.cli.bench.generators.base import Fill, Generator, Made, Order, Question
from infllm.cli.bench.generators.filler import noise, sentences

EXAMPLE_CHARACTERS = 700  # a solved case of some 250 tokens


class Variables(Generator):
    """`chains` chains of `hops` assignments after the first; each of `turns` asks for one chain.

    example: whether a short solved case goes before the prompt, as in RULER.
    """

    HEAD: ClassVar = frozenset({"example"})
    TAIL: ClassVar = frozenset({"query", "count"})

    haystack: Literal["noise", "text"] = "noise"
    chains: int = 1
    hops: int = 4
    turns: int = 1
    example: bool = True

    def uses_haystack(self) -> bool:
        return self.haystack == "text"

    def plan(self, rng: Random, order: Order) -> Fill:
        text = order.source.haystack_text if self.haystack == "text" else None
        solved = self._chains(rng, 3, 1, 1, None)(EXAMPLE_CHARACTERS) if self.example else None
        return self._chains(rng, 5, self.chains, self.turns, text, solved)

    def _chains(
        self,
        rng: Random,
        letters: int,
        chains: int,
        turns: int,
        text: str | None,
        example: Made | None = None,
    ) -> Fill:
        names: dict[str, None] = {}
        while len(names) < chains * (self.hops + 1):
            names["".join(rng.choices(ascii_uppercase, k=letters))] = None
        values = [str(value) for value in rng.sample(range(10000, 99999), chains)]
        every = list(names)
        hidden = []
        questions = []
        planted = {f"= {value}": 1 for value in values} | {f"VAR {name} = ": 1 for name in every}
        for i, value in enumerate(values):
            mine = every[i * (self.hops + 1) : (i + 1) * (self.hops + 1)]
            said = [f"VAR {mine[0]} = {value}"]
            said += [f"VAR {b} = VAR {a}" for a, b in pairwise(mine)]
            if text is not None:
                said = [f"{line}." for line in said]
            hidden += list(zip(sorted(rng.random() for _ in said), said, strict=True))
            questions.append(Question({"query": value, "count": str(len(mine))}, tuple(mine)))
        hidden.sort()
        filler = noise() if text is None else sentences(text)

        def fill(characters: int) -> Made:
            context = filler.hide(hidden, characters)
            return Made(context, tuple(questions[:turns]), {}, None, planted, example)

        return fill
