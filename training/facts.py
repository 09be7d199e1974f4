"""Facts to plant in a document and to ask about: every key and value is drawn fresh."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

PASSKEY_HEAD = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize "
    "them. I will quiz you about the important information there."
)
PASSKEY_FILLER = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
)
PASSKEY_NEEDLE = "The pass key is {key}. Remember it. {key} is the pass key."
PASSKEY_QUESTION = "What is the pass key?"
PASSKEY_PREFIX = "The pass key is"

MAGIC_NEEDLE = "One of the special magic numbers for {key} is: {value}."
MAGIC_QUESTION = "What is the special magic number for {key} mentioned in the provided text?"


@dataclass(frozen=True)
class Fact:
    """A sentence, a question it answers, the answer, and the start of an answer in full."""

    statement: str
    question: str
    answer: str
    prefix: str = ""


@dataclass(frozen=True)
class Draw:
    """Fresh keys and values out of a seeded generator and the words of real books."""

    rng: Random
    words: list[str]
    names: list[str]

    def digits(self, low: int = 3, high: int = 7) -> str:
        count = self.rng.randint(low, high)
        return str(self.rng.randint(10 ** (count - 1), 10**count - 1))

    def word(self) -> str:
        return self.rng.choice(self.words)

    def invented(self) -> str:
        """A name that no book holds, such as "Velmora"."""
        rng = self.rng
        body = "".join(rng.choice(_MIDDLES) + rng.choice(_JOINTS) for _ in range(rng.randint(1, 2)))
        return rng.choice(_STARTS) + body + rng.choice(_ENDS)

    def name(self) -> str:
        return self.invented() if self.rng.random() < 0.4 else self.rng.choice(self.names)

    def person(self) -> str:
        if self.rng.random() < 0.15:
            return f"{self.rng.choice(['Dr.', 'Mr.', 'Mrs.', 'Captain'])} {self.name()}"
        return f"{self.name()} {self.name()}"

    def year(self) -> str:
        return str(self.rng.randint(1500, 2030))

    def date(self) -> str:
        day, month = self.rng.randint(1, 28), self.rng.choice(_MONTHS)
        if self.rng.random() < 0.5:
            return f"{day} {month} {self.year()}"
        return f"{month} {day}, {self.year()}"

    def time(self) -> str:
        return f"{self.rng.randint(1, 12)}:{self.rng.randint(0, 59):02d}"

    def amount(self) -> str:
        number = f"{self.rng.randint(1, 999)},{self.rng.randint(0, 999):03d}"
        form = self.rng.choice(["${}", "{} dollars", "{} pounds", "{} euros", "{}", "${} million"])
        return form.format(number if self.rng.random() < 0.5 else self.rng.randint(2, 999))

    def code(self) -> str:
        letters = "".join(self.rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(2))
        return f"{letters}-{self.digits(2, 4)}"

    def thing(self) -> str:
        """What a fact is about, without article: "north gate", "Velmora depot", "old iron pump"."""
        shape = self.rng.random()
        if shape < 0.45:
            return f"{self.word()} {self.rng.choice(_PLACES)}"
        if shape < 0.65:
            return f"{self.rng.choice(_SIDES)} {self.rng.choice(_PLACES)}"
        if shape < 0.85:
            return f"{self.name()} {self.rng.choice(_PLACES)}"
        return f"{self.word()} {self.word()}"

    def attribute(self) -> str:
        """What is said of a thing: "access code", "locker number", "barrel number"."""
        if self.rng.random() < 0.65:
            return self.rng.choice(_ATTRIBUTES)
        return f"{self.word()} {self.rng.choice(['code', 'number', 'key', 'count', 'mark'])}"

    def value(self) -> str:
        kinds: list[Callable[[], str]] = [self.digits] * 6 + [self.code, self.word, self.amount]
        return self.rng.choice(kinds)()


# Parts of invented names.
_STARTS = [
    "B", "C", "D", "F", "G", "H", "K", "L", "M", "N", "P", "R", "S", "T", "V", "W", "Br", "Cl",
    "Dr", "Fr", "Gr", "Pl", "St", "Tr",
]  # fmt: skip
_MIDDLES = [
    "a", "e", "i", "o", "u", "ar", "el", "in", "or", "an",
]  # fmt: skip
_JOINTS = [
    "b", "d", "l", "m", "n", "r", "s", "t", "v", "nd", "rt", "lm",
]  # fmt: skip
_ENDS = [
    "a", "en", "ia", "in", "is", "o", "on", "or", "ton", "ville", "wick", "ford", "ley",
]  # fmt: skip
_MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
]  # fmt: skip
_SIDES = [
    "north", "south", "east", "west", "upper", "lower", "old", "new", "main", "back", "front",
    "inner", "outer", "left", "right",
]  # fmt: skip
_PLACES = [
    "gate", "store", "tower", "room", "office", "hall", "station", "bridge", "depot", "cellar",
    "harbour", "school", "mill", "house", "door", "vault", "wing", "garden", "library",
    "laboratory", "workshop", "warehouse", "building", "camp", "farm", "garage", "floor",
    "factory", "hotel", "museum", "archive", "kitchen", "chapel", "ship", "safe", "cabinet",
    "project", "team", "site",
]  # fmt: skip
_ATTRIBUTES = [
    "access code", "pass code", "serial number", "room number", "account number", "door code",
    "locker number", "phone number", "pin", "order number", "badge number", "batch number",
    "licence number", "reference number", "ticket number", "combination", "password", "key",
    "code", "number", "secret number", "security code", "identifier", "entry code", "call sign",
]  # fmt: skip
_ROLES = [
    "director", "manager", "owner", "captain", "keeper", "head", "chair", "secretary",
    "treasurer", "founder", "teacher", "doctor", "architect", "editor", "guide", "inspector",
    "mayor", "engineer",
]  # fmt: skip


def passkey(draw: Draw) -> Fact:
    key = draw.digits(5, 5) if draw.rng.random() < 0.6 else draw.digits()
    return Fact(PASSKEY_NEEDLE.format(key=key), PASSKEY_QUESTION, key, PASSKEY_PREFIX)


def magic_numbers(draw: Draw, count: int) -> list[Fact]:
    """RULER's needles: one form, told apart only by a key of two words."""
    digits = draw.rng.choice([4, 5, 6, 7, 7, 7])
    facts = []
    for _ in range(count):
        key = f"{draw.word()}-{draw.word()}" if draw.rng.random() < 0.7 else draw.word()
        value = draw.digits(digits, digits)
        statement = MAGIC_NEEDLE.format(key=key, value=value)
        prefix = f"The special magic number for {key} mentioned in the provided text is"
        facts.append(Fact(statement, MAGIC_QUESTION.format(key=key), value, prefix))
    return facts


# {a} attribute, {t} the thing with its article (or a person), {b} the bare thing, {v} value.
_ATTRIBUTE_FORMS = [
    "The {a} of {t} is {v}.",
    "The {a} of {t} is {v}.",
    "The {a} for {t} is {v}.",
    "{v} is the {a} of {t}.",
    "For {t}, the {a} is {v}.",
    "{T} has the {a} {v}.",
    "{T}'s {a} is {v}.",
    "The {a} of {t} was set to {v}.",
    "The {a} of {t} has been changed to {v}.",
    "The new {a} of {t} is {v}.",
    "Please note that the {a} of {t} is {v}.",
    "Remember that the {a} of {t} is {v}.",
    "According to the report, the {a} of {t} is {v}.",
    "At {t} they use the {a} {v}.",
    "To open {t}, use the {a} {v}.",
    "{A} of {t}: {v}.",
    "{B}, {a}: {v}.",
    "| {b} | {a} | {v} |",
    '"{b} {a}": "{v}",',
]
_ATTRIBUTE_QUESTIONS = [
    "What is the {a} of {t}?",
    "What is the {a} of {t}?",
    "What is the {a} of {t}?",
    "What is the {a} for {t}?",
    "What is {t}'s {a}?",
    "What's the {a} of {t}?",
    "Which {a} does {t} have?",
    "What {a} does {t} have?",
    "Give the {a} of {t}.",
    "What was the {a} of {t}?",
    "Tell me the {a} of {t}.",
    "I need the {a} of {t}.",
    "What is the {b} {a}?",
    "{A} of {t}?",
    "what is the {a} of {t}",
]


def attributes(draw: Draw, count: int) -> list[Fact]:
    """Attributes of things; half the time things share attributes and must be told apart."""
    rng = draw.rng
    names = [draw.attribute() for _ in range(1 if rng.random() < 0.6 else 3)]
    drawn = draw.person if rng.random() < 0.15 else draw.thing
    article = "" if drawn == draw.person else "the "
    things = [drawn() for _ in range(count if rng.random() < 0.6 else (count + 2) // 2)]
    pairs = [(a, t) for t in dict.fromkeys(things) for a in dict.fromkeys(names)]
    form = rng.choice(_ATTRIBUTE_FORMS) if rng.random() < 0.6 else None
    kind = rng.choice([draw.digits, draw.digits, draw.digits, draw.value])
    if rng.random() < 0.4:
        size = rng.randint(3, 7)
        kind = partial(draw.digits, size, size)
    facts = []
    for a, t in rng.sample(pairs, min(count, len(pairs))):
        full = f"{article}{t}"
        parts = {"a": a, "A": _sentence(a), "b": t, "B": _sentence(t), "t": full,
                 "T": _sentence(full), "v": kind()}  # fmt: skip
        facts.append(
            Fact(
                (form or rng.choice(_ATTRIBUTE_FORMS)).format(**parts),
                rng.choice(_ATTRIBUTE_QUESTIONS).format(**parts),
                parts["v"],
                f"The {a} of {full} is",
            )
        )
    return facts


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


# Statement forms and questions with the slot that answers each; {p} person, {c} place, {y} year,
# {d} date, {n} count, {w} plural-ish noun, {r} role, {t} thing, {m} amount, {h} hour, {q} quality.
_RELATIONS: list[tuple[list[str], list[tuple[str, str]]]] = [
    (["{p} was born in {c} in {y}.", "In {y}, {p} was born in {c}.",
      "Born in {c} in {y}, {p} was an only child."],
     [("Where was {p} born?", "c"), ("When was {p} born?", "y"),
      ("In what year was {p} born?", "y"), ("Who was born in {c}?", "p")]),
    (["{p} lives in {c}.", "The home of {p} is in {c}.", "{p} has a house in {c}."],
     [("Where does {p} live?", "c"), ("Who lives in {c}?", "p")]),
    (["The {r} of the {t} is {p}.", "{p} is the {r} of the {t}.",
      "{p} works as {r} of the {t}."],
     [("Who is the {r} of the {t}?", "p"), ("Who is {r} of the {t}?", "p")]),
    (["{p} bought {n} {w} in {c}.", "In {c}, {p} bought {n} {w}."],
     [("How many {w} did {p} buy?", "n"), ("Where did {p} buy {n} {w}?", "c"),
      ("Who bought {n} {w}?", "p")]),
    (["The {t} was built in {y} by {p}.", "{p} built the {t} in {y}.",
      "In {y} {p} built the {t}."],
     [("Who built the {t}?", "p"), ("When was the {t} built?", "y"),
      ("In what year was the {t} built?", "y")]),
    (["The {t} is in {c}.", "The {t} is located in {c}.", "In {c} stands the {t}."],
     [("Where is the {t}?", "c"), ("In which town is the {t}?", "c")]),
    (["The {t} cost {m}.", "They paid {m} for the {t}.", "The price of the {t} was {m}."],
     [("How much did the {t} cost?", "m"), ("What was the price of the {t}?", "m")]),
    (["The budget of the {t} is {m}.", "The {t} has a budget of {m}."],
     [("What is the budget of the {t}?", "m"), ("How large is the budget of the {t}?", "m")]),
    (["The {t} opened on {d}.", "On {d} the {t} opened."],
     [("When did the {t} open?", "d"), ("On what date did the {t} open?", "d")]),
    (["{p} met {P} in {c} on {d}.", "On {d}, {p} met {P} in {c}."],
     [("Where did {p} meet {P}?", "c"), ("Whom did {p} meet in {c}?", "P"),
      ("When did {p} meet {P}?", "d")]),
    (["{p} joined the {t} in {y} and left in {Y}."],
     [("When did {p} join the {t}?", "y"), ("When did {p} leave the {t}?", "Y")]),
    (["There are {n} {w} in the {t}.", "The {t} holds {n} {w}.",
      "In the {t} they counted {n} {w}."],
     [("How many {w} are in the {t}?", "n"), ("How many {w} are there in the {t}?", "n")]),
    (["The train to {c} leaves at {h}.", "At {h} the train leaves for {c}."],
     [("When does the train to {c} leave?", "h"), ("Where does the train at {h} go?", "c")]),
    (["{p} wrote a letter to {P} about the {w}."],
     [("Who wrote to {P}?", "p"), ("To whom did {p} write?", "P"),
      ("What did {p} write about?", "w")]),
    (["The colour of the {t} is {q}.", "The {t} is painted {q}."],
     [("What is the colour of the {t}?", "q"), ("What colour is the {t}?", "q")]),
    (["{p} is afraid of {w}.", "{p} likes {w}.", "{p} sells {w}."],
     [("Who is it that cares about {w}?", "p"), ("What is said of {p}?", "w")]),
]  # fmt: skip


def relations(draw: Draw, count: int) -> list[Fact]:
    """Who, where, when, how many: one relation, or several mixed, over fresh people and things."""
    rng = draw.rng
    chosen = rng.sample(_RELATIONS, 1 if rng.random() < 0.5 else 3)
    facts = []
    for _ in range(count):
        statements, questions = rng.choice(chosen)
        low, high = (1, 3) if rng.random() < 0.5 else (2, 4)
        slots = {
            "p": draw.person(), "P": draw.person(), "c": draw.name(), "y": draw.year(),
            "Y": draw.year(), "d": draw.date(), "n": draw.digits(low, high), "w": draw.word(),
            "r": rng.choice(_ROLES), "t": draw.thing(), "m": draw.amount(), "h": draw.time(),
            "q": draw.word(),
        }  # fmt: skip
        question, answer = rng.choice(questions)
        facts.append(
            Fact(rng.choice(statements).format(**slots), question.format(**slots), slots[answer])
        )
    return facts
