"""What every benchmark's figures depend on."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from pathlib import Path
from typing import Any

# `training` is no installed package: scripts that need it find it beside this folder.
sys.path.append(str(Path(__file__).resolve().parent.parent))


def _named(argument: str) -> str:
    return Path(argument).name if argument.startswith("/") else argument


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    import torch
    import transformers

    cpu = next(
        (
            x.split(":")[1].strip()
            for x in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in x
        ),
        platform.processor(),
    )
    return {
        "date": datetime.date.today().isoformat(), "cpu": cpu, "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "python": platform.python_version(),
        "torch": torch.__version__, "transformers": transformers.__version__,
        # Of paths the name alone: where files lie changes no figure, and concerns nobody.
        "command": " ".join(["python", *map(_named, sys.argv)]),
    }  # fmt: skip
