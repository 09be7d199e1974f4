"""Lookups in long lists: values of JSON keys, numbers by size, strings by both their ends."""

from random import Random
from string import ascii_lowercase, digits
from typing import ClassVar

from infllm.cli.bench.generators.base import Fill, Generator, Made, Order, Question
from infllm.cli.bench.generators.words import fresh

SHORTEST_PAIR = 12  # characters of an entry that fills up a JSON object


class KeyValue(Generator):
    """One JSON object of UUIDs; each of `turns` questions asks for the value of one key."""

    TAIL: ClassVar = frozenset({"key"})

    turns: int = 1

    def plan(self, rng: Random, order: Order) -> Fill:
        seen: set[str] = set()
        asked = [(fresh("uuids", rng, seen), fresh("uuids", rng, seen)) for _ in range(self.turns)]
        depths = [(order.depth + i / self.turns) % 1.0 for i in range(self.turns)]
        if self.turns == 1:
            depths = [order.depth]
        questions = tuple(Question({"key": key}, (value,)) for key, value in asked)
        hidden = sorted(zip(depths, asked, strict=True))
        planted = {text: 1 for pair in asked for text in pair}
        others: list[tuple[str, str]] = []
        last = (fresh("uuids", rng, seen), fresh("uuids", rng, seen))
        entry = len('"": "", ') + 2 * 36

        def fill(characters: int) -> Made:
            room = characters - 2 - entry * self.turns
            taken = max(0, room // entry)
            while len(others) < taken:
                others.append((fresh("uuids", rng, seen), fresh("uuids", rng, seen)))
            pairs = others[:taken]
            for depth, pair in reversed(hidden):
                pairs.insert(round(depth * taken), pair)
            left = room - taken * entry
            if left >= SHORTEST_PAIR:  # a shorter entry, so that a length is met to a few tokens
                half = (left - len('"": "", ')) // 2
                pairs.append((last[0][:half], last[1][:half]))
            context = "{" + ", ".join(f'"{key}": "{value}"' for key, value in pairs) + "}"
            return Made(context, questions, {}, round(100 * depths[0], 1), planted)

        return fill


class NumberList(Generator):
    """Whole numbers in a list; each turn asks for the one of a given rank by size.

    Every rank asked for is held by a number that occurs once.
    """

    TAIL: ClassVar = frozenset({"which"})

    turns: int = 5

    def plan(self, rng: Random, order: Order) -> Fill:
        ends = list(rng.sample(range(0, 1000), 4) + rng.sample(range(99_000, 100_000), 4))
        small, large = sorted(ends[:4]), sorted(ends[4:], reverse=True)
        ranked = {
            "largest": large[0], "smallest": small[0], "second largest": large[1],
            "second smallest": small[1], "third largest": large[2], "third smallest": small[2],
        }  # fmt: skip
        chosen = rng.sample(sorted(ranked), min(self.turns, len(ranked)))
        questions = tuple(Question({"which": which}, (str(ranked[which]),)) for which in chosen)
        places = [rng.random() for _ in ends]
        others: list[int] = []

        def fill(characters: int) -> Made:
            room = characters - 2 - sum(len(f"{n}, ") for n in ends)
            taken = 0
            while room > 0:
                if taken == len(others):
                    others.append(rng.randrange(1000, 99_000))
                room -= len(f"{others[taken]}, ")
                taken += 1
            numbers = others[: max(0, taken - 1)]
            for place, n in zip(places, ends, strict=True):
                numbers.insert(round(place * len(numbers)), n)
            return Made(f"[{', '.join(map(str, numbers))}]", questions)

        return fill


class PrefixSuffix(Generator):
    """Random strings, one a line; each turn asks for the string that begins and ends so."""

    TAIL: ClassVar = frozenset({"prefix", "suffix"})

    turns: int = 5
    letters: int = 40
    end: int = 6

    def plan(self, rng: Random, order: Order) -> Fill:
        used: set[str] = set()

        def string() -> str:
            while True:
                text = "".join(rng.choices(ascii_lowercase + digits, k=self.letters))
                ends = {f"^{text[: self.end]}", f"{text[-self.end :]}$"}
                if not ends & used:
                    used.update(ends)
                    return text

        asked = [string() for _ in range(self.turns)]
        questions = tuple(
            Question({"prefix": text[: self.end], "suffix": text[-self.end :]}, (text,))
            for text in asked
        )
        places = sorted(rng.random() for _ in asked)
        others: list[str] = []
        last = string()

        def fill(characters: int) -> Made:
            line = self.letters + 1
            room = characters - line * len(asked)
            taken = max(0, room // line)
            while len(others) < taken:
                others.append(string())
            lines = others[:taken]
            for place, text in zip(reversed(places), reversed(asked), strict=True):
                lines.insert(round(place * taken), text)
            left = room - taken * line - 1
            if left > self.end:  # a shorter string; its beginning is nobody else's
                lines.append(last[:left])
            planted = dict.fromkeys(asked, 1)
            return Made("\n".join(lines), questions, planted=planted)

        return fill
