"""Documents to be examined on, longer than the model was trained on, and the marks it gets.

A document holds facts of several skills at once; it is read once, and every question starts from
a fork of that one session.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from infllm.cli.documents import Collection, Span
from infllm.cli.documents import Document as CitedDocument
from infllm.cli.memory import Memory
from infllm.cli.options import Sampling
from infllm.cli.passages import Passages
from infllm.cli.reading import Reading
from infllm.cli.tasks.questions import ask_memory
from infllm.engine import Engine, Session
from training.corpus import definitions_in, unwrapped
from training.data import Sampler
from training.facts import (
    NOT_SAID,
    Fact,
    attributes,
    latest,
    magic_numbers,
    multi_query,
    multi_value,
    number_string,
    passkey,
    relations,
    two_hop,
    unsaid,
)

QUESTIONS = 5  # of each skill and document, where the skill allows more than one
DISTRACTORS = 3  # facts of the same form that nobody asks for
BOOTSTRAP = 2000


@dataclass(frozen=True)
class Question:
    """A question of one skill; `prefix` is given as the start of the answer."""

    skill: str
    fact: Fact
    prefix: str = ""


@dataclass(frozen=True)
class Document:
    """Token ids, and what to ask about them."""

    ids: list[int]
    questions: list[Question]


@dataclass(frozen=True)
class Mark:
    """Share of the question's values that were given, 0..1, and what was said."""

    question: Question
    document: int
    score: float
    said: str

    @property
    def denied(self) -> bool:
        return self.said.startswith(NOT_SAID.rstrip("."))


def facts_document(sampler: Sampler, rng: Random, length: int) -> Document:
    """One pass key, one number string among like ones, one magic number, and prose facts."""
    draw = sampler.draw(rng)
    count = QUESTIONS + DISTRACTORS
    number, *confusers = number_string(draw, 1 + DISTRACTORS)
    (needle,) = magic_numbers(draw, 1)
    prose = [*attributes(draw, count), *relations(draw, count)]
    absent = [*attributes(draw, QUESTIONS), *relations(draw, QUESTIONS)]
    absent = [unsaid(fact) for fact in _distinct(absent, prose)]
    by_skill = {
        "passkey": [passkey(draw)],
        "number string": [number],
        "facts in prose": [*prose[:QUESTIONS], *prose[count : count + QUESTIONS]],
        "latest": latest(draw, QUESTIONS),
        "two-hop": two_hop(draw, QUESTIONS),
        "not said": rng.sample(absent, min(QUESTIONS, len(absent))),
    }
    questions = [Question(skill, fact) for skill, facts in by_skill.items() for fact in facts]
    questions.append(Question("needle, single", needle, needle.prefix))
    told = [*prose, *confusers, needle]
    told += [q.fact for q in questions if q.fact not in told]
    return Document(_planted(sampler, rng, length, told), questions)


def needles_document(sampler: Sampler, rng: Random, length: int) -> Document:
    """RULER's needles of all kinds in one haystack."""
    draw = sampler.draw(rng)
    by_skill = {
        "needle, multi-key": magic_numbers(draw, QUESTIONS + DISTRACTORS),
        "needle, multi-value": multi_value(draw, QUESTIONS),
        "needle, multi-query": multi_query(draw, QUESTIONS),
    }
    questions = [
        Question(skill, fact, fact.prefix)
        for skill, facts in by_skill.items()
        for fact in facts[:QUESTIONS]
    ]
    told = [fact for facts in by_skill.values() for fact in facts]
    return Document(_planted(sampler, rng, length, told), questions)


def json_document(sampler: Sampler, rng: Random, length: int) -> Document:
    """One JSON object of UUID-like keys and values; the questions' keys lie at any depth."""
    ids = [sampler.begin, *sampler.encode("{")]
    pairs: list[Fact] = []
    draw = sampler.draw(rng)
    while len(ids) < length - 64:
        key, value = draw.hexadecimal(8, 4), draw.hexadecimal(8, 4)
        entry = f'"{key}": "{value}"'
        question = f'What is the value of the key "{key}"?'
        pairs.append(Fact((entry,), question, f'"{value}"', values=(value,)))
        ids += sampler.encode(f"{', ' if len(pairs) > 1 else ''}{entry}")
    ids += sampler.encode("}")
    asked = rng.sample(pairs, min(QUESTIONS, len(pairs)))
    return Document(ids, [Question("JSON key-value", fact) for fact in asked])


def definition_documents(sampler: Sampler, book: str, length: int) -> Iterator[Document]:
    """Stretches of `length` tokens around the definitions of a real text, as they stand in it."""
    text = unwrapped(book)
    ids = sampler.encode(text)
    found = definitions_in(book)
    spots = [len(sampler.encode(text[: text.index(sentence)])) for _, sentence in found]
    for start in range(0, max(1, len(ids) - length // 2), length):
        inside = [
            Question("what is X", Fact((sentence,), f"What is {_named(subject)}?", sentence))
            for (subject, sentence), spot in zip(found, spots, strict=True)
            if start <= spot < start + length - 64
        ]
        if inside:
            yield Document([sampler.begin, *ids[start : start + length - 1]], inside)


def _named(subject: str) -> str:
    if subject[0].isupper():
        return subject
    return f"{'an' if subject[0] in 'aeiou' else 'a'} {subject}"


def _distinct(facts: Sequence[Fact], others: Sequence[Fact]) -> list[Fact]:
    """`facts` whose question no other fact answers."""
    taken = {fact.question for fact in others}
    return [fact for fact in facts if fact.question not in taken]


def _planted(sampler: Sampler, rng: Random, length: int, facts: Sequence[Fact]) -> list[int]:
    told = [[sampler.encode(f" {s}") for s in fact.statements] for fact in facts]
    room = length - 1 - sum(len(statement) for statements in told for statement in statements)
    if room < 0:
        raise ValueError(f"{length} tokens are too few for the facts of a document")
    return [sampler.begin, *sampler.hidden(rng, told, room)]


KINDS = {"facts": facts_document, "needles": needles_document, "json": json_document}


def examine(
    engine: Engine,
    sampler: Sampler,
    document: Document,
    number: int,
    overrides: dict,
    read_back: bool = False,
) -> list[Mark]:
    """Read the document once and answer each question from there, greedily; with `read_back` as
    `infllm ask --read-back` does."""
    tokenizer = engine.tokenizer
    assert tokenizer is not None
    session = engine.session(overrides=overrides)
    session.read(document.ids)
    session.end()
    marks = []
    if read_back:
        memory = _memory(engine, session, document)
        for question in document.questions:
            most = len(sampler.encode(question.fact.answer)) + 8
            reply = ask_memory(
                engine, memory, question.fact.question,
                Sampling(max_new_tokens=most, stop=("\nQuestion:",)),
                read_back=True, answer_start=question.prefix,
            )  # fmt: skip
            said = reply.answer.text
            marks.append(Mark(question, number, score(question, said), said))
        return marks
    for question in document.questions:
        child = session.fork()
        tail = f"\n\nQuestion: {question.fact.question}\nAnswer:"
        child.read(sampler.encode(f"{tail} {question.prefix}" if question.prefix else tail))
        most = len(sampler.encode(question.fact.answer)) + 8
        said = tokenizer.decode([token.id for token in child.generate(max_new_tokens=most)]).strip()
        marks.append(Mark(question, number, score(question, said), said))
    return marks


def _memory(engine: Engine, session: Session, document: Document) -> Memory:
    """A session that has read a document, with the text it was."""
    tokenizer = engine.tokenizer
    assert tokenizer is not None
    ids = document.ids[1:]
    text = tokenizer.decode(ids)
    source = CitedDocument("document", "text", text, [Span(0, len(text), "document", line=1)])
    passages = Passages(Collection([source]), tokenizer.offsets(text, ids), 1)
    return Memory(session, passages, Reading(len(document.ids), len(document.ids), 0, 0.0))


def score(question: Question, said: str) -> float:
    """A single value must be the whole answer; of several, the share found counts (as in RULER);
    a defining sentence is found if half of its words are given, by F1."""
    fact = question.fact
    if question.skill == "what is X":
        return float(_word_f1(said, fact.answer) >= 0.5)
    if len(fact.values) > 1:
        return sum(value in said for value in fact.values) / len(fact.values)
    return float(said.rstrip(".") == fact.answer.rstrip("."))


def _word_f1(said: str, wanted: str) -> float:
    a, b = (re.findall(r"\w+", text.lower()) for text in (said, wanted))
    common = sum(min(a.count(word), b.count(word)) for word in set(a))
    return 2 * common / (len(a) + len(b)) if common else 0.0


def summary(marks: Sequence[Mark], rng: Random) -> dict[str, dict]:
    """Skill -> mean score, 95% interval by bootstrap over documents, and counts; and the share of
    answerable questions to which the model said that the document does not say."""
    by_skill: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for mark in marks:
        by_skill[mark.question.skill][mark.document].append(mark.score)
        if mark.question.fact.statements and mark.question.skill in _ANSWERABLE:
            by_skill["false alarms"][mark.document].append(float(mark.denied))
    return {
        skill: {
            "score": round(float(np.mean([s for scores in documents.values() for s in scores])), 4),
            "interval": _interval(list(documents.values()), rng),
            "questions": sum(map(len, documents.values())),
            "documents": len(documents),
        }
        for skill, documents in by_skill.items()
    }


_ANSWERABLE = ("facts in prose", "latest", "two-hop")


def _interval(documents: list[list[float]], rng: Random) -> list[float]:
    means = []
    for _ in range(BOOTSTRAP):
        drawn = rng.choices(documents, k=len(documents))
        scores = [s for scores in drawn for s in scores]
        means.append(sum(scores) / len(scores))
    low, high = np.quantile(means, [0.025, 0.975])
    return [round(float(low), 4), round(float(high), 4)]
