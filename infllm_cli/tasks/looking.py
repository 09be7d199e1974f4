"""What a question looks at in a memory, and the sentences that it finds there, to be read again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from infllm.cli.memory import Memory
from infllm.cli.tasks.citations import LEAST_WORDS, Evidence, Found, spoken_of, supporting
from infllm.cli.tasks.words import words_of

if TYPE_CHECKING:
    from infllm.engine import Engine, Session
    from infllm.engine.session import UnitMass

FIRST_LOOK = 5  # sentences at most
OF_BEST = 0.5  # a sentence read back scores, or has of the question's words, this part of the best
AS_GOOD = 0.8  # of the best one's words: goes in beyond these if it has what none of them has
MOST_ASKED = 12  # sentences at most, where a question asks for as many things
SECOND_LOOK = 2  # sentences that the best one leads to
OPENING = 300  # characters at the head of a document, which say whose it is and what it is about
# English words that ask about a document itself. To other questions its head only adds noise.
_ITSELF = """
abstract article author authors book document letter manual novel paper published publisher
report story thesis title titled written wrote
"""
ITSELF = frozenset(_ITSELF.split())


def look(memory: Memory, ids: list[int]) -> "Session":
    """A fork of the memory that has read `ids` as a segment, its attention watched."""
    session = memory.session.fork()
    session.read(ids)
    session.end(units=True)
    return session


def attended_units(session: "Session") -> list["UnitMass"]:
    """The units that the last pass of a watched session attended."""
    token = next(session.fork().generate(max_new_tokens=1, units=True), None)
    return token.units if token is not None else []


def session_sights(session: "Session") -> list[tuple[int, int, float]]:
    """What a session sees without a lookup, as places of no particular attention."""
    return [(start, stop, 0.0) for start, stop in session.in_sight()]


def find_passages(
    engine: "Engine", memory: Memory, session: "Session", question: str, asked: list[int], room: int
) -> tuple[list[Found], list[int]]:
    """Sentences that a question finds, and the ids, at most about `room`, to read them again by.

    `session`: what has read the tokens `asked`, its attention watched.
    """
    found = find_sentences(engine, memory, session, question, asked)
    if found and words_of(question) & ITSELF:
        found = with_opening(memory, found)
    return found, spell(engine, memory, found, room)


def find_sentences(
    engine: "Engine", memory: Memory, session: "Session", question: str, tail_ids: list[int]
) -> list[Found]:
    """The sentences that a question finds in a memory, by what its pass attended and by its words;
    the best of them is asked along with it for those that a second step needs."""
    text = memory.collection.text
    places = [*Evidence([attended_units(session)]).ranked(), *session_sights(session)]
    places += spoken_of(memory.passages, question, "")
    first = choose(text, supporting(memory.passages, places, question, ""), question)
    if not first:
        return []
    best = " ".join(text[first[0].start : first[0].stop].split())
    again = look(memory, [*engine.tokenizer.encode(f"\n\n{best}", inner=True), *tail_ids])
    places = [*Evidence([attended_units(again)]).ranked(), *session_sights(again)]
    places += spoken_of(memory.passages, f"{question} {best}", "")
    seen = {(found.start, found.stop) for found in first}
    second = [
        found
        for found in supporting(memory.passages, places, f"{question} {best}", "")
        if (found.start, found.stop) not in seen
    ]
    return first + second[:SECOND_LOOK]


def with_opening(memory: Memory, found: list[Found]) -> list[Found]:
    """`found`, and behind it the head of the document that the first of it stands in, as far as
    that was read: it says whose the document is and what it is about, in no sentence and in words
    that no question shares."""
    text, place = memory.collection.text, memory.collection.locate(found[0].start)
    if place is None:
        return found
    document, inside = place
    start = found[0].start - inside
    high = next((high for low, high in memory.passages.kept if low <= start < high), start)
    stop = min(start + OPENING, start + len(document.text), high)
    if stop < len(text) and not text[stop].isspace():  # not within a word
        stop = max(start, *(text.rfind(blank, start, stop) for blank in " \n"))
    if not text[start:stop].strip():
        return found
    return [*(one for one in found if one.stop > stop), Found(0.0, start, stop, 0.0)]


def choose(text: str, found: Sequence[Found], question: str) -> list[Found]:
    """Of sentences, best first, those that a question is answered from.

    One that attention found may score twice as much as its neighbours in a list, which the question
    names as well: these have as many of its words. And a question may name more than a few things.
    """
    if not found:
        return []
    words = max(one.words for one in found[:FIRST_LOOK])
    good = [
        one
        for one in found
        if one.score >= OF_BEST * found[0].score or one.words >= max(OF_BEST * words, LEAST_WORDS)
    ]
    chosen, left = good[:FIRST_LOOK], good[FIRST_LOOK:]
    asked = words_of(question)
    missing = asked.difference(*(words_of(text[one.start : one.stop]) for one in chosen))
    for one in left:
        new = missing & words_of(text[one.start : one.stop])
        if new and one.words >= AS_GOOD * words and len(chosen) < MOST_ASKED:
            chosen.append(one)
            missing -= new
    return chosen


def spell(engine: "Engine", memory: Memory, found: list[Found], room: int) -> list[int]:
    """Ids of the sentences in the order of the text; those found first have the room."""
    text = memory.collection.text
    chosen: list[Found] = []
    for place in found:
        length = len(engine.tokenizer.encode(text[place.start : place.stop]))
        if length <= room:
            room -= length
            chosen.append(place)
    chosen.sort(key=lambda place: place.start)
    between = "\n" if engine.config.read_back_as == "lines" else " "
    return engine.tokenizer.encode(
        between.join(" ".join(text[place.start : place.stop].split()) for place in chosen)
    )
