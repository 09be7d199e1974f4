"""Needles in a haystack: statements of one form, told apart by their keys (RULER, passkey)."""

from random import Random
from typing import ClassVar, Literal

from infllm.cli.bench.generators.base import (
    Fill,
    Generator,
    Made,
    Order,
    Question,
    draw_depths,
)
from infllm.cli.bench.generators.filler import noise, sentences
from infllm.cli.bench.generators.words import fresh


class Needles(Generator):
    """`keys` needles with `values` values each, of which `queries` keys are asked for at once.

    form: the statement, with {key} and {value}. haystack: noise (one sentence over and over),
    text (the user's), or needles (statements of the same form under other keys).
    """

    TAIL: ClassVar = frozenset({"query"})

    form: str = "One of the special magic numbers for {key} is: {value}."
    haystack: Literal["noise", "text", "needles"] = "noise"
    joint: str = "\n"  # between pieces of noise
    key_kind: Literal["words", "uuids"] = "words"
    value_kind: Literal["numbers", "uuids", "digit_runs", "passkeys"] = "numbers"
    keys: int = 1
    values: int = 1
    queries: int = 1

    def libraries(self) -> tuple[str, ...]:
        return ("wonderwords",) if "{key}" in self.form and self.key_kind == "words" else ()

    def uses_haystack(self) -> bool:
        return self.haystack == "text"

    def plan(self, rng: Random, order: Order) -> Fill:
        seen: set[str] = set()

        def new_key() -> str:
            return fresh(self.key_kind, rng, seen) if "{key}" in self.form else ""

        def statement(key: str, value: str) -> str:
            return self.form.format(key=key, value=value)

        keys = [new_key() for _ in range(max(self.keys, self.queries))]
        pairs = [
            (key, fresh(self.value_kind, rng, seen)) for key in keys for _ in range(self.values)
        ]
        asked = rng.sample(keys, self.queries)
        question = Question(
            {"query": listed(asked)},
            tuple(value for wanted in asked for key, value in pairs if key == wanted),
        )
        shuffled = rng.sample(pairs, len(pairs))
        depths = [order.depth] if len(pairs) == 1 else draw_depths(rng, len(pairs))
        hidden = [(depth, statement(*pair)) for depth, pair in zip(depths, shuffled, strict=True)]
        first = next(d for d, (key, _) in zip(depths, shuffled, strict=True) if key == asked[0])
        planted = {value: self.form.count("{value}") for _, value in pairs}
        planted |= {f" {key} is: ": self.values for key in keys if "{key} is: " in self.form}
        others: list[str] = []  # grows, so that a longer context begins as a shorter one does

        def among_others(characters: int) -> str:
            room = characters - sum(len(text) + 1 for _, text in hidden)
            taken = 0
            used = 0
            while True:
                if taken == len(others):
                    others.append(statement(new_key(), fresh(self.value_kind, rng, seen)))
                if used + len(others[taken]) + 1 > room:
                    break
                used += len(others[taken]) + 1
                taken += 1
            lines = others[:taken]
            for depth, text in reversed(hidden):
                lines.insert(round(depth * taken), text)
            # The last one is cut short, so that a length means the same in every task.
            rest = others[taken][: room - used - 1]
            return "\n".join([*lines, rest] if rest else lines)

        def fill(characters: int) -> Made:
            if self.haystack == "needles":
                context = among_others(characters)
            elif self.haystack == "noise":
                context = noise(self.joint).hide(hidden, characters)
            else:
                context = sentences(order.source.haystack_text).hide(hidden, characters)
            return Made(context, (question,), {}, round(100 * first, 1), planted)

        return fill


def listed(items: list[str]) -> str:
    """ "a", "a, and b", "a, b, and c", as RULER writes them."""
    return ", ".join(items[:-1]) + ", and " + items[-1] if len(items) > 1 else items[0]
