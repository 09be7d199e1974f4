"""`infllm passkey`: is a number hidden in a long text found again?"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from infllm.cli import options as opt
from infllm.cli.errors import Interrupted, UsageError, exit_code
from infllm.cli.tables import Table
from infllm.cli.tasks.lengths import length_name, parse_depths, parse_length
from infllm.engine.errors import EngineError

if TYPE_CHECKING:
    from infllm.cli.tasks.passkey import Score, Trial


@opt.spread
def passkey(
    *,
    lengths: Annotated[
        str, typer.Option("--len", metavar="N,...", help="Prompt lengths: 4096, 32K, 1M, ...")
    ] = "32K",
    depth: Annotated[
        str | None,
        typer.Option(
            "--depth", metavar="P,...", help="Places of the key in %. [default: spread evenly]"
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials",
            metavar="N",
            min=1,
            help="Trials per length. [default: 1, or one per depth]",
        ),
    ] = None,
    policy: opt.Policies = None,
    digits: Annotated[
        int, typer.Option("--digits", metavar="N", min=1, max=18, help="Digits of the key.")
    ] = 5,
    filler: Annotated[
        str,
        typer.Option("--filler", metavar="FILE", help="`classic`, or a text file to hide it in."),
    ] = "classic",
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the keys.")] = 0,
    plot: opt.Plot = None,
    flags: opt.ModelFlags,
    streams: opt.StreamFlags,
) -> None:
    """Hide a pass key in a long text and ask for it.

    A length counts the whole prompt: instructions, filler, key and question. K is 1,024 tokens.

    \b
    Examples:
      infllm passkey --len 1M
      infllm passkey --len 4K,16K,64K --trials 10 --policy inf-llm,stream-lm,origin --plot out.png
    """
    from infllm.cli.opening import open_config, open_engine, preset_name
    from infllm.cli.plots import check_plot, draw_needles
    from infllm.cli.progress import Progress, peak_memory_bytes
    from infllm.cli.tasks.passkey import FILLER, Haystack, plan_cases, run_passkey, score
    from infllm.cli.tasks.policies import parse_policies
    from infllm.cli.text import size

    out = streams.output("passkey")
    check_plot(plot)
    wanted = list(dict.fromkeys(parse_length(part) for part in opt.split_list(lengths)))
    if not wanted:
        raise UsageError("--len names no length", "write for example --len 32K,1M")
    depths = parse_depths(depth) if depth is not None else []
    count = trials or max(1, len(depths))
    choice = flags.choice()
    config = open_config(choice)
    name = preset_name(config, choice)
    policies = parse_policies(policy, config)
    text = FILLER if filler == "classic" else _filler_text(filler)
    cases = plan_cases(wanted, depths, count, digits, seed)
    done: list[Trial] = []
    stopped: Exception | None = None

    with open_engine(config, choice, out) as engine:
        haystack = Haystack(engine.tokenizer, text)
        total = sum(case.length for case in cases) * len(policies)
        with Progress(out, "passkey", total) as progress:
            try:
                for trial in run_passkey(engine, cases, policies, haystack, progress):
                    done.append(trial)
                    out.detail(_sentence(trial))
            except (Interrupted, KeyboardInterrupt):
                stopped = Interrupted(
                    f"interrupted after {len(done)} of {len(cases) * len(policies)} trials",
                    "fewer or shorter trials take less time",
                )
            except EngineError as error:  # such as: a policy ran out of memory at this length
                stopped = error
        device_name = str(engine.device)
    if stopped and not done:
        raise stopped

    scores = score(done)
    first = next(iter(scores.values()))
    if not out.as_json:
        _table(scores, [n for n in wanted if n in first.by_length]).show(out)
    if plot is not None:
        draw_needles(plot, done, f"pass key, {name}")
    out.object(
        {
            "accuracy": first.accuracy,
            "policy": policies[0],
            "by_policy": {
                policy_name: {
                    **asdict(result),
                    "by_length": {str(n): share for n, share in result.by_length.items()},
                }
                for policy_name, result in scores.items()
            },
            "trials": [asdict(trial) for trial in done],
            "digits": digits,
            "filler": filler,
            "seed": seed,
            "preset": name,
            "device": device_name,
            "complete": stopped is None,
            "peak_memory_bytes": peak_memory_bytes(),
            **({"plot": plot} if plot is not None else {}),
        }
    )
    if plot is not None:
        out.note(f"drew {plot}")
    exact = ", ".join(f"{length_name(n)} = {n:,} tokens" for n in wanted)
    seconds_total = sum(trial.seconds for trial in done)
    tokens_total = sum(trial.tokens for trial in done)
    out.note(
        f"{exact}; read {tokens_total:,} tokens in {seconds_total:,.1f} s "
        f"({tokens_total / max(seconds_total, 1e-9):,.0f} tok/s), "
        f"peak memory {size(peak_memory_bytes())}"
    )
    if stopped:
        out.warn(f"{stopped}; the results above are of the trials that were done")
        raise typer.Exit(exit_code(stopped))


def _sentence(trial: "Trial") -> str:
    verdict = "right" if trial.correct else f"wrong, got {trial.got!r}"
    return (
        f"{trial.policy} {trial.length:,} tokens at {trial.depth:g}%: expected {trial.expected}, "
        f"{verdict}, {trial.seconds:.1f} s"
    )


def _table(scores: dict[str, "Score"], lengths: list[int]) -> Table:
    """One row per policy: share of right answers at each length and over all."""
    table = Table(["policy", *(length_name(n) for n in lengths), "all", "right"])
    for name, result in scores.items():
        shares = [f"{result.by_length[n]:.0%}" if n in result.by_length else "-" for n in lengths]
        counts = f"{result.correct}/{result.trials}"
        table.rows.append([name, *shares, f"{result.accuracy:.0%}", counts])
    return table


def _filler_text(path: str) -> str:
    """The text of a filler file, read as any document is."""
    from infllm.cli.documents import read_sources

    return read_sources([path]).text
