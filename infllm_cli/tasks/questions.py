"""A question to a memory: answered on a fork, with what it attended and where that stands."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infllm.cli.memory import Memory
from infllm.cli.options import Sampling
from infllm.cli.tasks.answer import Answer, generate_answer
from infllm.cli.tasks.citations import (
    LEAST_WORDS,
    Citation,
    Evidence,
    Found,
    cite,
    spoken_of,
    supporting,
)
from infllm.cli.tasks.drafting import drafts_for
from infllm.cli.tasks.words import words_of

if TYPE_CHECKING:
    from infllm.engine import Engine, Session
    from infllm.engine.session import UnitMass
    from infllm.engine.text import Prompt

WINDOW_SHARE = 0.75  # of the window that question and passages read back may fill
FIRST_LOOK = 5  # sentences at most
OF_BEST = 0.5  # a sentence read back scores, or has of the question's words, this part of the best
AS_GOOD = 0.8  # of the best one's words: goes in beyond these if it has what none of them has
MOST_ASKED = 12  # sentences at most, where a question asks for as many things
SECOND_LOOK = 2  # sentences that the best one leads to


@dataclass(frozen=True)
class Reply:
    """An answer, its citations, and the tokens and seconds that reading the question took.

    `read_back`: tokens of passages that were read again next to the question; 0 when none were.
    `seconds_back`: what it took to find and to read them. `looks`: units that the question's pass
    attended.
    """

    answer: Answer
    citations: list[Citation] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    read_back: int = 0
    seconds_back: float = 0.0
    looks: list["UnitMass"] = field(default_factory=list)

    @property
    def answering(self) -> float:
        """Seconds from the question's last token to the answer's."""
        return self.seconds_back + self.answer.seconds


def ask_memory(
    engine: "Engine",
    memory: Memory,
    question: str,
    sampling: Sampling,
    write: Callable[[str], None] = lambda text: None,
    read_back: bool = False,
    answer_start: str = "",
) -> Reply:
    """Answer `question` from `memory`, which stays as it is; `read_back` as for `answer_prompt`.

    `answer_start` is put into the model's mouth, and is no part of the answer.
    """
    from infllm.engine.text import Prompt, build_prompt, build_turn

    prompt = build_prompt(engine.tokenizer, engine.config, "ask", question=question)
    asked = prompt.tail_ids
    if memory.turns:
        asked = build_turn(engine.tokenizer, engine.config, question, first=False)
    start = engine.tokenizer.encode(f" {answer_start}", inner=True) if answer_start else []
    alone = Prompt(prompt.head_ids, [*prompt.tail_ids, *start])
    asked = [*asked, *start]
    return answer_prompt(engine, memory, question, asked, alone, sampling, write, read_back)


def answer_prompt(
    engine: "Engine",
    memory: Memory,
    question: str,
    asked: list[int],
    alone: "Prompt",
    sampling: Sampling,
    write: Callable[[str], None] = lambda text: None,
    read_back: bool = False,
) -> Reply:
    """What follows the tokens `asked`, which put the words of `question` to `memory`.

    With `read_back`, the sentences that the question finds, and those that the best of them leads
    to, are read again at their true distances, in the prompt `alone` in place of the document; the
    answer is given from there. Without units, as in a text that the window holds, there is nothing
    to read back.
    """
    began = time.monotonic()
    session = look(memory, asked)
    seconds = time.monotonic() - began
    attended = attended_units(session)
    found: list[Found] = []
    passages: list[int] = []
    speaker = session
    if read_back and attended:
        room = int(WINDOW_SHARE * engine.config.model.n_local) - len(alone.tail_ids)
        found = find_sentences(engine, memory, session, question, asked)
        passages = spell(engine, memory, found, room)
    if passages:
        speaker = engine.session()
        speaker.read([*alone.head_ids, *passages])
        speaker.read(alone.tail_ids)
        speaker.end()
    seconds_back = time.monotonic() - began - seconds
    drafts = drafts_for(engine, sampling, memory, [*passages, *asked])
    answer = generate_answer(speaker, engine.tokenizer, sampling, write, units=True, drafts=drafts)
    steps = [attended] if passages else answer.units
    places = [*Evidence(steps).ranked(), *session_sights(session)]
    places += [(*memory.passages.tokens(f.start, f.stop), f.score) for f in found]
    places += spoken_of(memory.passages, question, answer.text)
    told = cite(memory.passages, places, question, answer.text)
    return Reply(answer, told, len(asked), seconds, len(passages), seconds_back, attended)


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
