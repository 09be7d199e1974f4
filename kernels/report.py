"""Registers, shared memory and spills of the Triton kernels on every card, compiled without one.

`python -m infllm.kernels.report` (`make kernels-report`) compiles all variants and prints a table;
it fails where registers spill or a card's shared memory would not do. `--quick` takes the variants
that the tests compile, `--sm 90` one card.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from infllm.kernels.machine_code import MachineCode, machine_code
from infllm.kernels.triton.tiles import SHARED_KIB
from infllm.kernels.triton.variant import STRIDES, Variant
from infllm.kernels.triton.variants import variants

STACK = 160  # bytes of a thread, at most: beside loops, where they cost nothing one could see


@dataclass(frozen=True)
class Resources:
    """What one variant takes on one card."""

    variant: Variant
    sm: int
    code: MachineCode
    shared: int  # bytes of a program
    seconds: float  # that compiling took

    @property
    def fault(self) -> str | None:
        """Why the variant would run badly on the card, or not at all."""
        if self.code.spilled or self.code.stack > STACK:
            return f"{self.code.spilled} spills in loops, {self.code.stack} bytes of stack"
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
    code = machine_code(kernel.asm["cubin"])
    return Resources(variant, sm, code, kernel.metadata.shared, time.perf_counter() - start)


def report(
    chosen: Sequence[int], cards: Sequence[int], jobs: int | None = None, quick: bool = False
) -> Iterator[Resources]:
    """Compile variants, by their place among all, each for the cards where it runs.

    `jobs`: processes, as many as processors by default. `quick`: what the tests compile.
    """
    work = [
        (i, sm) for i in chosen for sm in cards
        if (variants()[i].quick_on(sm) if quick else variants()[i].runs_on(sm))
    ]  # fmt: skip
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for (i, sm), taken in zip(
            work, pool.map(_compiled_at, *zip(*work, strict=True)), strict=True
        ):
            yield Resources(variants()[i], sm, *taken)


def _compiled_at(i: int, sm: int) -> tuple[MachineCode, int, float]:
    """Kernels do not travel between processes, numbers do."""
    taken = compiled(variants()[i], sm)
    return taken.code, taken.shared, taken.seconds


def table(rows: Sequence[Resources]) -> str:
    """Markdown: the most registers and KiB of shared memory that any tile of a kernel takes."""
    cards = sorted({row.sm for row in rows})
    titles = " | ".join(f"sm_{sm}" for sm in cards)
    lines = [f"| kernel | {titles} |", "|---" * (len(cards) + 1) + "|"]
    for name in dict.fromkeys(row.variant.name for row in rows):
        cells = []
        for sm in cards:
            here = [row for row in rows if row.variant.name == name and row.sm == sm]
            registers = max((row.code.registers for row in here), default=0)
            shared = max((row.shared for row in here), default=0) / 1024
            fault = " !" if any(row.fault for row in here) else ""
            cells.append(f"{registers}, {shared:.0f}{fault}" if here else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


# What a loop of products is made of; the rest of it are addresses, masks and moves.
OPCODES = ("HGMMA", "HMMA", "MUFU", "FMUL", "FFMA", "FADD", "FMNMX", "LDGSTS", "LDG", "BAR")
# Of a multiprocessor of compute capability 9.0 in a clock: multiply-adds of its tensor cores, and
# warps' instructions; exponentials take eight clocks of a quarter.
TENSOR, ISSUED, EXPONENTIAL = 2048, 4, 8


def loop_table(rows: Sequence[Resources]) -> str:
    """Markdown: the loops of products of each kernel, and the share of the tensor cores' speed that
    they can reach: where one warpgroup's softmax hides behind the other's products, and where it
    hides behind nothing."""
    lines = [
        f"| kernel, tile | registers, stack | loop | {' | '.join(OPCODES)} | tensor cores busy |",
        "|---" * (len(OPCODES) + 4) + "|",
    ]
    for row in rows:
        for loop in row.code.products:
            counts = " | ".join(str(loop[opcode] or "") for opcode in OPCODES)
            lines.append(
                f"| {row.variant.name} {row.variant.tile} | {row.code.registers}, {row.code.stack} "
                f"| {loop.total()} | {counts} | {busy(row.variant, loop)} |"
            )
    return "\n".join(lines)


def busy(variant: Variant, loop: Counter[str]) -> str:
    """Of a loop of an attention kernel with two warpgroups, by what it issues."""
    size = variant.constants
    if not loop["HGMMA"] or "BLOCK_DV" not in size:
        return ""
    # Exponentials but for one a row and thread: a row's 4 threads have two rows each.
    keys = (loop["MUFU"] - 2) * 2
    products = size["BLOCK_M"] * keys * (size["BLOCK_D"] + size["BLOCK_DV"]) / TENSOR
    groups = variant.warps // 4
    softmax = max(loop.total(), EXPONENTIAL * loop["MUFU"])  # a warp of a group on each quarter
    issued = groups * softmax
    hidden = max(products, issued, products / groups + softmax)
    return f"{products / (products + issued):.0%} to {products / hidden:.0%}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 where a variant is at fault."""
    parser = argparse.ArgumentParser(prog="kernels-report", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the variants that the tests compile")
    parser.add_argument("--sm", type=int, choices=SHARED_KIB, action="append", help="one card")
    parser.add_argument("--match", default="", help="only kernels whose name contains this")
    parser.add_argument("--jobs", type=int, help="processes, all processors by default")
    parser.add_argument("--loops", action="store_true", help="the machine code of their loops")
    given = parser.parse_args(argv)
    chosen = [i for i, variant in enumerate(variants()) if given.match in variant.name]
    rows = []
    for row in report(chosen, given.sm or list(SHARED_KIB), given.jobs, given.quick):
        rows.append(row)
        said = f"{row.code.registers} registers, {row.shared / 1024:.1f} KiB, {row.seconds:.1f} s"
        name = f"{row.variant.name} {row.variant.tile} sm_{row.sm}"
        print(f"{name}: {said}{f': {row.fault}' if row.fault else ''}", file=sys.stderr, flush=True)
    print(loop_table(rows) if given.loops else table(rows))
    return 1 if any(row.fault for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
