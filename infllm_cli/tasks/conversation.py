"""A conversation over a memory: every turn is read into it, so that it may go on for ever."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infllm.cli.documents import is_memory
from infllm.cli.errors import UsageError
from infllm.cli.memory import Memory, save_memory
from infllm.cli.options import Sampling
from infllm.cli.tasks.answer import generate_answer
from infllm.cli.tasks.citations import Evidence, cite, spoken_of
from infllm.cli.tasks.drafting import drafts_for
from infllm.cli.tasks.looking import session_sights
from infllm.cli.tasks.questions import Reply

if TYPE_CHECKING:
    from infllm.engine import Engine


class Conversation:
    """Turns over one memory, which itself stays as it is.

    `last` is the reply of the turn before; `turns` counts those kept with the memory, too.
    """

    def __init__(self, engine: "Engine", memory: Memory, sampling: Sampling) -> None:
        self.engine = engine
        self.memory = memory
        self.sampling = sampling
        self.reset()

    def reset(self) -> None:
        """Back to the documents alone."""
        self.session = self.memory.session.fork()
        self.last: Reply | None = None
        self.turns = self.memory.turns
        self.said: list[int] = []  # questions and answers of this run

    def ask(self, question: str, write: Callable[[str], None]) -> Reply:
        """One turn. An answer that was stopped counts as far as it was given."""
        from infllm.engine.text import build_turn

        tokenizer = self.engine.tokenizer
        ids = build_turn(tokenizer, self.engine.config, question, first=self.turns == 0)
        # What a stopped turn leaves half done stays in the fork, which is then thrown away.
        session = self.session.fork()
        session.read(ids)
        session.end(units=True)
        drafts = drafts_for(self.engine, self.sampling, self.memory, [*self.said, *ids])
        answer = generate_answer(
            session, tokenizer, self.sampling, write, units=True, drafts=drafts
        )
        if answer.finish in ("interrupted", "repetition"):
            session = self.session.fork()
            session.read([*ids, *tokenizer.encode(f" {answer.text}", inner=True)])
            session.end()
        places = [*Evidence(answer.units).ranked(), *session_sights(session)]
        places += spoken_of(self.memory.passages, question, answer.text)
        citations = cite(self.memory.passages, places, question, answer.text)
        self.session, self.turns = session, self.turns + 1
        self.said += [*ids, *tokenizer.encode(answer.text, inner=True)]
        self.last = Reply(answer, citations, len(ids))
        return self.last

    def save(self, folder: Path) -> None:
        """Documents and conversation as a memory of their own.

        Raises:
            UsageError: there is a memory already.
            infllm.engine.errors.MemoryFileError: the folder cannot be written.
        """
        if is_memory(str(folder)):
            raise UsageError(f"{folder} is a memory already", "name another folder")
        session = self.session.fork()
        session.end()
        save_memory(session, self.memory, self.turns, folder)
