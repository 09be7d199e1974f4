"""`infllm bench speed`: how fast this machine reads and answers."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infllm.cli import options as opt
from infllm.cli.errors import Interrupted, UsageError, exit_code
from infllm.cli.tables import Table
from infllm.cli.tasks.lengths import length_name, parse_length
from infllm.engine.errors import EngineError

if TYPE_CHECKING:
    from infllm.cli.tasks.speed import Speed


@opt.spread
def speed(
    *,
    lengths: Annotated[
        str, typer.Option("--len", metavar="N,...", help="Tokens to read: 4096, 32K, 1M, ...")
    ] = "4K,16K,64K",
    policy: opt.Policies = None,
    decode: Annotated[
        int,
        typer.Option("--decode", metavar="N", min=0, help="Decode steps to time at each length."),
    ] = 16,
    minutes: Annotated[
        float,
        typer.Option(
            "--minutes", metavar="T", min=0.01, help="Stop reading then, with what was measured."
        ),
    ] = 5.0,
    flags: opt.ModelFlags,
    streams: opt.StreamFlags,
) -> None:
    """Measure how fast this machine reads and answers, and the memory that it takes.

    Random tokens are read once per policy; a row is told at each length. A length is rounded down
    to whole chunks. `of floor` compares with the least time that the operations of reading take at
    the speed of a large matrix product, measured beforehand. K is 1,024 tokens.

    \b
    Examples:
      infllm bench speed
      infllm bench speed --len 32K,128K,1M --policy inf-llm,stream-lm --preset llama-3.1-8b-instruct
    """
    from infllm.cli.opening import open_config, open_engine, preset_name
    from infllm.cli.progress import Progress
    from infllm.cli.tasks.policies import parse_policies, session_overrides
    from infllm.cli.tasks.speed import measure, measure_ceilings
    from infllm.cli.text import size

    out = streams.output("bench speed")
    wanted = sorted({parse_length(part) for part in opt.split_list(lengths)})
    if not wanted:
        raise UsageError("--len names no length", "write for example --len 4K,32K")
    choice = flags.choice()
    config = open_config(choice)
    name = preset_name(config, choice)
    policies = parse_policies(policy, config)
    rows: list[tuple[str, Speed]] = []
    stopped: Exception | None = None
    deadline = time.monotonic() + 60 * minutes

    with open_engine(config, choice, out) as engine:
        ceilings = measure_ceilings(engine.device, engine.dtype)
        out.detail(
            f"a large matrix product reaches {ceilings.matmul / 1e12:.3g} TFLOP/s, "
            f"a large copy {ceilings.copy / 1e9:.3g} GB/s"
        )
        with Progress(out, "bench speed", max(wanted) * len(policies)) as progress:
            try:
                for policy_name in policies:
                    progress.rename(policy_name)
                    for row in measure(
                        engine,
                        session_overrides(policy_name),
                        wanted,
                        decode_steps=decode,
                        deadline=deadline,
                        ceilings=ceilings,
                        advance=progress.advance,
                    ):
                        rows.append((policy_name, row))
            except KeyboardInterrupt:
                stopped = Interrupted(
                    "interrupted", "fewer or shorter lengths take less time (--len)"
                )
            except EngineError as error:  # such as: a policy ran out of memory at this length
                stopped = error
        device, dtype = str(engine.device), str(engine.dtype).removeprefix("torch.")
    if not rows:
        raise stopped or UsageError(
            f"--minutes {minutes:g} ended before anything was read", "give more minutes"
        )

    unfinished = _unfinished(rows, policies)
    _table(rows).show(out)
    out.object(
        {
            "rows": [{"policy": policy_name, **_fields(row)} for policy_name, row in rows],
            "ceilings": asdict(ceilings),
            "preset": name,
            "device": device,
            "dtype": dtype,
            "decode_steps": decode,
            "complete": not unfinished,
        }
    )
    out.note(
        f"{name} in {dtype} on {device}: a large matrix product reaches "
        f"{ceilings.matmul / 1e12:.3g} TFLOP/s; memory is the peak above the loaded model"
    )
    most = max(row.peak_bytes for _, row in rows)
    out.note(f"peak memory {size(most)} in all")
    if unfinished and not stopped:
        out.warn(f"--minutes {minutes:g} ended before all lengths were read: {unfinished}")
    if stopped:
        out.warn(f"{stopped}; the results above are what was measured")
        raise typer.Exit(exit_code(stopped))


def _unfinished(rows: "list[tuple[str, Speed]]", policies: list[str]) -> str:
    """Policies that did not reach the longest length, as a list in words."""
    longest = max(row.wanted for _, row in rows)
    reached = {name for name, row in rows if row.complete and row.tokens == longest}
    return ", ".join(name for name in policies if name not in reached)


def _fields(row: "Speed") -> dict[str, Any]:
    fields = asdict(row)
    if row.floors is not None:
        fields["floors"]["prefill"] = row.floors.prefill
    return {**fields, "complete": row.complete}


def _table(rows: "list[tuple[str, Speed]]") -> Table:
    from infllm.cli.text import size

    table = Table(["policy", "tokens", "read tok/s", "of floor", "decode tok/s", "memory"])
    for policy_name, row in rows:
        share = "-" if row.floors is None else f"{row.floors.prefill / row.seconds:.0%}"
        rate = row.decode_tokens_per_second
        length = length_name(row.tokens)
        table.rows.append(
            [
                policy_name,
                length if row.complete else f"{length} of {length_name(row.wanted)}",
                f"{row.tokens_per_second:,.0f}",
                share,
                "-" if rate is None else f"{rate:,.1f}",
                size(row.peak_bytes_above_model),
            ]
        )
    return table
