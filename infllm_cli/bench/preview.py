"""What a run would do, found out before it: slips, prompts, tokens, time. Loads no weights."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infllm.cli.bench.prompts import encode_sample, spell
from infllm.cli.bench.sample import BadSample
from infllm.cli.bench.suites import data_files
from infllm.cli.errors import InfllmError, UsageError
from infllm.cli.tasks.policies import reader_in, session_overrides

if TYPE_CHECKING:
    from infllm.cli.bench.source import Source
    from infllm.cli.bench.suites import Task
    from infllm.engine.config import Config
    from infllm.engine.text import Tokenizer


@dataclass(frozen=True)
class Plan:
    """What a task has to read under each policy: tokens, and about how many seconds; not known of
    readers.

    `too_long` samples exceed max_len; `bad` ones could not be made; neither is counted in
    `samples`. `truncated` ones lose tokens, as configured.
    """

    task: str
    samples: int
    bad: int
    too_long: int
    truncated: int
    tokens: int
    seconds: dict[str, float] | None


def check_files(tasks: Sequence["Task"], source: "Source") -> None:
    """Find out whether the libraries and files that the tasks need are there.

    Raises:
        MissingExtra, UsageError, InfllmError: one is not; says which, and where it belongs.
    """
    for task in tasks:
        task.check_installed()
        data_files(task, source)
        if task.generator is not None and task.generator.uses_haystack() and not source.haystack:
            _ = source.haystack_text  # raises


def check_lengths(tasks: Sequence["Task"], sources: Mapping[bool, "Source"]) -> None:
    """Find out whether the tasks can be made at the shortest length.

    Raises:
        UsageError: one cannot.
    """
    for task in tasks:
        if task.generator is not None:
            source = sources[task.chat]
            for _ in task.samples(replace(source, lengths=[min(source.lengths)]), 1):
                pass


def prompt_text(
    tokenizer: "Tokenizer",
    config: "Config",
    task: "Task",
    source: "Source",
    limit: int | None,
    number: int,
) -> list[str]:
    """The exact text of a task's sample `number`, from 1, for each of its turns.

    Raises:
        UsageError: there is no such sample. InfllmError: it could not be made.
    """
    found = 0
    for found, sample in enumerate(task.samples(source, limit), 1):
        if found < number:
            continue
        if isinstance(sample, BadSample):
            raise InfllmError(f"{task.id}, sample {number}: {sample.where}: {sample.why}")
        ids = encode_sample(tokenizer, config, sample, task.chat)
        return [spell(tokenizer, [*ids.head, *ids.context, *tail]) for tail in ids.tails]
    raise UsageError(
        f"{task.id} has no sample {number} here, it has {found}", "choose a smaller --show-prompt"
    )


def plan(
    tokenizer: "Tokenizer",
    config: "Config",
    tasks: Sequence["Task"],
    sources: Mapping[bool, "Source"],
    limit: int | None,
    policies: Sequence[str],
) -> Iterator[Plan]:
    """The plan of each task; every sample is made and tokenized."""
    from infllm.cli.estimate import estimate_needs

    for task in tasks:
        bad = too_long = truncated = 0
        lengths: list[int] = []
        for sample in task.samples(sources[task.chat], limit):
            if isinstance(sample, BadSample):
                bad += 1
                continue
            try:
                ids = encode_sample(tokenizer, config, sample, task.chat)
            except InfllmError:
                too_long += 1
                continue
            lengths.append(ids.given - ids.truncated)
            truncated += ids.truncated > 0
        seconds: dict[str, float] | None = {}
        for policy in policies:
            if reader_in(policy):  # reads more than once, or some layers of some tokens
                continue
            own = config.with_overrides(session_overrides(policy))
            needs = [estimate_needs(own, length) for length in lengths]
            known = [need.seconds for need in needs if need and need.seconds is not None]
            if len(known) < len(lengths):  # the model's config.json is not here
                seconds = None
                break
            assert seconds is not None
            seconds[policy] = sum(known)
        yield Plan(task.id, len(lengths), bad, too_long, truncated, sum(lengths), seconds)
