"""Samples of a wanted number of tokens, from generators that count characters."""

from collections.abc import Iterator
from random import Random
from typing import Any

from infllm.cli.bench.generators.base import Fill, Generator, Made, Order, spread_depth
from infllm.cli.bench.sample import Asked, BadSample, Sample, Turn
from infllm.cli.bench.source import Source
from infllm.cli.errors import UsageError

PROBE = 4096  # characters whose tokens are counted first, to know how many a token takes
NEAR = 0.996  # share of the budget at which a context is long enough
ROUNDS = 10
DRAWS = 10  # until all fits, and nothing hidden occurs in the haystack by itself


def generate(
    task: Asked, generator: Generator, source: Source, count: int
) -> Iterator[Sample | BadSample]:
    """`count` samples of each length: prompt and answer take that many tokens, or up to 1 % less.

    A sample depends on the seed, the task, its length and number alone.

    Raises:
        UsageError: no lengths, or one that is too short for what must be hidden.
    """
    if not source.lengths:
        raise UsageError(f"{task.id} is made to a length, and none was given", "give --len")
    if source.tokenizer is None:
        raise UsageError(f"{task.id} is made to a length in tokens, which takes a tokenizer")
    for length in source.lengths:
        for index in range(count):
            yield _sample(task, generator, source, length, index)


def _sample(
    task: Asked, generator: Generator, source: Source, length: int, index: int
) -> Sample | BadSample:
    cell = f"{source.seed} {task.id} {task.version} {length}"
    depth = spread_depth(index, Random(cell).randrange(1 << 16))
    order = Order(length, index, depth, source)
    name = f"{length}-{index:03d}"
    for draw in range(DRAWS):
        fill = generator.plan(Random(f"{cell} {index} {draw}"), order)
        try:
            made, tokens = _fitted(task, source, fill, length)
        except UsageError:
            if draw == DRAWS - 1:
                raise
            continue  # a story of fewer facts may fit
        astray = [text for text, times in made.planted.items() if made.context.count(text) != times]
        if not astray:
            head, tails = _rendered(task, source, made)
            turns = tuple(
                Turn(tail, question.references, question.extra)
                for tail, question in zip(tails, made.questions, strict=True)
            )
            meta: dict[str, Any] = {"length": length, "tokens": tokens}
            if made.depth is not None:
                meta["depth"] = made.depth
            return Sample(name, head, made.context, turns, meta)
    times = made.context.count(astray[0])
    why = f"{astray[0]!r} occurs {times} times in it, not {made.planted[astray[0]]}"
    return BadSample(name, str(source.haystack or task.id), why)


def _fitted(task: Asked, source: Source, fill: Fill, length: int) -> tuple[Made, int]:
    """The fullest context found whose prompt, with the answer, keeps within `length` tokens."""
    best: tuple[Made, int] | None = None
    smallest = length
    low = high = None  # (characters, tokens) below and above the budget
    characters = PROBE if length > PROBE else length
    for _ in range(ROUNDS):
        made = fill(characters)
        context, around = _count(task, source, made)
        around += task.answer_tokens + source.around
        room = length - around
        smallest = min(smallest, context + around)
        if context <= room:
            low = max(low or (0, 0), (characters, context))
            if best is None or context + around > best[1]:
                best = made, context + around
            if context >= NEAR * length - around:
                break
        else:
            high = min(high or (characters, context), (characters, context))
        target = room - (1 - NEAR) / 3 * length
        characters = _next(characters, context, target, low, high)
        if low and characters <= low[0]:  # nothing lies between what fits and what does not
            break
    if best is None:
        raise UsageError(
            f"{task.id}: {length:,} tokens are too few: what must be in the prompt, and the "
            f"answer, take {smallest:,}",
            "choose a longer --len",
        )
    made, tokens = best
    return made, tokens - task.answer_tokens - source.around


def _next(
    characters: int,
    tokens: int,
    target: float,
    low: tuple[int, int] | None,
    high: tuple[int, int] | None,
) -> int:
    """Characters that should take `target` tokens: by the rise between both sides, if known."""
    if low is None or high is None or high[1] <= low[1]:
        wanted = round(characters * max(target, 1) / max(tokens, 1))
    else:
        rise = (high[0] - low[0]) / (high[1] - low[1])
        wanted = round(low[0] + (target - low[1]) * rise)
    if low and high and not low[0] < wanted < high[0]:
        wanted = (low[0] + high[0]) // 2
    return max(1, wanted)


def _count(task: Asked, source: Source, made: Made) -> tuple[int, int]:
    """Tokens of the context, and of the prompt around it with the longest question."""
    tokenizer = source.tokenizer
    assert tokenizer is not None
    head, tails = _rendered(task, source, made)
    longest = max(len(tokenizer.encode(tail, inner=True)) for tail in tails)
    context = len(tokenizer.encode(made.context, inner=bool(head)))
    return context, len(tokenizer.encode(head)) + longest


def _rendered(task: Asked, source: Source, made: Made) -> tuple[str, list[str]]:
    """The prompt's head and the tail of each question."""
    head, tail = task.words(source.completion)
    fields = dict(made.fields)
    if "{example}" in head:
        fields["example"] = ""
        if made.example is not None:
            solved, (asked,) = _rendered(task, source, made.example)
            (question,) = made.example.questions
            answer = question.extra.get("answer") or " ".join(question.references)
            fields["example"] = f"{solved}{made.example.context}{asked} {answer}\n\n"
    tails = [tail.format_map({**fields, **question.fields}) for question in made.questions]
    return head.format_map(fields), tails
