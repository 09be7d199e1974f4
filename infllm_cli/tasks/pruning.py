"""A smaller model made of one that is there: loaded, pruned, brought back by training, saved."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infllm.cli.errors import MissingExtra, UsageError
from infllm.cli.opening import announce_download, open_config, quiet_libraries
from infllm.cli.options import DocumentFlags, EngineChoice
from infllm.cli.output import Output
from infllm.cli.progress import Spinner, available_memory_bytes
from infllm.cli.sources import read_documents
from infllm.cli.text import count, seconds, size
from infllm.cli.unpacking import unpack_model

if TYPE_CHECKING:
    from infllm.engine.config import Config
    from infllm.engine.prune import PruneSettings, Recovery, Removal, Shape


@dataclass(frozen=True)
class Plan:
    """What the command line asks for; see `PruneSettings`. Layers are as they were written."""

    ratio: float
    criterion: str
    aggregation: str | None
    group: str
    attention_layers: str
    mlp_layers: str
    everywhere: bool
    steps: int
    official: bool
    seed: int
    calibrate: Sequence[str]
    examples: int
    length: int
    export: str
    recover: Sequence[str]
    minutes: float


@dataclass
class Size:
    """Of a model: weights, bytes of them and of keys and values of a token on disk's dtype."""

    parameters: int
    weight_bytes: int
    kv_bytes: int
    shape: "Shape"
    loss: float | None = None  # nats a token of the calibration text

    @property
    def heads(self) -> str:
        return _span(kv for _, kv in self.shape.heads)

    @property
    def channels(self) -> str:
        return _span(self.shape.channels)

    @property
    def fields(self) -> dict[str, Any]:
        return {
            "parameters": self.parameters,
            "weight_bytes": self.weight_bytes,
            "kv_bytes_per_token": self.kv_bytes,
            **self.shape.as_json(),
            "calibration_nll": self.loss,
        }


@dataclass
class Outcome:
    """What was made."""

    before: Size
    after: Size
    removal: "Removal"
    recovery: "Recovery | None"
    stock: bool  # whether stock transformers loads it
    card: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Name, before, after."""
        a, b = self.before, self.after
        yield "parameters", f"{a.parameters:,}", f"{b.parameters:,}"
        yield "weights", size(a.weight_bytes), size(b.weight_bytes)
        yield "KV bytes a token", f"{a.kv_bytes:,}", f"{b.kv_bytes:,}"
        yield "KV heads a layer", a.heads, b.heads
        yield "MLP channels", a.channels, b.channels
        if a.loss is not None and b.loss is not None:
            yield "nll of the text", f"{a.loss:.3f}", f"{b.loss:.3f}"
        if self.recovery is not None:
            r = self.recovery
            yield "nll held out, recovery", f"{r.before:.3f}", f"{r.after:.3f}"

    @property
    def fields(self) -> dict[str, Any]:
        return {"loads_in_transformers": self.stock, **self.card}

    @property
    def sentences(self) -> Iterator[str]:
        yield from self.notes
        if not self.stock:
            yield (
                "its layers differ: infllm loads it by --model; for others, make one with "
                "--layers all or --export padded"
            )


def make_smaller(choice: EngineChoice, plan: Plan, folder: Path, out: Output) -> Outcome:
    """Prune the model of `choice` as `plan` says into a new folder.

    What fails fast comes first: the folder, the texts, then the model.

    Raises:
        UsageError, MissingExtra, infllm.engine.errors.EngineError.
    """
    from infllm.engine.config import read_model_config
    from infllm.engine.prune import check_place

    folder = folder.expanduser()
    check_place(folder)
    _check(plan)
    config = open_config(choice)
    texts = [_text(sources, out) for sources in (plan.calibrate, plan.recover)]
    downloading = announce_download(config, choice, out)
    quiet_libraries(out, bars=downloading)
    unpack_model(config, out)
    _check_memory(config, plan)
    with Spinner(out, "loading the model"):
        from infllm.engine.attachment import load_parts
        from infllm.engine.prune import stored_dtype
        from infllm.engine.sources import local_folder, local_tokenizer

        model, tokenizer = load_parts(config.model)
        of_tokenizer = local_tokenizer(config.model.tokenizer_path or config.model.path)
    path = local_folder(config.model.path)
    dtype = stored_dtype(path, read_model_config(path) or {})
    settings = _settings(plan, model.config.num_hidden_layers)
    name = choice.source or config.model.path
    job = _Job(model, tokenizer, settings, plan, of_tokenizer, dtype, name)
    return _make(job, texts, folder, out)


@dataclass
class _Job:
    model: Any
    tokenizer: Any
    settings: "PruneSettings"
    plan: Plan
    tokenizer_path: str  # its folder, or hub id
    dtype: Any  # of the weights on disk
    name: str


def _make(job: _Job, texts: list[str | None], folder: Path, out: Output) -> Outcome:
    import torch

    from infllm.engine.prune import pad, prune, recover, save_model

    sequences = None
    if job.settings.needs_text:
        sequences = _sequences(job, texts[0])
    model = job.model
    before = _size_of(model, job.dtype)
    with Spinner(out, "measuring what matters"):
        removal = prune(model, job.settings, sequences)
    before.loss = removal.losses[0] if removal.losses else None
    recovery = None
    if texts[1] is not None:
        ids = torch.tensor(job.tokenizer.encode(texts[1]))
        with Spinner(out, "recovering") as spinner:
            model, recovery = recover(
                model, ids, job.plan.minutes, seed=job.plan.seed, told=_teller(spinner.update)
            )
    if job.plan.export == "padded":
        pad(model)
    after = _size_of(model, job.dtype)
    if sequences is not None:
        after.loss = _loss(model, sequences)
    card = _card(job, before, after, removal, recovery)
    local = Path(job.tokenizer_path)
    stock = save_model(
        model, folder, card, source=local if local.is_dir() else None,
        tokenizer=None if local.is_dir() else job.tokenizer.hf, dtype=job.dtype,
    )  # fmt: skip
    outcome = Outcome(before, after, removal, recovery, stock, card)
    outcome.notes = list(_notes(job, removal, recovery, after))
    return outcome


def _check(plan: Plan) -> None:
    if not 0 <= plan.ratio < 1:
        raise UsageError(
            f"--ratio {plan.ratio:g} is not a share", "from 0 to below 1: 0.25 removes a quarter"
        )
    if plan.recover and not plan.minutes > 0:
        raise UsageError(f"--minutes {plan.minutes:g} is no time", "give more than 0")
    if plan.recover and find_spec("peft") is None:
        raise MissingExtra("--recover needs peft", "pip install 'infllm[recover]'")
    if plan.group == "hidden" and plan.export == "padded":
        raise UsageError(
            "--export padded cannot pad the residual stream: its norms would divide by more",
            "leave it out: with --group hidden all layers stay alike",
        )


def _check_memory(config: "Config", plan: Plan) -> None:
    """Raises OutOfMemory where weights in float32, and gradients of them, would not fit the host.

    Nothing is known of a model that is still to be downloaded.
    """
    from infllm.cli.estimate import layer_shapes
    from infllm.cli.work import parameters
    from infllm.engine.config import device_name, read_model_config
    from infllm.engine.errors import OutOfMemory

    spec = read_model_config(config.model.path)
    free = available_memory_bytes()
    if spec is None or free is None or device_name(config.model.device) != "cpu":
        return
    try:
        stored = parameters(spec, layer_shapes(spec, "cpu", 4)).stored
    except (KeyError, TypeError, ZeroDivisionError):  # of another form than a decoder's
        return
    copies = {"l1": 1, "l2": 1, "random": 1, "element2": 3, "second": 3}.get(plan.criterion, 2)
    need = 4 * stored * copies
    if need > free:
        raise OutOfMemory(
            f"pruning by {plan.criterion} takes about {size(need)} of memory, and {size(free)} are "
            "free",
            "--criterion l2 takes no gradients, and the least memory" if copies > 1 else "",
        )


def _text(sources: Sequence[str], out: Output) -> str | None:
    """The text of all sources; None where none are named."""
    if not sources:
        return None
    collection = read_documents(sources, DocumentFlags(), out)
    return "\n\n".join(document.text for document in collection.documents)


def _settings(plan: Plan, n_layers: int) -> "PruneSettings":
    from infllm.engine.prune import PruneSettings

    return PruneSettings(
        ratio=plan.ratio,
        criterion=plan.criterion,  # type: ignore[arg-type]
        aggregation=plan.aggregation,  # type: ignore[arg-type]
        group=plan.group,  # type: ignore[arg-type]
        attention_layers=parse_layers(plan.attention_layers, n_layers),
        mlp_layers=parse_layers(plan.mlp_layers, n_layers),
        everywhere=plan.everywhere,
        steps=plan.steps,
        official=plan.official,
        seed=plan.seed,
    )


def parse_layers(text: str, n_layers: int) -> list[int] | None:
    """`4-29` or `0,2,5-9` as layers of a model of `n_layers`; `all`, `none`; `spared` as None.

    Raises:
        UsageError: of another form, or not there.
    """
    word = text.strip().lower()
    if word == "spared":
        return None
    if word in ("all", "none"):
        return list(range(n_layers)) if word == "all" else []
    found: set[int] = set()
    for part in word.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        first = int(match[1]) if match else -1
        last = int(match[2]) if match and match[2] else first
        if not 0 <= first <= last < n_layers:
            raise UsageError(
                f"layers {text!r} are not some of 0 to {n_layers - 1}",
                "write for example 4-29, 0,2,5-9, all, none or spared",
            )
        found.update(range(first, last + 1))
    return sorted(found)


def _sequences(job: _Job, text: str | None) -> Any:
    from infllm.engine.prune import BUILTIN_TEXT, calibration_sequences

    ids = job.tokenizer.encode(BUILTIN_TEXT if text is None else text)
    return calibration_sequences(ids, job.plan.examples, job.plan.length)


def _size_of(model: Any, dtype: Any) -> Size:
    from infllm.engine.prune import count_parameters, shape_of

    shape, itemsize = shape_of(model), dtype.itemsize
    parameters = count_parameters(model)
    width = model.model.layers[0].self_attn.head_dim
    kv = sum(2 * kv * width * itemsize for _, kv in shape.heads)
    return Size(parameters, parameters * itemsize, kv, shape)


def _loss(model: Any, sequences: Any) -> float:
    import torch
    from torch.nn.functional import cross_entropy

    losses = []
    with torch.no_grad():
        for sequence in sequences.to(next(model.parameters()).device):
            logits = model(input_ids=sequence[None], use_cache=False).logits[0].float()
            losses.append(float(cross_entropy(logits[:-1], sequence[1:])))
    return sum(losses) / len(losses)


def _card(
    job: _Job, before: Size, after: Size, removal: "Removal", recovery: "Recovery | None"
) -> dict[str, Any]:
    from infllm.engine.prune import spared

    settings, plan = job.settings, job.plan
    n = job.model.config.num_hidden_layers
    default = spared(n)
    chosen = {
        "attention_layers": settings.attention_layers, "mlp_layers": settings.mlp_layers,
    }  # fmt: skip
    layers = {key: default if value is None else list(value) for key, value in chosen.items()}
    return {
        "method": "LLM-Pruner, arXiv 2305.11627",
        "made_from": os.path.basename(job.name) if os.path.exists(job.name) else job.name,
        "settings": {
            "ratio": settings.ratio, "criterion": settings.criterion,
            "aggregation": settings.aggregates_by, "group": settings.group,
            **(layers if settings.group == "blocks" else {}),
            "selection": "global" if settings.everywhere else "local", "steps": settings.steps,
            "official": settings.official, "seed": settings.seed, "examples": plan.examples,
            "length": plan.length, "export": plan.export,
            "text": [os.path.basename(source) for source in plan.calibrate] or "built in",
        },
        "before": before.fields,
        "after": after.fields,
        "removed": {name: units for name, units in removal.removed.items() if units},
        "recovery": None if recovery is None else vars(recovery),
    }  # fmt: skip


def _notes(
    job: _Job, removal: "Removal", recovery: "Recovery | None", after: Size
) -> Iterator[str]:
    of_heads = [units for name, units in removal.removed.items() if name.startswith("attention")]
    if job.settings.ratio and of_heads and not any(of_heads):
        n = max(kv for _, kv in after.shape.heads)
        yield (
            f"no head was removed: {job.settings.ratio:.0%} of {n} KV heads is less than one"
            if not job.settings.everywhere
            else "no head was removed: sums over heads are far larger than channels"
        )
    if job.settings.official and all(q == kv for q, kv in after.shape.heads):
        yield "--official changes nothing: no heads are grouped"
    if recovery is not None:
        yield (
            f"recovery: {count(recovery.steps)} steps, {count(recovery.tokens)} tokens in "
            f"{seconds(recovery.seconds)}; "
            + ("merged" if recovery.kept else "it did not help and was thrown away")
        )


def _teller(update: Callable[[str], None]) -> Callable[[int, float], None]:
    return lambda steps, loss: update(f"recovering: step {steps}, loss {loss:.3f}")


def _span(counts: Any) -> str:
    every = sorted(set(counts))
    return f"{every[0]:,}" if len(every) == 1 else f"{every[0]:,} to {every[-1]:,}"
