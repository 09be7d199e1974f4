"""`infllm bench run`: tasks through memory policies, into a folder of results."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infllm.cli import options as opt
from infllm.cli.bench.plan import Plan, expected_tokens, show_prompts, tell_needs, weight
from infllm.cli.bench.sample import BadSample, Sample
from infllm.cli.errors import ExitCode, Interrupted, UsageError
from infllm.cli.output import Output
from infllm.cli.progress import Progress, Spinner
from infllm.cli.tasks.lengths import parse_length
from infllm.cli.text import count, plural, seconds

if TYPE_CHECKING:
    from infllm.cli.bench.examine import Outcome
    from infllm.cli.bench.results import ResultFolder
    from infllm.cli.bench.run import Examines, Run
    from infllm.cli.bench.source import Source
    from infllm.engine.text import Tokenizer

FAILURES_SHOWN = 10


@opt.spread
def run(
    *,
    specs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SUITE[:TASK,...]", show_default=False, help="See `infllm bench list`."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where the results go."),
    ] = None,
    policy: opt.Ways = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Where the suites' data lies."),
    ] = None,
    lengths: Annotated[
        str,
        typer.Option("--len", metavar="N,...", help="Lengths of generated samples: 4K, 1M, ..."),
    ] = "4K",
    samples: Annotated[
        int,
        typer.Option("--samples", metavar="N", min=1, help="Generated samples of each length."),
    ] = 10,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="At most so many samples a task."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of generated samples.")] = 0,
    haystack: Annotated[
        Path | None,
        typer.Option("--haystack", metavar="PATH", help="Text that generated tasks hide facts in."),
    ] = None,
    qa: Annotated[
        Path | None,
        typer.Option("--qa", metavar="FILE", help="Questions, in SQuAD's or HotpotQA's format."),
    ] = None,
    official: Annotated[
        bool,
        typer.Option(
            "--official-scoring", help="Score as the suites' own scorers do, defects included."
        ),
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw the results in DIR away and begin anew.")
    ] = False,
    workers: Annotated[
        int,
        typer.Option("--workers", metavar="N", min=1, help="Engines at work at once (needs Ray)."),
    ] = 1,
    show_prompt: Annotated[
        int | None,
        typer.Option(
            "--show-prompt", metavar="N", min=1, help="Print each task's Nth prompt and stop."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be read and how long it takes.")
    ] = False,
    flags: opt.ModelFlags,
    streams: opt.StreamFlags,
) -> None:
    """Run benchmarks: each sample under each policy, scored as it finishes.

    Every result is on the disk before the next sample: the same command goes on where it was
    stopped, tries failed samples again, and takes further tasks, policies and lengths into the
    same folder. Answers are greedy, from the memory alone; the policy inf-llm+read-back
    answers as `ask --read-back` does, from passages that are read again, and the readers
    infiniretri and homer read a sample anew for each of its questions.

    \b
    Examples:
      infllm bench run ruler:niah_single_1,vt --len 4K,16K --policy inf-llm,stream-lm -o results
      infllm bench run longbench:qasper --data longbench/ --limit 50 -o results
      infllm bench run ruler:niah_single_2 --policy inf-llm,inf-llm+read-back,homer -o results
    """
    from infllm.cli.bench.preview import check_files
    from infllm.cli.bench.source import Source
    from infllm.cli.bench.suites import find_tasks
    from infllm.cli.bench.workers import check_workers
    from infllm.cli.opening import open_config
    from infllm.cli.tasks.policies import parse_policies

    out = streams.output("bench run")
    if not specs:
        raise UsageError("no suite was named", "see: infllm bench list")
    tasks = find_tasks(*specs)
    wanted = list(dict.fromkeys(parse_length(part) for part in opt.split_list(lengths)))
    if not wanted:
        raise UsageError("--len names no length", "write for example --len 4K,64K")
    choice = flags.choice()
    config = open_config(choice)
    policies = parse_policies(policy, config, asked=True)
    source = Source(data=data, lengths=wanted, count=samples, seed=seed, haystack=haystack, qa=qa)
    plan = Plan(config, choice, tasks, policies, source, limit)
    check_files(tasks, source)
    if show_prompt is not None:
        show_prompts(out, plan, show_prompt)
        return
    if dry_run:
        tell_needs(out, plan)
        return
    if output is None:
        raise UsageError("no folder for the results was named", "give one with --output DIR")
    check_workers(workers, config.model.device)
    _run(out, plan, output, official, workers, restart)


def _run(
    out: Output, plan: Plan, output: Path, official: bool, workers: int, restart: bool
) -> None:
    from infllm.cli.bench.preview import check_lengths
    from infllm.cli.bench.results import ResultFolder, disk_error
    from infllm.cli.bench.run import Run

    with ResultFolder(output) as folder, ExitStack() as stack:
        meter = Progress(out, "bench", 0)
        examiner, tokenizer, description = _examiner(
            stack, out, plan, official, workers, meter.advance
        )
        sources = plan.sources(tokenizer)
        check_lengths(plan.tasks, sources)
        if restart:
            folder.clear()
        _write_manifest(out, plan, folder, description, sources, official)
        meter.total = expected_tokens(out, plan, sources)

        def found(sample: "Sample | BadSample", kept: int) -> None:
            meter.skip(kept * weight(sample))

        run = Run(plan.tasks, plan.policies, sources, plan.limit, folder, found)
        began = time.monotonic()
        tokens = 0
        try:
            with meter:
                for outcome in run.go(examiner):
                    tokens += outcome.tokens
                    meter.rename(f"{outcome.task.id} {outcome.policy}")
                    if workers > 1:
                        meter.advance(outcome.tokens)
                    out.detail(_sentence(outcome))
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(
                f"interrupted with {plural(run.made + run.kept, 'result')} in {output}",
                "the same command goes on with the rest",
            ) from None
        except OSError as error:
            raise disk_error(error, output) from error
        took = time.monotonic() - began
    _tell(out, plan, output, run, tokens, took)


def _examiner(
    stack: ExitStack,
    out: Output,
    plan: Plan,
    official: bool,
    workers: int,
    told: Callable[[int], None],
) -> "tuple[Examines, Tokenizer, dict[str, Any]]":
    """Who examines the samples, the tokenizer to make them with, and what answers depend on."""
    if workers > 1:
        from infllm.cli.bench.workers import WorkerPool

        tokenizer = plan.tokenizer(out)
        with Spinner(out, f"starting {workers} workers"):
            pool = stack.enter_context(
                WorkerPool(workers, plan.config, plan.choice, official, plan.readers)
            )
        return pool, tokenizer, pool.description
    from infllm.cli.bench.examine import Examiner
    from infllm.cli.bench.manifest import describe_engine
    from infllm.cli.opening import open_engine
    from infllm.cli.readers.table import describe_reader, prepare_reader
    from infllm.cli.tasks.policies import reader_in, reader_overrides

    engine = stack.enter_context(open_engine(plan.config, plan.choice, out))
    for policy in plan.policies:
        if reader := reader_in(policy):
            own = engine.config.with_overrides(reader_overrides(policy))
            prepare_reader(reader, engine, own, out)
    readers = {name: describe_reader(name, engine) for name in plan.readers}
    description = {**describe_engine(engine), "readers": readers}
    return Examiner(engine, official, told), engine.tokenizer, description


def _write_manifest(
    out: Output,
    plan: Plan,
    folder: "ResultFolder",
    description: dict[str, Any],
    sources: "Mapping[bool, Source]",
    official: bool,
) -> None:
    """Say beside the results what they depend on; refuse to mix them with others."""
    from infllm.cli.bench.manifest import describe_task, make_manifest, merge_manifest
    from infllm.cli.bench.suites import data_files
    from infllm.cli.opening import preset_name

    with Spinner(out, "hashing the data"):
        tasks = {
            task.id: describe_task(task, data_files(task, sources[task.chat]))
            for task in plan.tasks
        }
    name = preset_name(plan.config, plan.choice)
    readers = description.pop("readers")
    manifest = make_manifest(name, description, plan.source.seed, official, tasks, readers)
    earlier = folder.manifest
    if earlier is not None:
        manifest = merge_manifest(folder.path, earlier, manifest)
    folder.write_manifest(manifest)


def _sentence(outcome: "Outcome") -> str:
    record = outcome.record
    start = f"{outcome.task.id}, {outcome.policy}, sample {record['id']}"
    if outcome.failed:
        return f"{start}: failed: {record['failed']}"
    mean = sum(record["scores"]) / len(record["scores"])
    took = outcome.timing["seconds_reading"] + outcome.timing["seconds_answering"]
    return f"{start}: {100 * mean:.1f}, {count(outcome.tokens)} tokens in {seconds(took)}"


def _tell(out: Output, plan: Plan, output: Path, run: "Run", tokens: int, took: float) -> None:
    """The scores on stdout; failures, and how it went, on stderr. Exits unless all went well."""
    from infllm.cli.bench.render import as_fields, score_table
    from infllm.cli.bench.report import load_report

    report = load_report([output], [task.id for task in plan.tasks], plan.policies)
    if report.tasks:
        score_table(report).show(out)
    out.object(
        {
            "output": str(output),
            "made": run.made,
            "kept": run.kept,
            "tokens_read": tokens,
            "seconds": round(took, 3),
            **as_fields(report, None, []),
        }
    )
    failures = run.failures
    shown = failures if out.verbose else failures[:FAILURES_SHOWN]
    for failure in shown:
        out.warn(f"failed: {failure.sentence}")
    if len(failures) > len(shown):
        out.warn(f"{plural(len(failures) - len(shown), 'more failure')} (-v shows all)")
    before = f", {count(run.kept)} were there before" if run.kept else ""
    out.note(
        f"{plural(run.made, 'result')} made{before}; read {count(tokens)} tokens in "
        f"{seconds(took)}; infllm bench report {output}"
    )
    if failures:
        out.warn(f"{plural(len(failures), 'sample')} failed; the same command tries them again")
        bad = all(failure.bad for failure in failures)
        raise typer.Exit(ExitCode.UNREADABLE if bad else ExitCode.RUNTIME)
