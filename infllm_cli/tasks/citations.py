"""Where an answer stands: from what its tokens attended to sentences of the sources."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from infllm.cli.documents import Collection, Origin
from infllm.cli.passages import Passages
from infllm.cli.tasks.word_search import stretches
from infllm.cli.tasks.words import Words
from infllm.cli.text import one_line

if TYPE_CHECKING:
    from infllm.engine.session import UnitMass

LIMIT = 3  # citations of an answer
PLACES = 16  # units that sentences are taken from
QUOTE_CHARS = 400  # of the longest quote
REACH = 2 * QUOTE_CHARS  # characters around a unit in which its sentences begin and end
ENTRY_CHARS = 160  # of what has no sentences: a few entries of a table, a list, an object
LEAST_SCORE = 0.25  # of a citation; below it nothing is cited
LEAST_WORDS = 0.15
OF_BEST = 0.6  # a further citation scores at least this part of the best one
ATTENTION_SHARE = 0.3  # of the score; the rest is the words that a sentence shares

TOLD_SHARE = 0.35  # of these words, the answer's: a wrong answer must not outweigh the question

Place = tuple[int, int, float]  # tokens start to stop - 1, absolute, and attention, 0..1

_NO_END = "".join(f"(?<!\\b{short})" for short in ("[A-Z]", "Mr", "Mrs", "Dr", "St", "No", "vs"))
_SENTENCE_END = re.compile(
    rf"{_NO_END}(?<!e\.g)(?<!i\.e)[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u2019)\]]*(?=\s)"
    r"|\n[ \t]*\n"
)


@dataclass(frozen=True)
class Citation:
    """A sentence of a source. `verified`: it stands there, character for character.

    `start` and `stop` are characters of the source's text; `score` is 0..1.
    """

    source: str
    page: str | None
    line: int | None
    chapter: str | None
    quote: str
    score: float
    verified: bool
    start: int
    stop: int

    @property
    def fields(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "page": self.page,
            "line": self.line,
            "chapter": self.chapter,
            "quote": self.quote,
            "score": round(self.score, 4),
            "verified": self.verified,
        }

    @property
    def place(self) -> str:
        """`book.pdf, p. 12` or `notes.txt, line 40`, and the chapter where there is one."""
        origin = Origin(self.source, self.page, chapter=self.chapter, line=self.line)
        return one_line(str(origin))


class Evidence:
    """Attention that a question and its answer gave to memory units.

    Each pass counts by how much more than the mean of the units it looked up a unit received:
    what all units get says nothing.
    """

    def __init__(self, steps: Iterable[Sequence["UnitMass"]] = ()) -> None:
        self.mass: dict[tuple[int, int], float] = {}
        for units in steps:
            self.add(units)

    def add(self, units: Sequence["UnitMass"]) -> None:
        """The units of one pass."""
        if not units:
            return
        mean = sum(unit.mass for unit in units) / len(units)
        for unit in units:
            place = unit.start, unit.stop
            self.mass[place] = self.mass.get(place, 0.0) + max(0.0, unit.mass - mean)

    def ranked(self, limit: int = PLACES) -> list[Place]:
        """The units with most evidence, each with its part of the largest."""
        best = sorted(self.mass.items(), key=lambda item: (-item[1], item[0]))[:limit]
        most = best[0][1] if best else 0.0
        return [(start, stop, mass / most if most else 0.0) for (start, stop), mass in best]


class Found(NamedTuple):
    """A sentence, as characters of the collection's text; score 0..1, and `words`, the part of it
    that the words of question and answer have, 0..1."""

    score: float
    start: int
    stop: int
    words: float


def cite(
    passages: Passages, places: Sequence[Place], question: str, answer: str, limit: int = LIMIT
) -> list[Citation]:
    """The sentences in `places` that support `answer` best, best first; none when nothing there
    speaks for it. One that has more of the question than the first of them is cited behind it:
    the answer may be wrong."""
    chosen: list[Citation] = []
    places = list(places)
    for found in supporting(passages, places, question, answer):
        if found.score < LEAST_SCORE or (chosen and found.score < OF_BEST * chosen[0].score):
            break
        if found.words < LEAST_WORDS:  # attended, and yet about something else
            continue
        citation = _citation(passages.collection, found)
        if citation is not None:
            chosen.append(citation)
        if len(chosen) == limit:
            break
    return _with_asked(passages, places, question, chosen, limit) if answer else chosen


def _with_asked(
    passages: Passages, places: Sequence[Place], question: str, chosen: list[Citation], limit: int
) -> list[Citation]:
    """`chosen`, and the sentence that has most of the question where the first one has less."""
    asked = supporting(passages, places, question, "")
    if not asked or not chosen or limit < 2:
        return chosen
    best = max(asked, key=lambda found: (found.words, found.score))
    text = passages.collection.text
    words = Words(text, question, "", TOLD_SHARE)
    citation = _citation(passages.collection, best)
    if citation is None or best.words <= words.support(chosen[0].quote):
        return chosen
    if any((one.source, one.start) == (citation.source, citation.start) for one in chosen):
        return chosen
    kept = chosen[: limit - 1]
    return [*kept, replace(citation, score=min(citation.score, kept[-1].score))]


def spoken_of(passages: Passages, question: str, answer: str) -> list[Place]:
    """Where in all that was read the words of question and answer stand together: places that
    nothing need have attended."""
    text = passages.collection.text
    worth = Words(text, question, answer, TOLD_SHARE).worth
    found = [
        (max(a, low), min(b, high))
        for a, b in stretches(text, worth)
        for low, high in passages.kept
        if a < high and b > low
    ]
    places = [(*passages.tokens(a, b), 0.0) for a, b in found]
    return [place for place in places if place[0] < place[1]]


def supporting(
    passages: Passages, places: Sequence[Place], question: str, answer: str
) -> list[Found]:
    """The sentences in `places`, by how much they speak to the question and for the answer."""
    text = passages.collection.text
    words = Words(text, question, answer, TOLD_SHARE)
    candidates: dict[tuple[int, int], float] = {}
    for start, stop, attention in places:
        characters = passages.characters(start, stop)
        for sentence in sentences(text, *characters) if characters else ():
            candidates[sentence] = max(attention, candidates.get(sentence, 0.0))
    scored = []
    for (a, b), attention in candidates.items():
        shared = words.support(text[a:b])
        score = ATTENTION_SHARE * attention + (1 - ATTENTION_SHARE) * shared
        scored.append(Found(score, a, b, shared))
    return sorted(scored, key=lambda found: (-found.score, found.start))


def sentences(text: str, start: int, stop: int) -> list[tuple[int, int]]:
    """The whole sentences that touch text[start:stop], as character ranges without blanks around.

    A blank line ends one, too; one of more than `QUOTE_CHARS` characters is cut at its lines, and
    what goes on without an end, as data does, into short pieces.
    """
    low, high = max(0, start - REACH), min(len(text), stop + REACH)
    bounds = [low, *(found.end() for found in _SENTENCE_END.finditer(text, low, high)), high]
    found: list[tuple[int, int]] = []
    for a, b in pairwise(bounds):
        if a < stop and b > start:
            most = QUOTE_CHARS if b - a <= REACH else ENTRY_CHARS
            line = QUOTE_CHARS if "\n" in text[a:b] else most
            found += _cut(text, a, b, start, stop, most, line)
    return found


def _cut(
    text: str, a: int, b: int, start: int, stop: int, most: int, line: int
) -> list[tuple[int, int]]:
    """Pieces of at most `most` characters, or `line` where a line has so many."""
    piece = text[a:b]
    a += len(piece) - len(piece.lstrip())
    b -= len(piece) - len(piece.rstrip())
    if a >= b or a >= stop or b <= start:
        return []
    if b - a <= (most if "\n" in text[a:b] else line):
        return [(a, b)]
    middle = (a + b) // 2
    cuts = [found.start() for found in re.finditer(r"\n", text[a:b])] or [
        found.start() for found in re.finditer(r"\s", text[a:b])
    ]
    cut = a + min(cuts, key=lambda at: abs(a + at - middle)) if cuts else middle
    halves = (a, cut), (cut, b)
    return [part for low, high in halves for part in _cut(text, low, high, start, stop, most, line)]


def _citation(collection: Collection, found: Found) -> Citation | None:
    """A sentence of the joined text as a citation; None if no source has it."""
    score, a, b, _ = found
    place = collection.locate(a)
    if place is None:
        return None
    document, start = place
    quote = collection.text[a:b]
    stop = start + len(quote)
    verified = document.text[start:stop] == quote
    origin = document.origin(start)
    return Citation(
        origin.source, origin.page, origin.line, origin.chapter, quote, score, verified, start, stop
    )
