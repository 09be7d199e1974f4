"""What a benchmark run is to make, and what that needs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from infllm.cli import options as opt
from infllm.cli.bench.sample import BadSample, Sample
from infllm.cli.output import Output
from infllm.cli.progress import Spinner
from infllm.cli.tables import Table
from infllm.cli.tasks.policies import reader_in
from infllm.cli.text import count, plural, seconds

if TYPE_CHECKING:
    from infllm.cli.bench.source import Source
    from infllm.cli.bench.suites import Task
    from infllm.engine.config import Config
    from infllm.engine.text import Tokenizer

CHARACTERS_A_TOKEN = 4  # about, of English


@dataclass(frozen=True)
class Plan:
    """What the command line asks for."""

    config: "Config"
    choice: opt.EngineChoice
    tasks: "list[Task]"
    policies: list[str]
    source: "Source"
    limit: int | None

    @property
    def readers(self) -> list[str]:
        """Those among the ways to answer, without their settings."""
        return list(dict.fromkeys(name for p in self.policies if (name := reader_in(p))))

    def tokenizer(self, out: Output) -> "Tokenizer":
        """That of the model, which is not loaded."""
        from infllm.cli.estimate import load_chat_tokenizer
        from infllm.cli.opening import announce_download, quiet_libraries

        downloading = announce_download(self.config, self.choice, out, "tokenizer")
        quiet_libraries(out, bars=downloading)
        return load_chat_tokenizer(self.config)

    def sources(self, tokenizer: "Tokenizer") -> "dict[bool, Source]":
        from infllm.cli.bench.prompts import fitted_sources

        return fitted_sources(self.source, tokenizer, self.config)


def show_prompts(out: Output, plan: Plan, number: int) -> None:
    from infllm.cli.bench.preview import prompt_text

    tokenizer = plan.tokenizer(out)
    sources = plan.sources(tokenizer)
    shown = []
    for task in plan.tasks:
        texts = prompt_text(tokenizer, plan.config, task, sources[task.chat], plan.limit, number)
        for turn, text in enumerate(texts, 1):
            of = f", question {turn} of {len(texts)}" if len(texts) > 1 else ""
            out.note(f"{task.id}, sample {number}{of}:")
            out.line(text)
        shown.append({"task": task.id, "prompts": texts})
    out.object({"sample": number, "prompts": shown})


def tell_needs(out: Output, plan: Plan) -> None:
    from infllm.cli.bench.preview import plan as plan_tasks

    tokenizer = plan.tokenizer(out)
    sources = plan.sources(tokenizer)
    plans = []
    with Spinner(out, "counting tokens") as spinner:
        told = plan_tasks(tokenizer, plan.config, plan.tasks, sources, plan.limit, plan.policies)
        for one in told:
            spinner.update(f"counting tokens: {one.task}")
            plans.append(one)
    table = Table(["task", "samples", "tokens", *plan.policies])
    for one in plans:
        known = one.seconds or {}
        times = [seconds(known[p]) if p in known else "-" for p in plan.policies]
        table.rows.append([one.task, count(one.samples), count(one.tokens), *times])
    table.show(out)
    out.object({"plans": [asdict(one) for one in plans]})
    for one in plans:
        for number, what in (
            (one.bad, "cannot be made of the data"),
            (one.too_long, "longer than max_len and no truncation is set: they would fail"),
            (one.truncated, "will be truncated as configured"),
        ):
            if number:
                out.warn(f"{one.task}: {plural(number, 'sample')} {what}")
    tokens = sum(one.tokens for one in plans) * len(plan.policies)
    took = [sum(one.seconds.values()) for one in plans if one.seconds]
    about = f", about {seconds(sum(took))}" if len(took) == len(plans) else ""
    out.note(f"{count(tokens)} tokens to read under {plural(len(plan.policies), 'policy')}{about}")


def expected_tokens(out: Output, plan: Plan, sources: "Mapping[bool, Source]") -> int:
    """About how many tokens all policies read: of generated tasks their lengths, of data its
    characters. Counted only where someone watches."""
    if not (out.live or out.verbose):
        return 0
    total = 0
    for task in plan.tasks:
        if task.generator is not None:
            samples = min(plan.source.count, plan.limit or plan.source.count)
            total += samples * sum(plan.source.lengths)
        else:
            total += sum(map(weight, task.samples(sources[task.chat], plan.limit)))
    return total * len(plan.policies)


def weight(sample: "Sample | BadSample") -> int:
    """About how many tokens a sample has."""
    if isinstance(sample, BadSample):
        return 0
    return int(sample.meta.get("length") or len(sample.context) // CHARACTERS_A_TOKEN)
