"""Scores by what an answer contains: words, numbers, names."""

import re
from collections.abc import Sequence

_NUMBER = re.compile(r"(?<![\d.])-?\d+(?:,\d{3})*(?:\.\d+)?")
_INTEGER = re.compile(r"-?\d+")
_SPLITS = str.maketrans(dict.fromkeys("\n:\"'.,?!{}", " "))
_CONTROL = re.compile(r"[\x00-\x1f]")


def holds(answer: str, reference: str) -> bool:
    """Whether a reference stands in an answer, as whole words, whatever the case."""
    pattern = rf"(?<!\w){re.escape(reference.strip())}(?!\w)"
    return re.search(pattern, answer, re.IGNORECASE) is not None


def all_held(answer: str, references: Sequence[str]) -> float:
    """Share of the references that an answer holds (RULER)."""
    return sum(holds(answer, reference) for reference in references) / len(references)


def one_held(answer: str, references: Sequence[str]) -> float:
    """Whether an answer holds one of the references (RULER, question answering)."""
    return float(any(holds(answer, reference) for reference in references))


def official_all_held(answer: str, references: Sequence[str]) -> float:
    text = _CONTROL.sub("\n", answer.strip()).lower()
    return sum(reference.lower() in text for reference in references) / len(references)


def official_one_held(answer: str, references: Sequence[str]) -> float:
    text = _CONTROL.sub("\n", answer.strip()).lower()
    return float(any(reference.lower() in text for reference in references))


def first_number(answer: str, references: Sequence[str]) -> float:
    """Whether the first run of digits is the reference (InfiniteBench passkey, number string)."""
    found = re.search(r"[0-9]+", answer)
    return float(found is not None and found[0] in references)


def official_first_number(answer: str, references: Sequence[str]) -> float:
    return first_number(answer, references[:1])


def word(answer: str, references: Sequence[str]) -> float:
    """Whether a reference is one of the answer's words (InfiniteBench and SCBench keys)."""
    words = answer.translate(_SPLITS).split()
    return float(any(reference in words for reference in references))


def last_integer(answer: str, references: Sequence[str]) -> float:
    """Whether the last whole number is the reference (InfiniteBench Code.Run)."""
    found = _INTEGER.findall(answer)
    return float(bool(found) and int(found[-1]) == int(references[0]))


def official_last_integer(answer: str, references: Sequence[str]) -> float:
    """InfiniteBench: the last word must be a number by itself."""
    words = re.sub(r"[\n.`'\":]", " ", answer.strip()).split()
    try:
        return float(bool(words) and int(words[-1]) == int(references[0]))
    except ValueError:
        return 0.0


def first_value(answer: str, references: Sequence[str]) -> float:
    """Whether the first number is the reference, signs and fractions included (Math.Find)."""
    found = _NUMBER.search(answer)
    return float(found is not None and float(found[0].replace(",", "")) == float(references[0]))


def official_first_value(answer: str, references: Sequence[str]) -> float:
    """InfiniteBench: knows no signs; a fraction where a whole number is right ends its run.

    That end counts as a wrong answer here.
    """
    found = re.search(r"\d+\.\d+|\d+", answer)
    if found is None:
        return 0.0
    whole = re.fullmatch(r"-?\d+", references[0]) is not None
    if whole and "." in found[0]:
        return 0.0
    return float(float(found[0]) == float(references[0]))


def values_in_order(answer: str, references: Sequence[str]) -> float:
    """Share of the values that are right before the first wrong one (Math.Calc)."""
    return _prefix([int(n) for n in _INTEGER.findall(answer)], references)


def official_values_in_order(answer: str, references: Sequence[str]) -> float:
    """InfiniteBench: minus signs are not read, so a negative value ends what is right."""
    return _prefix([int(n) for n in re.findall(r"[0-9]+", answer)], references)


def _prefix(given: list[int], references: Sequence[str]) -> float:
    right = 0
    for value, reference in zip(given, references, strict=False):
        if value != int(reference):
            break
        right += 1
    return right / len(references)


def name_said(answer: str, references: Sequence[str]) -> float:
    """Whether one of a person's names stands in the answer, be it of several words (En.Dia)."""
    return one_held(answer, references)


def official_name_said(answer: str, references: Sequence[str]) -> float:
    """InfiniteBench: the first name alone counts, and only if it is a single word."""
    words = [part.upper() for part in answer.translate(_SPLITS).split()]
    return float(references[0] in words)


def share_of_numbers(answer: str, references: Sequence[str]) -> float:
    """Share of the numbers in an answer that are the right one (LongBench counts, paragraphs)."""
    numbers = re.findall(r"\d+", answer)
    wanted = re.findall(r"\d+", references[0])
    if not numbers or not wanted:
        return 0.0
    return sum(number == wanted[0] for number in numbers) / len(numbers)


def same(answer: str, references: Sequence[str]) -> float:
    """Whether an answer's first line is a reference, whatever the case and the full stop."""
    lines = answer.strip().splitlines()
    given = lines[0].strip().rstrip(".").lower() if lines else ""
    return float(any(given == reference.strip().rstrip(".").lower() for reference in references))
