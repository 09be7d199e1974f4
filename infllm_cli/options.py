"""Options that several commands share."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from infllm.cli.errors import UsageError
from infllm.cli.tasks.lengths import parse_length

if TYPE_CHECKING:
    from infllm.cli.output import Output

Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="Files, folders, globs, or - for standard input.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        "-p",
        metavar="NAME",
        help="Preset name or YAML file; see `infllm presets`. [default: pocket]",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PATH",
        help="GGUF file, folder, hub id, ollama:NAME, lmstudio:NAME or hf:ORG/REPO:FILE.gguf.",
    ),
]
Policy = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="NAME",
        help="inf-llm, infinitehip, infinite-lm, sirllm, stream-lm, window or origin.",
    ),
]
Policies = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="A,B,...",
        help="One or several policies; with settings: inf-llm:topk=8.",
    ),
]
Ways = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="A,B,...",
        help="Policies, inf-llm+read-back, and readers; with settings: inf-llm:topk=8.",
    ),
]
OneModel = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="Preset, folder, hub id, GGUF file, ollama:NAME, lmstudio:NAME or hf:...",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any configuration key, e.g. model.topk=32. Repeatable."
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")
]
Dtype = Annotated[
    str | None, typer.Option("--dtype", metavar="NAME", help="auto, float32, bfloat16 or float16.")
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FORM",
        help="On a CPU: full, packed (int8 copies for decode steps), or int8 or int4 alone.",
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
Password = Annotated[
    str | None, typer.Option("--password", metavar="TEXT", help="Password of encrypted PDFs.")
]
MainText = Annotated[
    bool | None,
    typer.Option(
        "--main-text/--no-main-text",
        show_default=False,
        help="Of web pages only the main text. [default: of pages that are mostly furniture]",
    ),
]
Outputs = Annotated[
    bool, typer.Option("--outputs", help="Read the outputs of notebooks, not their cells alone.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on standard error.")]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, show_default=False, help="More detail on standard error."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would be read and what it needs; read nothing."),
]
Budget = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        metavar="N",
        parser=parse_length,
        help="Refuse to read more tokens than this, e.g. 1M (exit 4).",
    ),
]
ReadBack = Annotated[
    bool | None,
    typer.Option(
        "--read-back/--no-read-back",
        show_default=False,
        help="Read the passages found again, next to the question. [default: as the preset says]",
    ),
]
Reader = Annotated[
    str | None,
    typer.Option(
        "--reader",
        metavar="NAME",
        help="Read anew for each question, without a memory: infiniretri or homer.",
    ),
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Neither use nor keep a memory in the user's cache.")
]
MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", metavar="N", min=1, help="Longest answer, in tokens.")
]
Temperature = Annotated[
    float, typer.Option("--temperature", metavar="T", min=0.0, help="0 takes the likeliest token.")
]
TopP = Annotated[
    float,
    typer.Option("--top-p", metavar="P", min=0.0, max=1.0, help="Sample from this much mass."),
]
TopK = Annotated[
    int, typer.Option("--top-k", metavar="K", min=0, help="Sample from the K likeliest; 0 is all.")
]
RepetitionPenalty = Annotated[
    float,
    typer.Option("--repetition-penalty", metavar="X", min=0.01, help="Above 1 repeats less."),
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of the sampling.")]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", metavar="TEXT", help="End the answer before this text. Repeatable."),
]
Draft = Annotated[
    str | None,
    typer.Option(
        "--draft",
        metavar="WAY",
        help="Try tokens ahead, without changing any: document, lookahead or off. "
        "[default: as the preset says]",
    ),
]
ShowThinking = Annotated[
    bool,
    typer.Option("--show-thinking", help="Show what a reasoning model thinks before its answer."),
]
LetRepeat = Annotated[
    bool,
    typer.Option("--let-repeat", help="Go on with an answer that repeats itself without end."),
]
Plot = Annotated[
    str | None,
    typer.Option("--plot", metavar="FILE.png", help="Also draw a picture (needs matplotlib)."),
]


DRAFTS = ("document", "lookahead", "off")


@dataclass(frozen=True)
class EngineChoice:
    """Which model to load and how, as the command line says it.

    `overrides` are the dotted configuration keys that flags set: they win over every file.
    """

    source: str | None
    overrides: dict[str, Any]
    offline: bool = False


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when to stop. Stop texts are not part of the answer.

    Nor is what a reasoning model thinks before it, unless `show_thinking`; `thinking_tag` is the
    tag that the prompt ends in, where the model's template puts one there. `draft` says what
    proposes tokens ahead, which changes none; None: as the configuration does. `stop_repetition`:
    an answer that goes round in a circle is stopped.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    show_thinking: bool = False
    thinking_tag: str | None = None
    draft: str | None = None
    stop_repetition: bool = True


@dataclass(frozen=True)
class ModelFlags:
    """Which model to load, and how."""

    preset: Preset = None
    model: Model = None
    settings: Settings = None
    device: Device = None
    dtype: Dtype = None
    weights: Weights = None
    offline: Offline = False

    def choice(self, policy: str | None = None) -> EngineChoice:
        """The flags as a source and overrides; they win over `--set` of the same key."""
        overrides: dict[str, Any] = dict(parse_setting(text) for text in self.settings or [])
        flags = {
            "model.type": policy,
            "model.device": self.device,
            "model.dtype": self.dtype,
            "model.weights": self.weights,
            "model.path": self.model if self.preset else None,
        }
        overrides.update({key: value for key, value in flags.items() if value is not None})
        return EngineChoice(self.preset or self.model, overrides, self.offline)


@dataclass(frozen=True)
class EngineFlags(ModelFlags):
    """Which model to load, how, and with which memory."""

    policy: Policy = None

    def choice(self, policy: str | None = None) -> EngineChoice:
        return super().choice(policy or self.policy)


@dataclass(frozen=True)
class DocumentFlags:
    """How sources are read. What changes their text keys a memory through that text."""

    password: Password = None
    main_text: MainText = None
    outputs: Outputs = False


@dataclass(frozen=True)
class SamplingFlags:
    """How to go on from what was read."""

    max_new_tokens: MaxNewTokens = 256
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    top_k: TopK = 0
    repetition_penalty: RepetitionPenalty = 1.0
    seed: Seed = None
    stop: Stop = None
    show_thinking: ShowThinking = False
    draft: Draft = None
    let_repeat: LetRepeat = False

    def sampling(self) -> Sampling:
        if self.draft not in (None, *DRAFTS):
            raise UsageError(f"--draft {self.draft!r} is none of {', '.join(DRAFTS)}")
        given = {**vars(self), "stop": tuple(self.stop or ())}
        return Sampling(stop_repetition=not given.pop("let_repeat"), **given)


@dataclass(frozen=True)
class SummaryFlags(SamplingFlags):
    """As for answers; a summary by a small model falls into repeating itself."""

    repetition_penalty: RepetitionPenalty = 1.1


@dataclass(frozen=True)
class NoteFlags:
    """What goes to standard error."""

    quiet: Quiet = False
    verbose: Verbose = 0

    def output(self, command: str) -> "Output":
        from infllm.cli.output import Output

        return Output(command, getattr(self, "as_json", False), self.quiet, self.verbose)


@dataclass(frozen=True)
class StreamFlags(NoteFlags):
    """What goes to which stream."""

    as_json: Json = False


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose dataclass parameters are options of their own, one for each field.

    So that a list of flags that many commands take is written once.
    """
    hints = get_type_hints(command, include_extras=True)
    options: list[inspect.Parameter] = []
    bundles: dict[str, tuple[Any, list[str]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if not is_dataclass(kind):
            options.append(parameter.replace(annotation=kind, kind=parameter.KEYWORD_ONLY))
            continue
        of_fields = get_type_hints(kind, include_extras=True)
        bundles[parameter.name] = kind, [field.name for field in fields(kind)]
        options += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=of_fields[field.name],
            )
            for field in fields(kind)
        ]

    @wraps(command)
    def run(**values: Any) -> None:
        for name, (kind, names) in bundles.items():
            values[name] = kind(**{field: values.pop(field) for field in names})
        command(**values)

    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


def parse_setting(text: str, flag: str = "--set") -> tuple[str, Any]:
    """`model.topk=32`, as `flag` gave it, as a key and a YAML value.

    Raises:
        UsageError: there is no `=`, or the value is not YAML.
    """
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(
            f"{flag} {text!r} is not KEY=VALUE", "write for example --set model.topk=32"
        )
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(
            f"the value of {flag} {text!r} cannot be read", "quote it, e.g. --set 'key=\"value\"'"
        ) from error


def split_list(text: str) -> list[str]:
    """`a, b,c` as its parts, without empty ones and repeats."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
