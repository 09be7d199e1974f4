"""Which of several choices an answer names: letters, classes, labels."""

import re
from collections.abc import Iterable, Sequence

_SAYS = re.compile(
    r"\b(?i:is|was|be|answers?|choice|choose|select)\s*:?\s*(?i:option\s+|choice\s+)?"
    r"\(?([A-H])(?![\w'])"
)
_LEADS = re.compile(r"\(?([A-H])(?:[).:,]|\s*$|\s*\n)")
_LISTED = re.compile(r"^(?:Option )?([A-H])[.):]", re.MULTILINE)
_ALONE = re.compile(r"(?<![\w'])([A-H])(?![\w'])")
_ARTICLE = re.compile(r"(?<![\w'])A(?=\s+(?!(?:or|and|is|because|since|as)\b)[a-z])")
_NEXT_QUESTION = re.compile(r"\n\s*Question:")
_MARKS = str.maketrans("", "", "*`\"'#_{}[]")


def choice_letter(answer: str) -> str | None:
    """The letter that an answer settles for, None where it names none or several.

    In this order: the letter it begins with ("B", "(B)", "B. because"), unless it goes through
    the choices line by line; the last one that it calls its answer ("The correct answer is B");
    the only one that stands alone in its last line. An "A" before a word is an article, and a
    question that the model goes on to ask is no answer.
    """
    text = _NEXT_QUESTION.split(answer)[0].translate(_MARKS).strip(" \t\n:.-")
    text = _ARTICLE.sub("", text)
    lists_choices = len(set(_LISTED.findall(text))) > 1
    if not lists_choices and (leads := _LEADS.match(text)):
        return leads[1]
    if said := _SAYS.findall(text):
        return said[-1]
    alone = set(_ALONE.findall(text.rpartition("\n")[2]))
    return alone.pop() if len(alone) == 1 else None


def right_choice(answer: str, references: Sequence[str]) -> float:
    """Whether an answer names the right choice by its letter, or else by its text.

    references: the letter alone, or the choice's text and its letter.
    """
    *text, letter = references
    named = choice_letter(answer)
    if named is not None:
        return float(named == letter)
    return float(bool(text) and _plain(answer) == _plain(text[0]) != "")


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def official_longbench2_choice(answer: str, references: Sequence[str]) -> float:
    """LongBench v2: only the sentence that the prompt asks for counts."""
    text = answer.replace("*", "")
    found = re.search(r"The correct answer is \(([A-D])\)", text) or re.search(
        r"The correct answer is ([A-D])", text
    )
    return float(found is not None and found[1] == references[-1])


def official_book_choice(answer: str, references: Sequence[str]) -> float:
    """InfiniteBench En.MC: an answer's first letter counts, be it the first of a word."""
    text = answer.strip()
    if not text:
        return 0.0
    if text[0] in "ABCD":
        return float(text[0] in references)
    if text in references:
        return 1.0
    text = re.sub(" +", " ", re.sub(r"[\n\"'.,?!{}]", " ", text))
    for says in ("answer is:", "answer:", "answer is", "option is"):
        _, found, rest = text.partition(says)
        if found:
            return float(rest[1:].startswith(tuple(references)))
    word = next((word for word in text.split() if word in "ABCD"), None)
    return float(word in references)


def official_code_choice(answer: str, references: Sequence[str]) -> float:
    """InfiniteBench Code.Debug: a letter counts before a dot or colon, or after certain words."""
    name, letter = references
    text = answer.strip()
    if text[:2] in (f"{letter}.", f"{letter}:"):
        return 1.0
    text = re.sub(r"[\n`'\"\-*]", " ", text).replace("Option", " ").replace("option", " ")
    text = re.sub(" +", " ", text)
    for says in ("answer is:", "is:", "answer:", "correct option is:"):
        _, found, rest = text.partition(says)
        if found:
            return float(rest[1:].startswith((letter, name)))
    return 0.0


def class_named(answer: str, reference: str, classes: Iterable[str]) -> float:
    """1 for the right class alone, 1/n where n classes are named; one within another is none."""
    longest_first = sorted(classes, key=len, reverse=True)
    named = set(re.findall("|".join(map(re.escape, longest_first)), answer))
    return 1 / len(named) if reference in named else 0.0


def official_class_named(answer: str, reference: str, classes: Iterable[str]) -> float:
    """LongBench: takes names out of the list that it walks through, and so may step over one."""
    named = [name for name in classes if name in answer]
    for name in named:
        if name in reference and name != reference:
            named.remove(name)
    return 1 / len(named) if reference in named else 0.0


def only_label(answer: str, reference: str, question: str, labels: Iterable[str]) -> float:
    """BABILong: the right label and no other in the first sentence, not counting the question's.

    What follows a question that the model goes on to ask itself is no part of the answer.
    """
    said = re.split(r"[.\n]|<context>|<example>|question:", answer.lower().strip())[0]
    wanted = {part.strip() for part in reference.lower().split(",")}
    known = {label.lower() for label in labels}
    asked = {label for label in known if _holds(question.lower(), label)} - wanted
    named = {label for label in known if _holds(said, label)} - asked
    return float(named == wanted)


def _holds(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def official_only_label(answer: str, reference: str, question: str, labels: Iterable[str]) -> float:
    """BABILong's: labels may be parts of words, and "Question" is sought in lower-case text."""
    text = answer.lower().split(".")[0]
    for mark in ("<context>", "<example>"):
        text = text.split(mark)[0]
    known = {label.lower() for label in labels}
    named = {label for label in known if label in text}
    named -= {label for label in known if label in question.lower()}
    target = reference.lower()
    if "," in target and len(target) > 3:
        wanted = set(target.split(","))
        return float(wanted <= named and len(named) == len(target.split(",")))
    return float(named == {target})
