"""Facts of many kinds, planted as sentences in a stretch of a book, and questions about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infllm.engine.text import Tokenizer

FRONT = 0.15  # share of a book that is passed over: title, contents, preface
SENTENCE_GAP = re.compile(r"(?<=[.!?]) +")


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST = words("Oriane Bastian Tamsin Corvin Ludmila Anselm Petra Hollis Marit Ivo Senna Rupert")
LAST = words("Vell Tash Quillon Dreyer Maddox Orlov Penhale Strand Ibarra Lockett Falk Winslow")
PLACES = words("Halden Corven Brisk Ostrava Tarn Mullion Querne Sable Wexcombe Arden Lisle Norrow")
COLOURS = words("crimson turquoise violet amber silver olive maroon indigo scarlet ivory")
ANIMALS = words("heron otter badger falcon lynx tortoise raven hedgehog salmon beetle")
GOODS = words("copper rope tar candles salt lanterns barley wool glass saffron tin vinegar")
TRADES = words("cooper glazier surveyor botanist apothecary locksmith organist printer")
CAUSES = (
    "a broken axle", "a swarm of bees", "a frozen lock", "a forged letter", "a cracked bell",
    "a lost key",
)  # fmt: skip


def holds(answer: str, wanted: str) -> bool:
    """Whether an answer has these words in a row, whatever the case and what stands between."""
    said, sought = (
        f" {' '.join(re.findall(r'[a-z0-9]+', text.lower().replace(',', '')))} "
        for text in (answer, wanted)
    )
    return sought in said


@dataclass(frozen=True)
class Fact:
    """What a document states, what is asked, and what a right answer holds, and does not hold."""

    kind: str
    statements: tuple[str, ...]  # in order; the last holds the answer
    question: str
    answer: tuple[str, ...]
    wrong: tuple[str, ...] = ()

    def is_right(self, answer: str) -> bool:
        """Whether an answer holds all that it should, in whole words, and nothing that is wrong."""
        return all(holds(answer, x) for x in self.answer) and not any(
            holds(answer, x) for x in self.wrong
        )


class Draw:
    """Fresh names and numbers: none is drawn twice for a document."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self._drawn: set[str] = set()

    def fresh(self, make: Callable[[], str]) -> str:
        while (value := make()) in self._drawn:
            pass
        self._drawn.add(value)
        return value

    def one(self, words: Sequence[str]) -> str:
        return self.fresh(lambda: self.rng.choice(words))

    def person(self) -> str:
        return f"{self.one(FIRST)} {self.one(LAST)}"

    def number(self, digits: int = 4) -> str:
        return self.fresh(lambda: str(self.rng.randrange(10 ** (digits - 1), 10**digits)))


def _number(d: Draw) -> Fact:
    place, n = d.one(PLACES), d.number()
    return Fact(
        "number", (f"The registry office of {place} holds exactly {n} sealed envelopes.",),
        f"How many sealed envelopes does the registry office of {place} hold?", (n,),
    )  # fmt: skip


def _name(d: Draw) -> Fact:
    who, trade, place = d.person(), d.one(TRADES), d.one(PLACES)
    return Fact(
        "name", (f"The only {trade} in the village of {place} was called {who}.",),
        f"What was the name of the only {trade} in the village of {place}?", (who,),
    )  # fmt: skip


def _place(d: Draw) -> Fact:
    who, place, good = d.person(), d.one(PLACES), d.one(GOODS)
    return Fact(
        "place", (f"{who} buried the chest of {good} beneath the old mill at {place}.",),
        f"At which village's old mill did {who} bury the chest of {good}?", (place,),
    )  # fmt: skip


def _cause(d: Draw) -> Fact:
    place, why = d.one(PLACES), d.one(CAUSES)
    return Fact(
        "cause", (f"The night coach to {place} was three hours late because of {why}.",),
        f"Why was the night coach to {place} three hours late?", (why.partition(" ")[2],),
    )  # fmt: skip


def _colour(d: Draw) -> Fact:
    who, colour = d.person(), d.one(COLOURS)
    return Fact(
        "colour", (f"On market days {who} always wore a {colour} scarf.",),
        f"Which colour was the scarf that {who} wore on market days?", (colour,),
    )  # fmt: skip


def _listed(d: Draw) -> Fact:
    place, goods = d.one(PLACES), [d.one(GOODS) for _ in range(3)]
    return Fact(
        "list", (f"The warehouse at {place} stored {goods[0]}, {goods[1]} and {goods[2]}.",),
        f"Which three goods did the warehouse at {place} store?", tuple(goods),
    )  # fmt: skip


def _negation(d: Draw) -> Fact:
    place, animal, other = d.one(PLACES), d.one(ANIMALS), d.one(ANIMALS)
    return Fact(
        "negation",
        (f"The painter of the {place} chapel drew every beast of the valley, the {other} too, "
         f"but never the {animal}.",),
        f"Which beast did the painter of the {place} chapel never draw?", (animal,), (other,),
    )  # fmt: skip


def _change(d: Draw) -> Fact:
    place, old, new = d.one(PLACES), d.person(), d.person()
    return Fact(
        "change",
        (f"In those days the {place} ferry belonged to {old}.",
         f"Later that year the {place} ferry was sold to {new}, who has kept it since."),
        f"To whom was the {place} ferry sold?", (new,), (old.lower(),),
    )  # fmt: skip


KINDS = (_number, _name, _place, _cause, _colour, _listed, _negation, _change)


@dataclass(frozen=True)
class Planted:
    """A document, its facts, and where the last statement of each lies: token ranges."""

    book: str
    text: str
    ids: list[int]  # they spell the text, piece by piece
    facts: list[Fact]
    places: list[tuple[int, int]]


def plant(
    tokenizer: Tokenizer, book: Path, length: int, number: int, n_facts: int, seed: int = 0
) -> Planted:
    """Document `number`: `length` tokens of a book, `n_facts` facts spread evenly over them.

    Raises ValueError for a book that is too short.
    """
    rng = Random(f"{seed} {book.stem} {length} {number}")
    draw = Draw(rng)
    facts = [KINDS[(number * n_facts + i) % len(KINDS)](draw) for i in range(n_facts)]
    # Statements in their order, each with the share of the document before it.
    hidden = sorted(
        ((i + 0.5 - 0.4 * (len(fact.statements) - 1 - j)) / n_facts, i, text)
        for i, fact in enumerate(facts)
        for j, text in enumerate(fact.statements)
    )
    room = length - sum(len(tokenizer.encode(f" {text}")) for _, _, text in hidden)
    pieces = list(_sentences(tokenizer, book, room, rng))
    used = [0]
    for _, n in pieces:
        used.append(used[-1] + n)
    at = 0
    text = ""
    ids: list[int] = []
    places = [(0, 0)] * n_facts
    run: list[str] = []

    def put(piece: str) -> None:
        nonlocal text
        ids.extend(tokenizer.encode(piece, inner=bool(ids)))
        text += piece

    def flush() -> None:
        nonlocal run
        if run:
            put((" " if ids else "") + " ".join(run))
        run = []

    for share, i, statement in hidden:
        while at < len(pieces) and used[at] < share * used[-1]:
            run.append(pieces[at][0])
            at += 1
        flush()
        start = len(ids)
        put(f" {statement}")
        places[i] = (start, len(ids))
    run.extend(sentence for sentence, _ in pieces[at:])
    flush()
    return Planted(book.stem, text, ids, facts, places)


def _sentences(
    tokenizer: Tokenizer, book: Path, room: int, rng: Random
) -> Iterator[tuple[str, int]]:
    """Sentences of a book in a row, from a drawn place on, with their tokens, `room` in all."""
    text = re.sub(r"\s+", " ", book.read_text(encoding="utf-8"))
    first = int(len(text) * FRONT)
    last = len(text) - 6 * room  # characters that so many tokens may take
    if last <= first:
        raise ValueError(f"{book.name} is too short for {room:,} tokens")
    start = rng.randrange(first, last)
    for sentence in SENTENCE_GAP.split(text[start : start + 8 * room])[1:]:
        n = len(tokenizer.encode(f" {sentence}", inner=True))
        if n > room:
            return
        room -= n
        yield sentence, n
