"""Machine code of a compiled kernel, as cuobjdump tells it: registers, spills, and its loops."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import triton

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
INSTRUCTION = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_]+)([^;]*)")
LOCAL = ("LDL", "STL")  # loads and stores of registers that did not fit


@dataclass(frozen=True)
class MachineCode:
    """What a kernel's code for one card says."""

    registers: int  # of a thread
    stack: int  # bytes of a thread: registers that did not fit, above all
    loops: tuple[Counter[str], ...]  # instructions of each innermost loop, by their opcode

    @property
    def spilled(self) -> int:
        """Loads and stores of local memory in loops. Those beside them run once a program."""
        return sum(loop[opcode] for loop in self.loops for opcode in LOCAL)

    @property
    def products(self) -> list[Counter[str]]:
        """Loops that multiply matrices: HGMMA is a warpgroup's product (wgmma), HMMA a warp's."""
        return [loop for loop in self.loops if loop["HGMMA"] or loop["HMMA"]]


def machine_code(cubin: bytes) -> MachineCode:
    """Raises RuntimeError where cuobjdump says something else than it used to."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _cuobjdump("--dump-resource-usage", file.name)
        code = _cuobjdump("--dump-sass", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump tells no registers:\n{usage}")
    return MachineCode(int(found[1]), int(found[2]), loops_of(code))


def loops_of(code: str) -> tuple[Counter[str], ...]:
    """Instructions of each innermost loop, in the order of the code: what lies between a branch
    backward and where it goes."""
    lines = [INSTRUCTION.match(line) for line in code.splitlines()]
    listed = [(int(m[1], 16), m[2], m[3]) for m in lines if m]
    spans = []
    for at, opcode, rest in listed:
        target = re.search(r"0x([0-9a-f]+)", rest) if opcode == "BRA" else None
        if target is not None and int(target[1], 16) < at:
            spans.append((int(target[1], 16), at))
    inner = [
        one for one in spans
        if not any(other != one and one[0] <= other[0] and other[1] <= one[1] for other in spans)
    ]  # fmt: skip
    return tuple(
        Counter(opcode for at, opcode, _ in listed if start <= at <= stop) for start, stop in inner
    )


def _cuobjdump(what: str, path: str) -> str:
    done = subprocess.run([CUOBJDUMP, what, path], capture_output=True, text=True, check=True)
    return done.stdout
