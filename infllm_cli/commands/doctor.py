"""`infllm doctor`: is everything here that a run needs?"""

import os
import platform
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

import typer

from infllm.cli import options as opt
from infllm.cli.errors import ExitCode, ModelMissing, exit_code
from infllm.cli.output import Output

CORE = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "pydantic",
    "pypdf",
    "pypdfium2",
    "tiktoken",
)
EXTRAS = {
    "plot": ("matplotlib", "draws pictures with --plot"),
    "faiss": ("faiss-cpu", "looks units up with faiss"),
    "multi": ("accelerate", "spreads a model over several GPUs"),
}
CHECK_LENGTH = 2048


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `state` is "ok", "missing" (optional) or "failed"."""

    name: str
    state: str
    detail: str


@opt.spread
def doctor(*, flags: opt.ModelFlags, streams: opt.StreamFlags) -> None:
    """Check that everything a run needs is here.

    Versions, devices, optional parts, and that the model finds a pass key. With --model: whether
    that model is served, from its config alone, in seconds. Uses no network.
    """
    out = streams.output("doctor")
    choice = replace(flags, offline=True).choice()
    findings: list[Finding] = []

    def found(name: str, state: str, detail: str) -> None:
        findings.append(Finding(name, state, detail))
        out.line(f"{state:<8} {name}: {detail}")

    found("infllm", "ok", f"{_version('infllm')} on Python {platform.python_version()}")
    found("system", "ok", f"{platform.platform()}, {os.cpu_count()} cores, {_memory()}")
    for package in CORE:
        installed = _version(package)
        found(package, "ok" if installed else "failed", installed or "not installed")
    for extra, (package, use) in EXTRAS.items():
        installed = _version(package)
        found(
            package,
            "ok" if installed else "missing",
            installed or f"optional, {use}: pip install 'infllm[{extra}]'",
        )
    found("cuda", *_cuda())
    found("triton", *_triton())
    code: int = ExitCode.OK
    try:
        named = flags.model is not None
        found("model", "ok", _examined(choice, out) if named else _self_check(choice, out))
    except Exception as error:  # whatever it is, it is what doctor was called to find
        code = exit_code(error)
        hint = getattr(error, "hint", "")
        found("model", "failed", f"{error}" + (f" ({hint})" if hint else ""))
    if code == ExitCode.OK and any(finding.state == "failed" for finding in findings):
        code = ExitCode.RUNTIME
    out.object({"ok": code == ExitCode.OK, "findings": [asdict(f) for f in findings]})
    if code != ExitCode.OK:
        raise typer.Exit(code)


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _memory() -> str:
    from infllm.cli.text import size

    try:
        return size(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) + " of memory"
    except (ValueError, OSError):
        return "memory unknown"


def _cuda() -> tuple[str, str]:
    if not _version("torch"):
        return "failed", "unknown without torch"
    import torch

    if not torch.cuda.is_available():
        return "missing", "no CUDA device: runs on the CPU"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return "ok", f"{torch.version.cuda}, {', '.join(names)}"


def _triton() -> tuple[str, str]:
    installed = _version("triton")
    if installed:
        return "ok", f"{installed}, used on a GPU"
    return "missing", f"not used on {sys.platform} without a GPU"


def _examined(choice: opt.EngineChoice, out: Output) -> str:
    """Whether a model is served, and with which limits; nothing of its weights is read.

    Raises:
        ModelMissing: its config is not on this machine.
        infllm.engine.errors.UnsupportedModel: it is not served, with the reason.
    """
    from infllm.cli.opening import open_config, quiet_libraries
    from infllm.engine.config import read_model_config
    from infllm.engine.errors import UnsupportedModel

    path = open_config(choice).model.path or ""
    values = read_model_config(path)
    if values is None:
        raise ModelMissing(f"no config of {path} on this machine")
    quiet_libraries(out)
    import torch

    from infllm.engine.support import NotServed, examine_config  # slow to import

    torch.set_num_threads(1)  # of a tiny model a second thread only waits
    kind = values.get("model_type")
    try:
        support = examine_config(values)
    except NotServed as error:
        raise UnsupportedModel(f"{path} ({kind}) is not served: {error}") from None
    if support.outcome == "refused":
        raise UnsupportedModel(f"{path} ({kind}) is not served: {support.reason}")
    if support.outcome == "unknown":
        return f"{path} ({kind}) may be served or not: {support.reason}"
    limits = f", with limits: {support.reason}" if support.reason else ""
    return f"{path} ({kind}) is served{limits}; a tiny one of its config was tried"


def _self_check(choice: opt.EngineChoice, out: Output) -> str:
    """Load the model and have it find a pass key well beyond its window.

    Raises:
        RuntimeError: the answer was wrong.
    """
    from infllm.cli.opening import open_config, open_engine, preset_name
    from infllm.cli.progress import Progress
    from infllm.cli.tasks.passkey import Haystack, plan_cases, run_passkey

    config = open_config(choice)
    with open_engine(config, choice, out) as engine:
        cases = plan_cases([CHECK_LENGTH], [30.0], 1, 5, seed=1)
        haystack = Haystack(engine.tokenizer)
        with Progress(out, "self-check", CHECK_LENGTH) as progress:
            policy = [engine.config.model.type]
            trial: Any = next(iter(run_passkey(engine, cases, policy, haystack, progress)))
        dtype = str(engine.dtype).removeprefix("torch.")
        where = f"{preset_name(config, choice)} on {engine.device} as {dtype}"
    told = f"expected {trial.expected}, got {trial.got!r}"
    if not trial.correct:
        raise RuntimeError(f"{where}: pass key in {CHECK_LENGTH:,} tokens not found: {told}")
    rate = trial.tokens / max(trial.seconds, 1e-9)
    return f"{where}: pass key in {CHECK_LENGTH:,} tokens found, {rate:,.0f} tok/s"
