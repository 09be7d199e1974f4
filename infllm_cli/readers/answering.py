"""A question to documents that are read for it alone, answered and cited."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from infllm.cli.errors import Interrupted
from infllm.cli.memory import Unread
from infllm.cli.options import Sampling
from infllm.cli.output import Output
from infllm.cli.passages import Passages
from infllm.cli.progress import Progress
from infllm.cli.readers.base import Excerpt
from infllm.cli.readers.table import prepare_reader, reader_of
from infllm.cli.tasks.answer import generate_answer
from infllm.cli.tasks.citations import cite
from infllm.cli.tasks.drafting import drafts_for
from infllm.cli.tasks.questions import Reply

if TYPE_CHECKING:
    from infllm.engine import Engine

WHOLE = 1.0  # attention of what an answer is given from


class ReadAnew:
    """Documents under a reader: every question reads them anew."""

    def __init__(self, engine: "Engine", unread: Unread, reader: str, out: Output) -> None:
        self.engine = engine
        self.unread = unread
        self.reader = reader
        self.out = out
        prepare_reader(reader, engine, engine.config, out)
        passages = unread.passages
        text = passages.collection.text
        ranges = [np.arange(start, stop) for start, stop in passages.kept]
        where = np.concatenate(ranges) if ranges else np.empty(0, dtype=np.int64)
        self.document_text = text
        self.document = Excerpt("".join(text[a:b] for a, b in passages.kept), where)
        # Places are characters here, and not tokens.
        self.passages = Passages(passages.collection, np.arange(len(text)), 0)

    def ask(
        self, question: str, sampling: Sampling, write: Callable[[str], None] = lambda text: None
    ) -> Reply:
        """Read for `question`, and answer it. `Reply.tokens` counts all that were read.

        Raises:
            Interrupted: Ctrl-C before the answer; says how far reading came.
        """
        from infllm.engine.text import prompt_text

        prompt = prompt_text(self.engine.tokenizer, self.engine.config, "ask", question=question)
        tokens, characters = self.unread.tokens, max(1, len(self.document.text))
        read = partial(
            reader_of(self.reader), self.engine, self.document, prompt, question,
            config=self.engine.config,
        )  # fmt: skip
        done = 0

        with Progress(self.out, "reading", tokens) as progress:

            def told(more: int) -> None:
                nonlocal done
                done += more
                progress.advance(tokens * done // characters - progress.done)

            try:
                found = read(told=told)
            except KeyboardInterrupt:
                raise Interrupted(
                    f"interrupted after {100 * done // characters} % of the documents",
                    "a reader keeps nothing: the same command starts over",
                ) from None
            seconds = progress.elapsed
        began = time.monotonic()
        left = "".join(self.document_text[a:b] for a, b in found.ranges)
        recent = self.engine.tokenizer.encode(f"{left}\n{question}")
        drafts = drafts_for(self.engine, sampling, None, recent)
        answer = generate_answer(
            found.session, self.engine.tokenizer, sampling, write, drafts=drafts
        )
        places = [(start, stop, WHOLE) for start, stop in found.ranges]
        citations = cite(self.passages, places, question, answer.text)
        return Reply(
            answer, citations, found.tokens, seconds,
            seconds_back=time.monotonic() - began - answer.seconds,
        )  # fmt: skip
