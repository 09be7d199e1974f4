"""`infllm ask`: a question about documents of any length."""

from typing import Annotated

import typer

from infllm.cli import options as opt
from infllm.cli.errors import ExitCode, UsageError
from infllm.cli.output import Output

Question = Annotated[
    str | None,
    typer.Argument(metavar="QUESTION", show_default=False, help="The question, in quotes."),
]


def ask(
    sources: opt.Sources = None,
    question: Question = None,
    preset: opt.Preset = None,
    model: opt.Model = None,
    policy: opt.Policy = None,
    settings: opt.Settings = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    password: opt.Password = None,
    max_new_tokens: opt.MaxNewTokens = 256,
    temperature: opt.Temperature = 0.0,
    top_p: opt.TopP = 1.0,
    top_k: opt.TopK = 0,
    repetition_penalty: opt.RepetitionPenalty = 1.0,
    seed: opt.Seed = None,
    stop: opt.Stop = None,
    max_tokens: opt.Budget = None,
    offline: opt.Offline = False,
    dry_run: opt.DryRun = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = 0,
) -> None:
    """Ask a question about documents of any length.

    The answer streams to standard output, all else goes to standard error.

    \b
    Examples:
      infllm ask book.pdf "Who inherits the house?"
      infllm ask src/ docs/ "Where is the retry limit set?"
      cat book.txt | infllm ask - "Who is the narrator?" --json
    """
    out = Output("ask", as_json, quiet, verbose)
    choice = opt.engine_choice(preset, model, policy, settings, device, dtype, offline)
    sources, question = _split(sources, question)
    if dry_run:
        from infllm.cli.commands.inspect import report

        report(out, choice, sources, password, max_tokens)
        return

    from infllm.cli.reading import (
        open_all,
        peak_memory_bytes,
        preset_name,
        read_prompt,
        with_prompt_stops,
    )
    from infllm.cli.tasks.answer import generate_answer
    from infllm.cli.text import seconds, size

    sampling = opt.Sampling(
        max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed, tuple(stop or ())
    )
    collection, engine = open_all(choice, sources, password, out)
    with engine:
        sampling = with_prompt_stops(engine, sampling)
        session = engine.session()
        reading = read_prompt(
            engine, session, collection.text, "ask", {"question": question}, out, max_tokens
        )
        answer = generate_answer(session, engine.tokenizer, sampling, out.write)
        out.line()
        kind = engine.config.model.type
        name = preset_name(engine.config, choice)
        out.object(
            {
                "answer": answer.text,
                "question": question,
                "sources": list(sources),
                "citations": [],
                **reading.fields,
                "tokens_generated": answer.tokens,
                "seconds_answering": round(answer.seconds, 3),
                "finish": answer.finish,
                "preset": name,
                "policy": kind,
                "device": str(engine.device),
                "peak_memory_bytes": peak_memory_bytes(),
            }
        )
    out.note(
        f"{reading.sentence}, answered in {seconds(answer.seconds)}; "
        f"{name}, {kind}, peak memory {size(peak_memory_bytes())}"
    )
    tell_finish(answer.finish, sampling.max_new_tokens, out)


def tell_finish(finish: str, max_new_tokens: int, out: Output) -> None:
    """Say when an answer did not end by itself; Ctrl-C sets the status."""
    if finish == "length":
        out.note(f"the answer was cut at {max_new_tokens} tokens (--max-new-tokens)")
    if finish == "interrupted":
        out.warn("interrupted: the answer above is not complete")
        raise typer.Exit(ExitCode.INTERRUPTED)


def _split(sources: list[str] | None, question: str | None) -> tuple[list[str], str]:
    """Sources and question, checked before anything slow happens."""
    import os

    example = 'for example: infllm ask book.pdf "Who inherits the house?"'
    if not sources and question is None:
        raise UsageError("no source and no question given", example)
    if not sources or question is None:
        raise UsageError("a source and a question are needed; only one of them was given", example)
    question = question.encode("utf-8", "replace").decode().strip()
    if not question:
        raise UsageError("the question is empty", example)
    if os.path.exists(question):
        raise UsageError(
            f"the last argument is the question, and {question!r} is a file or folder",
            "put the question, in quotes, after all sources",
        )
    return list(sources), question
