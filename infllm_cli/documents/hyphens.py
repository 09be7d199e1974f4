"""Words broken at a line's end: which hyphens are the printer's and which the author's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache

from infllm.cli.documents.words import words

HYPHENS = "-\u00ad\u2010"
# Each part matches at one place only, so that a run of letters without a blank costs its length.
BREAK = re.compile(rf"(?<=\w)[{HYPHENS}] ?\n *(?=\w)")
COMPOUND = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
PART = re.compile(r"[^\W\d_]+")
BROKEN_CHARS = 60  # of either part of a word; a longer one is no word
# "Vor-\nund Nachteile", "pre-\nand post-war": the hyphen stands for a word left out.
SUSPENDED = words("and or to und oder bis et ou y o e")
# Marks of an address, a path, an option or a name of a program: nothing in them is hyphenated.
LITERAL = re.compile(r"[/\\@_=#$%&+~:<>|{}\[\]*\d]|\w\.\w|^-|--")
REFERENCE = re.compile(r"(?<=[^\W\d])(?:[\[(]|\d+$)")  # "mation[3]", "mation3": a footnote's mark
PUNCTUATION = "\"'“”‘’«»„()[]{}.,;:!?…"
VOWELS = "aeiou"
# "cross-reference", "well-known": these lead compounds that are written with a hyphen.
LEADS = words(
    "all cross ex full half high long low mid much non quasi self short so still then well"
)
# A document with so many of these among its words is English enough for an English lexicon.
ENGLISH = words("the of and to in is that for with")
ENGLISH_SHARE = 0.08
COMMON = 500  # a word's frequency in the lexicon from which on it stands alone in text


class Vocabulary:
    """Words and hyphenated compounds that stand unbroken somewhere in a document."""

    def __init__(self, pages: Iterable[str]):
        self.known: set[str] = set()
        english = total = 0
        for page in pages:
            for compound in COMPOUND.findall(_unbroken(page).casefold()):
                total += 1
                english += compound in ENGLISH
                self.known.add(compound)
                if "-" in compound:
                    self.known.update(compound.split("-"))
        self.english = english >= ENGLISH_SHARE * max(1, total)

    def joins(self, left: str, right: str) -> bool:
        """Whether ``left`` and ``right`` are one word without the hyphen between them."""
        joined, compound = (left + right).casefold(), f"{left}-{right}".casefold()
        if len(left) == 1:  # e-mail, x-ray: no printer breaks a word after one letter
            return False
        if joined in self.known:
            return True
        if compound in self.known or left.casefold() in LEADS:
            return False
        if left[-1].casefold() in VOWELS and left[-1].casefold() == right[0].casefold():
            return False  # re-elected, co-operation
        if not self.english:
            return True
        return bool(_frequency(joined)) or _frequency(right.casefold()) < COMMON


@cache
def _lexicon() -> object:
    """Loaded for the first word that the document does not decide: a quarter of a second."""
    from spellchecker import SpellChecker

    return SpellChecker(language="en").word_frequency


def _frequency(word: str) -> int:
    return _lexicon()[word]  # type: ignore[index]


def _unbroken(page: str) -> str:
    """Without both parts of broken words, which are no words."""
    pieces, begin = [], 0
    for broken in BREAK.finditer(page):
        left = page[begin : broken.start()]
        last = _last_letters(left[-BROKEN_CHARS:])
        pieces.append(left[: len(left) - len(last)])
        begin = broken.end() + len(_first_letters(page[broken.end() : broken.end() + BROKEN_CHARS]))
    return "\n".join([*pieces, page[begin:]])


def between(left: str, right: str, known: Vocabulary) -> str | None:
    """What stands between the two sides of a line's end, hyphen included: "", "-", "- " or, for
    no broken word at all, None. ``left`` ends before the hyphen, ``right`` begins the next line.
    """
    outer_left = left.rsplit(maxsplit=1)[-1] if left.split() else ""
    outer_right = right.split(maxsplit=1)[0] if right.split() else ""
    word_left, word_right = _last_letters(outer_left), _first_letters(outer_right)
    if not outer_left or not outer_right:
        return None
    if word_right.casefold() in SUSPENDED and word_left:
        return "- "
    bare_right = REFERENCE.split(outer_right.strip(PUNCTUATION), maxsplit=1)[0]
    if LITERAL.search(outer_left.strip(PUNCTUATION)) or LITERAL.search(bare_right):
        return "-"
    if not word_left or not word_right:
        return None
    if not word_right[0].islower() and not (word_left.isupper() and word_right.isupper()):
        return "-"
    if word_left.isupper() and word_right.isupper():
        return "" if (word_left + word_right).casefold() in known.known else "-"
    return "" if known.joins(word_left, word_right) else "-"


def _last_letters(text: str) -> str:
    end = len(text)
    while end and PART.fullmatch(text[end - 1]):
        end -= 1
    return text[end:]


def _first_letters(text: str) -> str:
    match = PART.match(text)
    return match[0] if match else ""


def dehyphenate(page: str, known: Vocabulary) -> str:
    return "".join(_joined(page, known))


def _joined(page: str, known: Vocabulary) -> Iterator[str]:
    begin = 0
    for broken in BREAK.finditer(page):
        left = page[max(begin, broken.start() - BROKEN_CHARS) : broken.start()]
        right = page[broken.end() : broken.end() + BROKEN_CHARS]
        joint = between(left.rpartition("\n")[2], right.partition("\n")[0], known)
        yield page[begin : broken.start()]
        yield broken[0] if joint is None else joint
        begin = broken.end()
    yield page[begin:]


def page_joint(before: str, after: str, known: Vocabulary) -> tuple[int, str]:
    """How a page continues the one before: characters to drop from the end of ``before``, and
    what to put between."""
    if before[-1:] in tuple(HYPHENS) and after[:1].islower():
        left = before[-1 - BROKEN_CHARS : -1].rpartition("\n")[2]
        joint = between(left, after[:BROKEN_CHARS].partition("\n")[0], known)
        if joint is not None:
            return 1, joint
    goes_on = before and after and after[0].islower() and before[-1] not in ".!?:;”\"'»"
    return 0, "\n" if goes_on else "\n\n"
