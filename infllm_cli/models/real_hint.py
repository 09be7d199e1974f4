"""The line that tells a new user that the built-in model is a small one."""

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from infllm.cli.output import Output

if TYPE_CHECKING:
    from infllm.engine.config import Config

TOLD = "told.json"
SUGGESTED = "qwen2.5-0.5b-instruct"  # the smallest that answers well; no licence to accept


def tell_of_real_models(config: "Config", out: Output) -> None:
    """After the first answer of `pocket`, once for each user; never with -q or --json."""
    from infllm import presets

    if out.quiet or out.as_json or config.model.path != str(presets.builtin("pocket")):
        return
    from infllm.engine.sources import make_folder, read_object, write_json

    # Beside the lines typed in a chat: not in the cache, which may be shut off.
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    folder = Path(base).expanduser() / "infllm"
    told = read_object(folder / TOLD)
    if told.get("pocket"):
        return
    out.note(
        f"pocket is a 4M-parameter reader, made to run anywhere; a real model answers far better: "
        f"infllm models get {SUGGESTED} && infllm models use {SUGGESTED}"
    )
    with contextlib.suppress(OSError):  # it is then told again
        make_folder(folder)
        write_json(folder / TOLD, {**told, "pocket": True})
