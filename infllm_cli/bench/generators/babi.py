"""Small worlds in the manner of bAbI: who went where, who has what; told amid other text.

Weston et al., arXiv 1502.05698, tasks 1 to 5; hidden in background text as BABILong does
(Kuratov et al., arXiv 2406.10149). The worlds are simulated here, so there is no end of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar, Literal

from infllm.cli.bench.generators.base import Fill, Generator, Made, Order, Question
from infllm.cli.bench.generators.filler import noise, sentences

PEOPLE = ("Mary", "John", "Daniel", "Sandra")
GIVERS = ("Mary", "Fred", "Jeff", "Bill")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
THINGS = ("apple", "football", "milk")
DIRECTIONS = {"north": "south", "south": "north", "east": "west", "west": "east"}
MOVES = ("moved to", "went to", "journeyed to", "travelled to", "went back to")
TAKES = ("took", "got", "grabbed", "picked up")
DROPS = ("dropped", "discarded", "put down", "left")
GIVES = ("gave", "passed", "handed")


@dataclass(frozen=True)
class Story:
    """Facts in the order in which they are told, a question and its answer.

    last: index of the last fact that the answer rests on.
    """

    facts: list[str]
    question: str
    answer: str
    last: int


@dataclass
class _World:
    rng: Random
    people: tuple[str, ...] = PEOPLE
    facts: list[str] = field(default_factory=list)
    place: dict[str, str] = field(default_factory=dict)  # of people
    holder: dict[str, str] = field(default_factory=dict)  # of things
    trail: dict[str, list[tuple[str, int]]] = field(default_factory=dict)  # of things

    def move(self, who: str) -> None:
        where = self.rng.choice([place for place in PLACES if place != self.place.get(who)])
        self.place[who] = where
        self.tell(f"{who} {self.rng.choice(MOVES)} the {where}.")
        for thing, holder in self.holder.items():
            if holder == who:
                self.trail.setdefault(thing, []).append((where, len(self.facts) - 1))

    def take(self, who: str, thing: str) -> None:
        self.holder[thing] = who
        self.tell(f"{who} {self.rng.choice(TAKES)} the {thing}{self.rng.choice(['', ' there'])}.")
        trail = self.trail.setdefault(thing, [])
        if not trail:
            trail.append((self.place[who], len(self.facts) - 1))

    def drop(self, who: str, thing: str) -> None:
        del self.holder[thing]
        self.tell(f"{who} {self.rng.choice(DROPS)} the {thing}{self.rng.choice(['', ' there'])}.")

    def tell(self, fact: str) -> None:
        self.facts.append(fact)

    def step(self) -> None:
        """Somebody goes somewhere, takes what lies where he is, or drops what he has."""
        rng = self.rng
        who = rng.choice(self.people)
        if who not in self.place or rng.random() < 0.5:
            self.move(who)
            return
        held = [thing for thing, holder in self.holder.items() if holder == who]
        lying = [
            thing for thing in THINGS
            if thing not in self.holder
            and (thing not in self.trail or self.trail[thing][-1][0] == self.place[who])
        ]  # fmt: skip
        if held and rng.random() < 0.4:
            self.drop(who, rng.choice(held))
        elif lying:
            self.take(who, rng.choice(lying))
        else:
            self.move(who)


def where_is_person(rng: Random) -> Story:
    """Task 1: one supporting fact."""
    world = _World(rng)
    for _ in range(rng.randint(2, 10)):
        world.move(rng.choice(world.people))
    who = rng.choice(sorted(world.place))
    last = max(i for i, fact in enumerate(world.facts) if fact.startswith(who))
    return Story(world.facts, f"Where is {who}?", world.place[who], last)


def where_is_thing(rng: Random) -> Story:
    """Task 2: two supporting facts, who has it and where that one went."""
    world = _World(rng)
    for _ in range(rng.randint(6, 20)):
        world.step()
    while not world.trail:
        world.step()
    thing = rng.choice(sorted(world.trail))
    where, last = world.trail[thing][-1]
    return Story(world.facts, f"Where is the {thing}?", where, last)


def where_was_thing(rng: Random) -> Story:
    """Task 3: three supporting facts; a thing's place before its last one of some name."""
    world = _World(rng)
    for _ in range(rng.randint(10, 40)):
        world.step()

    def travelled() -> list[str]:
        return [thing for thing, trail in world.trail.items() if len(trail) > 1]

    while not travelled():
        world.step()
    thing = rng.choice(sorted(travelled()))
    (before, _), (after, last) = world.trail[thing][-2:]
    question = f"Where was the {thing} before the {after}?"
    return Story(world.facts, question, before, last)


def what_lies_where(rng: Random) -> Story:
    """Task 4: two places to one, each in its direction; relations have two arguments."""
    middle, first, second = rng.sample(PLACES, 3)
    one, other = rng.sample(sorted(DIRECTIONS), 2)
    relations = [(first, one, middle), (second, other, middle)]
    asked, direction, _ = rng.choice(relations)
    facts = []
    for a, way, b in relations:
        if rng.random() < 0.5:
            a, way, b = b, DIRECTIONS[way], a
        facts.append(f"The {a} is {way} of the {b}.")
    rng.shuffle(facts)
    last = next(i for i, fact in enumerate(facts) if f" {asked} " in fact.replace(".", " "))
    if rng.random() < 0.5:
        return Story(facts, f"What is {direction} of the {middle}?", asked, last)
    return Story(facts, f"What is the {middle} {DIRECTIONS[direction]} of?", asked, last)


def who_gave_what(rng: Random) -> Story:
    """Task 5: relations of three arguments. The gift asked for is the last one that fits."""
    world = _World(rng, GIVERS)
    gifts: list[tuple[str, str, str, int]] = []
    steps = rng.randint(3, 12)
    while len(world.facts) < steps or not gifts:
        who = rng.choice(world.people)
        held = [thing for thing, holder in world.holder.items() if holder == who]
        free = [thing for thing in THINGS if thing not in world.holder]
        if held and rng.random() < 0.7:
            thing = rng.choice(held)
            other = rng.choice([name for name in world.people if name != who])
            world.tell(f"{who} {rng.choice(GIVES)} the {thing} to {other}.")
            world.holder[thing] = other
            gifts.append((who, thing, other, len(world.facts) - 1))
        elif free and rng.random() < 0.5:
            thing = rng.choice(free)
            world.holder[thing] = who
            world.tell(f"{who} {rng.choice(TAKES)} the {thing} there.")
        else:
            world.move(who)
    giver, thing, taker, last = gifts[-1]
    question, answer = rng.choice([
        (f"Who gave the {thing} to {taker}?", giver),
        (f"Who did {giver} give the {thing} to?", taker),
        (f"What did {giver} give to {taker}?", thing),
        (f"Who received the {thing}?", taker),
        (f"Who gave the {thing}?", giver),
    ])  # fmt: skip
    return Story(world.facts, question, answer, last)


STORIES: dict[int, Callable[[Random], Story]] = {
    1: where_is_person,
    2: where_is_thing,
    3: where_was_thing,
    4: what_lies_where,
    5: who_gave_what,
}


class Babi(Generator):
    """The facts of a small world, in their order, among the sentences of a text."""

    TAIL: ClassVar = frozenset({"question"})

    task: Literal[1, 2, 3, 4, 5]
    haystack: Literal["noise", "text"] = "text"

    def uses_haystack(self) -> bool:
        return self.haystack == "text"

    def plan(self, rng: Random, order: Order) -> Fill:
        story = STORIES[self.task](rng)
        depths = sorted(rng.random() for _ in story.facts)
        hidden = list(zip(depths, story.facts, strict=True))
        asked = {"question": story.question}
        question = Question(asked, (story.answer,), asked)
        planted = {fact: story.facts.count(fact) for fact in story.facts}
        background = noise(" ") if self.haystack == "noise" else None
        depth = round(100 * depths[story.last], 1)

        def fill(characters: int) -> Made:
            filler = background or sentences(order.source.haystack_text)
            context = filler.hide(hidden, characters)
            return Made(context, (question,), {}, depth, planted)

        return fill
