"""Registers, shared memory and spills of the Triton kernels on every card, compiled without one.

`python -m infllm.kernels.report` (`make kernels-report`) compiles all variants and prints a table;
it fails where registers spill or a card's shared memory would not do. `--quick` takes the variants
that the tests compile, `--sm 90` one card.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from infllm.kernels.triton.tiles import SHARED_KIB
from infllm.kernels.triton.variants import STRIDES, Variant, variants

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


@dataclass(frozen=True)
class Resources:
    """What one variant takes on one card."""

    variant: Variant
    sm: int
    registers: int  # of a thread
    stack: int  # bytes of a thread: registers that did not fit, above all
    spilled: int  # loads and stores of local memory in the code
    shared: int  # bytes of a program
    seconds: float  # that compiling took

    @property
    def fault(self) -> str | None:
        """Why the variant would run badly on the card, or not at all."""
        if self.spilled or self.stack:
            return f"{self.spilled} spills, {self.stack} bytes of stack"
        if self.shared > SHARED_KIB[self.sm] * 1024:
            return f"more than {SHARED_KIB[self.sm]} KiB of shared memory"
        return None


def compiled(variant: Variant, sm: int) -> Resources:
    """Compile a variant for compute capability `sm` (90 is 9.0) and read what it takes.

    Raises triton.CompilationError where the kernel does not compile.
    """
    start = time.perf_counter()
    names = variant.kernel.arg_names
    types = {
        name: "constexpr" if name in variant.constants else variant.types.get(name, "i32")
        for name in names
    }
    # What launches see: pointers and strides are multiples of 16, other numbers are not known.
    even = [
        i for i, name in enumerate(names)
        if name not in variant.constants and (types[name][0] == "*" or name in STRIDES)
    ]  # fmt: skip
    source = ASTSource(
        variant.kernel, types, variant.constants, {(i,): [["tt.divisibility", 16]] for i in even}
    )
    options = {
        "num_warps": variant.warps, "num_stages": variant.stages, "enable_fp_fusion": True,
        **({} if variant.registers is None else {"maxnreg": variant.registers}),
    }  # fmt: skip
    kernel = triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options)
    registers, stack, spilled = _usage(kernel.asm["cubin"])
    seconds = time.perf_counter() - start
    return Resources(variant, sm, registers, stack, spilled, kernel.metadata.shared, seconds)


def _usage(cubin: bytes) -> tuple[int, int, int]:
    """Registers and stack bytes of a thread, and local loads and stores in the code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _cuobjdump("--dump-resource-usage", file.name)
        code = _cuobjdump("--dump-sass", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump tells no registers:\n{usage}")
    return int(found[1]), int(found[2]), len(re.findall(r"\b(?:LDL|STL)\b", code))


def _cuobjdump(what: str, path: str) -> str:
    done = subprocess.run([CUOBJDUMP, what, path], capture_output=True, text=True, check=True)
    return done.stdout


def report(
    chosen: Sequence[int], cards: Sequence[int], jobs: int | None = None
) -> Iterator[Resources]:
    """Compile variants, by their place among all, each for the cards where it runs.

    `jobs`: processes, as many as processors by default.
    """
    work = [(i, sm) for i in chosen for sm in cards if variants()[i].runs_on(sm)]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for (i, sm), taken in zip(
            work, pool.map(_compiled_at, *zip(*work, strict=True)), strict=True
        ):
            yield Resources(variants()[i], sm, *taken)


def _compiled_at(i: int, sm: int) -> tuple[int, int, int, int, float]:
    """Kernels do not travel between processes, numbers do."""
    taken = compiled(variants()[i], sm)
    return taken.registers, taken.stack, taken.spilled, taken.shared, taken.seconds


def table(rows: Sequence[Resources]) -> str:
    """Markdown: the most registers and KiB of shared memory that any tile of a kernel takes."""
    cards = sorted({row.sm for row in rows})
    titles = " | ".join(f"sm_{sm}" for sm in cards)
    lines = [f"| kernel | {titles} |", "|---" * (len(cards) + 1) + "|"]
    for name in dict.fromkeys(row.variant.name for row in rows):
        cells = []
        for sm in cards:
            here = [row for row in rows if row.variant.name == name and row.sm == sm]
            registers = max((row.registers for row in here), default=0)
            shared = max((row.shared for row in here), default=0) / 1024
            fault = " !" if any(row.fault for row in here) else ""
            cells.append(f"{registers}, {shared:.0f}{fault}" if here else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 where a variant is at fault."""
    parser = argparse.ArgumentParser(prog="kernels-report", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the variants that the tests compile")
    parser.add_argument("--sm", type=int, choices=SHARED_KIB, action="append", help="one card")
    parser.add_argument("--match", default="", help="only kernels whose name contains this")
    parser.add_argument("--jobs", type=int, help="processes, all processors by default")
    given = parser.parse_args(argv)
    chosen = [
        i for i, variant in enumerate(variants())
        if given.match in variant.name and (variant.quick or not given.quick)
    ]  # fmt: skip
    rows = []
    for row in report(chosen, given.sm or list(SHARED_KIB), given.jobs):
        rows.append(row)
        said = f"{row.registers} registers, {row.shared / 1024:.1f} KiB, {row.seconds:.1f} s"
        name = f"{row.variant.name} {row.variant.tile} sm_{row.sm}"
        print(f"{name}: {said}{f': {row.fault}' if row.fault else ''}", file=sys.stderr, flush=True)
    print(table(rows))
    return 1 if any(row.fault for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
