"""Facts to plant in a document and to ask about: every key and value is drawn fresh."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from training.draw import Draw

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

SUMMARY_QUESTION = "What is a summary of the text above?"

NUMBER_NEEDLE = "The {name} is {digits}. Remember it. {digits} is the {name}."

MAGIC_NEEDLE = "One of the special magic numbers for {key} is: {value}."
MAGIC_QUESTION = "What is the special magic number for {key} mentioned in the provided text?"
MAGIC_PREFIX = "The special magic number for {key} mentioned in the provided text is"
MAGICS_QUESTION = "What are all the special magic numbers for {key} mentioned in the provided text?"
MAGICS_PREFIX = "The special magic numbers for {key} mentioned in the provided text are"


NOT_SAID = "The document does not say."


@dataclass(frozen=True)
class Fact:
    """What a document states, a question about it and the answer.

    statements: sentences in the order in which the document tells them; none if it does not say.
    prefix: the start of an answer in full. values: what a right answer holds, where an answer is
    a list; empty: the answer itself.
    """

    statements: tuple[str, ...]
    question: str
    answer: str
    prefix: str = ""
    values: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        return self.values or (self.answer,)


def unsaid(fact: Fact) -> Fact:
    """The same question about a document that lacks the statement."""
    return Fact((), fact.question, NOT_SAID)


def quoted(fact: Fact) -> Fact:
    """Asks for the sentence instead of the answer in it."""
    return Fact(
        fact.statements, f"Quote the sentence that answers this: {fact.question}",
        fact.statements[-1],
    )  # fmt: skip


def passkey(draw: Draw) -> Fact:
    key = draw.digits(5, 5) if draw.rng.random() < 0.6 else draw.digits()
    return Fact((PASSKEY_NEEDLE.format(key=key),), PASSKEY_QUESTION, key, PASSKEY_PREFIX)


def number_string(draw: Draw, count: int) -> list[Fact]:
    """Ten digits of few kinds, in runs, told apart from others like it by what they are called."""
    names = ["sequence of digits", *(f"{draw.word()} sequence" for _ in range(count - 1))]
    facts = []
    for name in names:
        digits = "".join(draw.run_of_digits() for _ in range(10))[:10]
        statement = NUMBER_NEEDLE.format(name=name, digits=digits)
        facts.append(Fact((statement,), f"What is the {name}?", digits, f"The {name} is"))
    return facts


def magic_numbers(draw: Draw, count: int) -> list[Fact]:
    """RULER's needles: one form, told apart only by a key of two words."""
    needles = _needles(draw, count)
    return [
        Fact(
            (statement,), MAGIC_QUESTION.format(key=key), value, MAGIC_PREFIX.format(key=key)
        )
        for key, value, statement in needles
    ]  # fmt: skip


def multi_value(draw: Draw, count: int) -> list[Fact]:
    """RULER's needles with several values under one key; every fact asks for all of its key's."""
    facts = []
    for _ in range(count):
        wanted = draw.rng.randint(2, 4)
        key = draw.magic_key()
        needles = _needles(draw, wanted, key)
        facts.append(_magic_list(key, needles))
    return facts


def multi_query(draw: Draw, count: int) -> list[Fact]:
    """RULER's needles asked for by two to four keys at once."""
    facts = []
    for _ in range(count):
        needles = _needles(draw, draw.rng.randint(2, 4))
        facts.append(_magic_list(_listed([key for key, _, _ in needles]), needles))
    return facts


def _needles(draw: Draw, count: int, key: str | None = None) -> list[tuple[str, str, str]]:
    """Key, value and statement of `count` needles, under one key or one each."""
    digits = draw.rng.choice([4, 5, 6, 7, 7, 7])
    needles = []
    for _ in range(count):
        name, value = key or draw.magic_key(), draw.digits(digits, digits)
        needles.append((name, value, MAGIC_NEEDLE.format(key=name, value=value)))
    return needles


def _magic_list(key: str, needles: list[tuple[str, str, str]]) -> Fact:
    values = tuple(value for _, value, _ in needles)
    return Fact(
        tuple(statement for _, _, statement in needles),
        MAGICS_QUESTION.format(key=key),
        _listed(values),
        MAGICS_PREFIX.format(key=key),
        values,
    )


def _listed(items: Sequence[str]) -> str:
    """ "a", "a and b", "a, b, and c"."""
    if len(items) <= 2:
        return " and ".join(items)
    return f"{', '.join(items[:-1])}, and {items[-1]}"


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
                ((form or rng.choice(_ATTRIBUTE_FORMS)).format(**parts),),
                rng.choice(_ATTRIBUTE_QUESTIONS).format(**parts),
                parts["v"],
                f"The {a} of {full} is",
            )
        )
    return facts


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


_ROLES = [
    "director", "manager", "owner", "captain", "keeper", "head", "chair", "secretary",
    "treasurer", "founder", "teacher", "doctor", "architect", "editor", "guide", "inspector",
    "mayor", "engineer",
]  # fmt: skip

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
            Fact(
                (rng.choice(statements).format(**slots),),
                question.format(**slots),
                slots[answer],
            )
        )
    return facts


# What was so at first, what may have come between, and what holds in the end.
_FIRST = ["The {a} of the {t} is {v}.", "At first the {a} of the {t} was {v}.",
          "The {a} of the {t} was set to {v}.", "The {a} of the {t} used to be {v}."]  # fmt: skip
_BETWEEN = ["For a while the {a} of the {t} was {v}.", "Then the {a} of the {t} was {v}."]
_LAST = ["The {a} of the {t} has been changed to {v}.", "The {a} of the {t} is now {v}.",
         "The new {a} of the {t} is {v}.", "Since then the {a} of the {t} is {v}.",
         "In the end the {a} of the {t} was changed to {v}."]  # fmt: skip
_LATEST_QUESTIONS = ["What is the {a} of the {t} now?", "What is the current {a} of the {t}?",
                     "What is the latest {a} of the {t}?", "What is the {a} of the {t}?",
                     "What is the new {a} of the {t}?"]  # fmt: skip


def latest(draw: Draw, count: int) -> list[Fact]:
    """Facts that change as the document goes on: the last statement counts."""
    rng = draw.rng
    attribute = draw.attribute()
    facts = []
    for thing in dict.fromkeys(draw.thing() for _ in range(count)):
        forms = [rng.choice(_FIRST), rng.choice(_LAST)]
        if rng.random() < 0.3:
            forms.insert(1, rng.choice(_BETWEEN))
        values = [draw.digits(2, 6) for _ in forms]
        statements = tuple(
            form.format(a=attribute, t=thing, v=value)
            for form, value in zip(forms, values, strict=True)
        )
        question = rng.choice(_LATEST_QUESTIONS).format(a=attribute, t=thing)
        facts.append(Fact(statements, question, values[-1]))
    return facts


# Two statements joined by a person or a thing that the question does not name, and the question.
_HOPS = [
    ("The {r} of the {t} is {p}.", "{p} lives in {c}.", "Where does the {r} of the {t} live?", "c"),
    ("The {r} of the {t} is {p}.", "{p} was born in {c}.",
     "Where was the {r} of the {t} born?", "c"),
    ("The {r} of the {t} is {p}.", "The badge number of {p} is {n}.",
     "What is the badge number of the {r} of the {t}?", "n"),
    ("The {t} is owned by {p}.", "The phone number of {p} is {n}.",
     "What is the phone number of the owner of the {t}?", "n"),
    ("The {t} is kept in the {T}.", "The door code of the {T} is {n}.",
     "What is the door code of the place where the {t} is kept?", "n"),
    ("The {t} was built by {p}.", "{p} came from {c}.",
     "Where did the builder of the {t} come from?", "c"),
]  # fmt: skip


def two_hop(draw: Draw, count: int) -> list[Fact]:
    """Answers that take two statements, the second found by what the first says."""
    rng = draw.rng
    hop = rng.choice(_HOPS) if rng.random() < 0.5 else None
    facts = []
    for _ in range(count):
        first, second, question, slot = hop or rng.choice(_HOPS)
        slots = {
            "r": rng.choice(_ROLES), "t": draw.thing(), "T": draw.thing(), "p": draw.person(),
            "c": draw.name(), "n": draw.digits(3, 6),
        }  # fmt: skip
        statements = (first.format(**slots), second.format(**slots))
        if rng.random() < 0.5:
            statements = statements[::-1]
        facts.append(Fact(statements, question.format(**slots), slots[slot]))
    return facts


def report(draw: Draw) -> Fact:
    """A few statements among much else, and all of them as the summary."""
    facts = relations(draw, draw.rng.randint(1, 3))
    statements = tuple(fact.statements[0] for fact in facts)
    return Fact(statements, SUMMARY_QUESTION, " ".join(statements), values=statements)


# Shapes of keys and values, most of them UUID-like.
_JSON_SHAPES: list[Callable[[Draw], str]] = [
    *[lambda draw: draw.hexadecimal(8, 4)] * 5,
    lambda draw: draw.hexadecimal(8),
    lambda draw: draw.hexadecimal(12),
    lambda draw: draw.hexadecimal(8, 4, 4, 4, 12),
    lambda draw: draw.digits(5, 9),
    lambda draw: f"{draw.word()}_{draw.word()}",
]
_JSON_QUESTIONS = [
    'What is the value of the key "{key}"?',
    'What is the value for the key "{key}" in the JSON object?',
    'Which value does "{key}" have?',
]


def json_pairs(draw: Draw, count: int) -> list[Fact]:
    """Entries of one JSON object, keys and values of one shape; the statement is the entry."""
    rng = draw.rng
    key_of = rng.choice(_JSON_SHAPES)
    value_of = key_of if rng.random() < 0.7 else rng.choice(_JSON_SHAPES)
    keys = dict.fromkeys(key_of(draw) for _ in range(count))
    facts = []
    for key in keys:
        value = value_of(draw)
        question = rng.choice(_JSON_QUESTIONS).format(key=key)
        facts.append(Fact((f'"{key}": "{value}"',), question, f'"{value}"', f'"{key}":', (value,)))
    return facts


def definitions(draw: Draw, count: int) -> list[Fact]:
    """Sentences of books that say what something is; most of them made to be about another word,
    so that no answer can be known by heart."""
    facts: dict[str, Fact] = {}
    for subject, sentence in draw.rng.choices(draw.defined, k=count) if draw.defined else []:
        if draw.rng.random() < 0.75:
            other = draw.name() if subject[0].isupper() else draw.word()
            if subject[0].isupper():
                sentence = other + sentence[len(subject) :]
            else:
                sentence = re.sub(rf"(?i)\b{subject}\b", other, sentence, count=1)
            subject = other
        what = f"{_article(subject, draw.rng)}{subject}"
        facts[subject] = Fact((sentence,), f"What is {what}?", sentence)
    return list(facts.values())


def _article(subject: str, rng: Random) -> str:
    if subject[0].isupper() or rng.random() < 0.4:
        return ""
    return rng.choice(["the ", "an " if subject[0] in "aeiou" else "a "])
