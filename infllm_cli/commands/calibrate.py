"""`infllm calibrate`: what distance does to a model's attention, for the reader homer."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from infllm.cli import options as opt
from infllm.cli.errors import InfllmError
from infllm.cli.output import Output
from infllm.cli.progress import Progress
from infllm.cli.tasks.lengths import parse_length
from infllm.cli.text import count, plural, seconds


@opt.spread
def calibrate(
    *,
    model: opt.OneModel,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default=False,
            help="For homer.calibration. [default: the user's cache, found by the model]",
        ),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            "--len",
            metavar="N",
            parser=parse_length,
            show_default=False,
            help="Distances, in tokens. [default: those of homer.chunk]",
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", metavar="N", min=1, help="Texts to take the mean of.")
    ] = 8,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the texts.")] = 0,
    settings: opt.Settings = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    offline: opt.Offline = False,
    streams: opt.StreamFlags,
) -> None:
    """Measure how a model's attention depends on distance, which the reader homer takes off.

    The texts are generated from a built-in one. The table is kept for each model and found again
    by its weights, so that one run serves all that read with it.

    \b
    Examples:
      infllm calibrate pocket
      infllm calibrate model.gguf -o model.safetensors
      infllm ask book.txt "Who inherits?" --reader homer --set homer.calibration=model.safetensors
    """
    from infllm.cli.opening import open_config, open_engine
    from infllm.engine.readers import save_bias

    out = streams.output("calibrate")
    overrides: dict[str, Any] = dict(opt.parse_setting(text) for text in settings or [])
    flags = {"model.device": device, "model.dtype": dtype}
    overrides |= {key: value for key, value in flags.items() if value is not None}
    choice = opt.EngineChoice(model, overrides, offline)
    config = open_config(choice)
    with open_engine(config, choice, out) as engine:
        merging = engine.merging()
        merging.check_layers()
        length = length or merging.longest
        began = time.monotonic()
        with Progress(out, "calibrating", samples * length) as progress:
            bias = merging.calibrate(engine.tokenizer, length, samples, seed, progress.advance)
        path = merging.place if output is None else output.expanduser()
        about = {"model": model, "samples": samples, "seed": seed}
        _save(save_bias, bias, path, about)
    took = time.monotonic() - began
    _tell(out, model, path, tuple(bias.shape), samples, took)


def _save(save: Any, bias: Any, path: Path, about: dict[str, Any]) -> None:
    try:
        save(bias, path, about)
    except OSError as error:
        raise InfllmError(
            f"{path}: {error.strerror or error}", "name another place with -o"
        ) from error


def _tell(
    out: Output, model: str, path: Path, shape: tuple[int, ...], samples: int, took: float
) -> None:
    layers, length = shape
    out.line(str(path))
    out.object(
        {
            "model": model,
            "file": str(path),
            "layers": layers,
            "distances": length,
            "samples": samples,
            "seconds": round(took, 3),
        }
    )
    out.note(
        f"calibrated {plural(layers, 'layer')} at {count(length)} distances from "
        f"{plural(samples, 'text')} in {seconds(took)}"
    )
