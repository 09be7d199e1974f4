"""Summaries: of the whole document through memory, or of parts that fit the window."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from infllm.cli.errors import Interrupted, UsageError
from infllm.cli.options import Sampling
from infllm.cli.output import Output
from infllm.cli.reading import Reading, read_prompt
from infllm.cli.tasks.answer import Answer, generate_answer
from infllm.cli.tasks.drafting import drafts_for
from infllm.cli.text import plural

if TYPE_CHECKING:
    from infllm.cli.documents import Collection
    from infllm.engine import Engine

# Of the window, what a partial summary may take: summaries of a few parts fit one prompt.
SHARE_OF_SUMMARY = 4


@dataclass(frozen=True)
class Part:
    """Token range start to end - 1 of the document, and where it comes from."""

    start: int
    end: int
    title: str


@dataclass(frozen=True)
class Summary:
    """The summary, what reading took in all, and how many parts were summarized on the way."""

    answer: Answer
    reading: Reading
    parts: int
    rounds: int


def summarize_by_memory(
    engine: "Engine",
    ids: list[int],
    sampling: Sampling,
    out: Output,
    budget: int | None = None,
) -> Summary:
    """One reading of the whole document, then one summary."""
    session = engine.session()
    reading = read_prompt(engine, session, ids, "summarize", {}, out, budget)
    drafts = drafts_for(engine, sampling, None, ids)
    answer = generate_answer(session, engine.tokenizer, sampling, out.write, drafts=drafts)
    return Summary(answer, reading, 1, 1)


def summarize_by_parts(
    engine: "Engine",
    ids: list[int],
    sections: Sequence[Part],
    sampling: Sampling,
    out: Output,
) -> Summary:
    """Parts that fit the model's own window are summarized, then the summaries, until one is left.

    Every prompt fits the window, so each is read with plain full attention (`origin`).

    Raises:
        UsageError: the window is too small for prompt, part and summary.
        Interrupted: Ctrl-C; with the partial summaries written so far.
    """
    room = _room(engine, sampling)
    partial = min(sampling.max_new_tokens, room // SHARE_OF_SUMMARY)
    small = Sampling(**{**vars(sampling), "max_new_tokens": partial})
    parts = fit_parts(sections, room)
    given = read = 0
    seconds = 0.0
    summarized = rounds = 0

    def one(task: str, part: list[int], label: str, how: Sampling, write: Callable) -> Answer:
        nonlocal given, read, seconds
        session = engine.session(overrides={"type": "origin"})
        reading = read_prompt(engine, session, part, task, {}, out, label=label, policy="origin")
        given, read = given + reading.tokens_given, read + reading.tokens_read
        seconds += reading.seconds
        drafts = drafts_for(engine, how, None, part)
        answer = generate_answer(session, engine.tokenizer, how, write, drafts=drafts)
        if answer.finish == "repetition" and write is _ignore:
            out.note(f"{label}: the summary repeated itself without end and was stopped")
        return answer

    task = "summarize-map"
    while True:
        last = len(parts) == 1
        if last and rounds == 0:
            task = "summarize"
        rounds += 1
        texts = []
        for i, part in enumerate(parts):
            piece = ids[part.start : part.end]
            label = f"part {i + 1} of {len(parts)}"
            answer = one(
                task, piece, label, sampling if last else small, out.write if last else _ignore
            )
            summarized += 1
            if answer.finish == "interrupted" and not last:
                raise Interrupted(
                    f"interrupted after {plural(summarized - 1, 'part')}",
                    "nothing was summarized to the end; the same command starts over",
                )
            if last:
                reading = Reading(given, read, 0, seconds)
                return Summary(answer, reading, summarized, rounds)
            out.detail(f"{label} ({part.title}): {answer.text}")
            texts.append(answer.text)
        task = "summarize-reduce"
        # Each round shrinks the text at least by half: a summary takes a quarter of a part.
        encoded = [engine.tokenizer.encode(text + "\n\n") for text in texts]
        ids = [token for part in encoded for token in part]
        parts = fit_parts(_consecutive(encoded), room)


def _ignore(text: str) -> None:
    return


def _room(engine: "Engine", sampling: Sampling) -> int:
    """Tokens of a part: the trained length without prompt and summary."""
    from infllm.engine.config import trained_length
    from infllm.engine.text import build_prompt

    window = trained_length(engine.model.config.to_dict()) or engine.config.model.n_local
    around = 0
    for task in ("summarize", "summarize-map", "summarize-reduce"):
        prompt = build_prompt(engine.tokenizer, engine.config, task)
        around = max(around, len(prompt.head_ids) + len(prompt.tail_ids))
    room = window - around - sampling.max_new_tokens
    if room < 128:
        raise UsageError(
            f"a window of {window} tokens leaves {max(room, 0)} for a part beside the prompt and "
            f"{sampling.max_new_tokens} new tokens",
            "lower --max-new-tokens, or use --strategy memory",
        )
    return room


def fit_parts(sections: Sequence[Part], room: int) -> list[Part]:
    """Neighbouring sections joined, and long ones cut evenly, so that each part fits `room`."""
    parts: list[Part] = []
    for section in sections:
        length = section.end - section.start
        if length <= 0:
            continue
        if parts and section.end - parts[-1].start <= room:
            last = parts[-1]
            parts[-1] = Part(last.start, section.end, last.title)
            continue
        pieces = -(-length // room)
        cuts = [section.start + length * i // pieces for i in range(pieces + 1)]
        parts += [Part(a, b, section.title) for a, b in pairwise(cuts)]
    return parts


def _consecutive(pieces: Sequence[Sequence[int]]) -> list[Part]:
    parts, start = [], 0
    for i, piece in enumerate(pieces):
        parts.append(Part(start, start + len(piece), f"summary {i + 1}"))
        start += len(piece)
    return parts


def find_sections(collection: "Collection", offsets: Sequence[int]) -> list[Part]:
    """Files, and chapters inside them, as token ranges that cover the collection.

    `offsets`: the character at which each token starts.
    """
    begins: dict[int, str] = {0: collection.documents[0].source}
    at = 0
    for document in collection.documents:
        at = collection.text.index(document.text, at)
        chapter = None
        begins[at] = document.title or document.source
        for span in document.spans:
            if span.chapter != chapter:
                chapter = span.chapter
                begins[at + span.start] = chapter or document.title or document.source
        at += len(document.text)
    starts = [(bisect_left(offsets, begin), title) for begin, title in sorted(begins.items())]
    ends = [start for start, _ in starts[1:]] + [len(offsets)]
    return [
        Part(start, end, title)
        for (start, title), end in zip(starts, ends, strict=True)
        if end > start
    ]
