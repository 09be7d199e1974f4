"""A question to a memory: answered on a fork, with what it attended and where that stands."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infllm.cli.memory import Memory
from infllm.cli.options import Sampling
from infllm.cli.tasks.answer import Answer, generate_answer
from infllm.cli.tasks.citations import Citation, Evidence, Found, cite, spoken_of
from infllm.cli.tasks.drafting import drafts_for
from infllm.cli.tasks.looking import attended_units, find_passages, look, session_sights

if TYPE_CHECKING:
    from infllm.engine import Engine
    from infllm.engine.session import UnitMass
    from infllm.engine.text import Prompt

WINDOW_SHARE = 0.75  # of the window that question and passages read back may fill


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
        found, passages = find_passages(engine, memory, session, question, asked, room)
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
