"""One sample under one memory policy, read once, or one reader; asked turn by turn, scored."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from infllm.cli.bench.metrics import score
from infllm.cli.bench.prompts import EncodedSample, encode_sample
from infllm.cli.bench.sample import Sample
from infllm.cli.documents import Collection, Document, Span
from infllm.cli.errors import InfllmError
from infllm.cli.memory import Memory
from infllm.cli.options import Sampling
from infllm.cli.passages import Passages, characters_of_kept
from infllm.cli.readers.base import NOTHING, Excerpt
from infllm.cli.readers.table import reader_of
from infllm.cli.reading import Reading, read_in_chunks
from infllm.cli.tasks.answer import Answer, generate_answer
from infllm.cli.tasks.policies import (
    reader_in,
    reader_overrides,
    reads_back,
    session_overrides,
)
from infllm.cli.tasks.questions import answer_prompt
from infllm.engine.errors import EngineError
from infllm.engine.text import Prompt, wrapped_text

if TYPE_CHECKING:
    from infllm.cli.bench.suites import Task
    from infllm.engine import Engine, Session


@dataclass(frozen=True)
class Job:
    """A sample to be examined under some policies."""

    task: "Task"
    sample: Sample
    policies: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What came of a sample under one policy.

    `record` is its line of the results and holds nothing that differs from run to run; `timing`
    holds what does (seconds). `tokens` were read.
    """

    task: "Task"
    policy: str
    record: dict[str, Any]
    timing: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0

    @property
    def failed(self) -> bool:
        return "failed" in self.record


class Examiner:
    """Examines samples with one engine. `told` hears of every piece of tokens that was read.

    `official`: answers are scored as the suite's own scorer does, defects included.
    """

    def __init__(
        self,
        engine: "Engine",
        official: bool,
        told: Callable[[int], None] = lambda tokens: None,
    ) -> None:
        self.engine = engine
        self.official = official
        self.told = told

    def examine(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """The outcomes of all jobs, in order. What fails is an outcome, too.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        for job in jobs:
            task, sample = job.task, job.sample
            try:
                encoded = encode_sample(
                    self.engine.tokenizer, self.engine.config, sample, task.chat
                )
            except (InfllmError, EngineError) as error:
                for policy in job.policies:
                    yield Outcome(task, policy, failure(sample.id, sample.meta, error))
                continue
            for policy in job.policies:
                try:
                    way = self._examine if reader_in(policy) is None else self._read_anew
                    yield way(task, sample, encoded, policy)
                except Exception as error:  # a defect costs its sample, not the run
                    yield Outcome(task, policy, failure(sample.id, sample.meta, error))

    def _examine(
        self, task: "Task", sample: Sample, encoded: EncodedSample, policy: str
    ) -> Outcome:
        chunk = self.engine.config.chunk_size
        began = time.perf_counter()
        memory = self.engine.session(overrides=session_overrides(policy))
        read_in_chunks(memory, [*encoded.head, *encoded.context], chunk, self.told)
        reading = time.perf_counter() - began
        read = memory.stats.tokens_read
        sampling = _sampling(task)
        back = sample_memory(self.engine, memory, sample, encoded) if reads_back(policy) else None
        answers, scores, read_back = [], [], []
        answering = 0.0
        for turn, tail in zip(sample.turns, encoded.tails, strict=True):
            if back is not None:
                alone = Prompt(encoded.head, tail)
                reply = answer_prompt(
                    self.engine, back, turn.tail, tail, alone, sampling, read_back=True
                )
                self.told(len(tail))
                read += len(tail)
                reading += reply.seconds
                read_back.append(reply.read_back)
                answering += reply.seconds_back
                answer = reply.answer
            else:
                began = time.perf_counter()
                session = memory.fork()
                read_in_chunks(session, tail, chunk, self.told)
                read += session.stats.tokens_read - memory.stats.tokens_read
                reading += time.perf_counter() - began
                answer = generate_answer(session, self.engine.tokenizer, sampling)
            if answer.finish == "interrupted":
                raise KeyboardInterrupt
            answering += answer.seconds
            answers.append(answer)
            scores.append(score(task, turn, answer.text, self.official))
        outcome = _outcome(task, sample, encoded, policy, answers, scores, read, reading, answering)
        if back is not None:
            outcome.record["tokens_read_back"] = read_back
        return outcome

    def _read_anew(
        self, task: "Task", sample: Sample, encoded: EncodedSample, policy: str
    ) -> Outcome:
        """Under a reader: the context is read for each question."""
        engine, reader = self.engine, reader_of(policy.partition(":")[0])
        config = engine.config.with_overrides(reader_overrides(policy))
        context, answers, scores = _excerpt(engine, sample, encoded), [], []
        tokens, done = len(encoded.context), 0
        read, reading, answering = 0, 0.0, 0.0

        def told(characters: int) -> None:
            nonlocal done
            before, done = done, done + characters
            share = [tokens * n // max(1, len(context.text)) for n in (before, done)]
            self.told(share[1] - share[0])

        for turn in sample.turns:
            began, done = time.perf_counter(), 0
            prompt = wrapped_text(engine.tokenizer, config, sample.head, turn.tail, task.chat)
            found = reader(engine, context, prompt, turn.tail.strip(), told, config)
            reading += time.perf_counter() - began
            answer = generate_answer(found.session, engine.tokenizer, _sampling(task))
            if answer.finish == "interrupted":
                raise KeyboardInterrupt
            read += found.tokens
            answering += answer.seconds
            answers.append(answer)
            scores.append(score(task, turn, answer.text, self.official))
        return _outcome(task, sample, encoded, policy, answers, scores, read, reading, answering)


def _sampling(task: "Task") -> Sampling:
    """As the suites are published: what repeats itself goes on, and costs its score."""
    return Sampling(max_new_tokens=task.answer_tokens, stop=tuple(task.stop), stop_repetition=False)


def _outcome(
    task: "Task",
    sample: Sample,
    encoded: EncodedSample,
    policy: str,
    answers: list[Answer],
    scores: list[float],
    read: int,
    reading: float,
    answering: float,
) -> Outcome:
    """`read` in tokens, `reading` and `answering` in seconds, of all turns."""
    record = {
        "id": sample.id,
        "meta": sample.meta,
        "tokens_given": encoded.given,
        "tokens_read": read,
        "tokens_truncated": encoded.truncated,
        "answers": [answer.text for answer in answers],
        "references": [list(turn.references) for turn in sample.turns],
        "scores": scores,
        "finish": [answer.finish for answer in answers],
    }
    timing = {
        "tokens_read": read,
        "seconds_reading": round(reading, 4),
        "seconds_answering": round(answering, 4),
    }
    return Outcome(task, policy, record, timing, read)


def _excerpt(engine: "Engine", sample: Sample, encoded: EncodedSample) -> Excerpt:
    """What is read of the context, as text."""
    _, kept = characters_of_kept(engine.tokenizer, sample.context, encoded.whole, encoded.kept)
    whole = Excerpt.of(sample.context, 0, len(sample.context))
    return sum((whole[a:b] for a, b in kept), NOTHING)


def sample_memory(
    engine: "Engine", session: "Session", sample: Sample, encoded: EncodedSample
) -> Memory:
    """The session, which has read the sample's head and context, with the text that this was."""
    offsets, characters = characters_of_kept(
        engine.tokenizer, sample.context, encoded.whole, encoded.kept
    )
    spans = [Span(0, len(sample.context), sample.id, line=1)]
    context = Collection([Document(sample.id, "text", sample.context, spans)])
    reading = Reading(encoded.given, session.stats.tokens_read, encoded.truncated, 0.0)
    return Memory(session, Passages(context, offsets, len(encoded.head), characters), reading)


def failure(id: str, meta: dict[str, Any], error: BaseException, where: str = "") -> dict[str, Any]:
    """The record of a sample that was not examined, and why."""
    known = isinstance(error, (InfllmError, EngineError))
    why = str(error) if known else f"{type(error).__name__}: {error}"
    place = {"where": where} if where else {}
    return {"id": id, "meta": meta, "failed": why, **place}
