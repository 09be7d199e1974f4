"""The first minutes on a GPU: is it right, and how fast is it?

    python benchmarks/gpu_first_light.py --prepare wheels      # on a machine with this project
    python benchmarks/gpu_first_light.py --part check --wheels wheels --output out
    python benchmarks/gpu_first_light.py --part speed --wheels wheels --output out
    python benchmarks/gpu_first_light.py --part check --device cpu    # rehearsal, interpreted

For a bare machine that has torch for CUDA, Triton and transformers: what else the project needs is
installed from a folder of wheels, and nothing is downloaded. `check` takes 4 minutes at most,
`speed` 5; run it soon after on the same machine, while the compiled kernels are there. The most
important comes first, each step has a limit of its own, and every row is written when it is known,
beside what was predicted for an H200 before any card had run this.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata as metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MINUTES = {"check": 4.0, "speed": 5.0}
# What a machine with torch and transformers has.
THERE = ("torch", "transformers", "triton", "numpy", "setuptools", "tokenizers", "safetensors",
         "huggingface-hub")  # fmt: skip
NO_TESTS = 5  # exit status of a pytest that has chosen none
TESTS = ("pytest", "pytest-xdist", "hypothesis")


@dataclasses.dataclass(frozen=True)
class Step:
    """One process of a part; its lines that are JSON objects are rows."""

    name: str
    command: list[str]
    seconds: float  # at most
    threads: str | None = None  # OMP_NUM_THREADS


def needed() -> list[str]:
    """Requirements of the project, and of its tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [name_of(line) for line in project["dependencies"]]
    return [*(name for name in names if name not in THERE), *TESTS]


def name_of(requirement: str) -> str:
    """The distribution that a requirement names."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def closure(names: list[str]) -> list[str]:
    """`name==version` of distributions and of all that they need, as installed here, but for what
    is there with torch and transformers."""
    found: dict[str, str] = {}
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in found or name in THERE:
            continue
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform
        todo += list(requires(name))
    return sorted(f"{name}=={version}" for name, version in found.items())


def requires(name: str) -> Iterator[str]:
    for line in metadata.requires(name) or ():
        if "extra ==" not in line:
            yield name_of(line)


def prepare(folder: Path, python: str) -> None:
    """Wheels for Linux on x86-64, of the versions that are installed here."""
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [f"manylinux_2_{n}_x86_64" for n in (17, 24, 27, 28, 34)]
    chosen = [*(f"--platform={p}" for p in [*platforms, "manylinux2014_x86_64"])]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
         f"--python-version={python}", *chosen, "--dest", str(folder), *closure(needed())],
        check=True,
    )  # fmt: skip


def install(wheels: Path | None) -> dict[str, Any]:
    """Install what is missing, from wheels alone; a row."""
    missing = [name for name in needed() if not is_there(name)]
    row: dict[str, Any] = {"part": "setup", "name": "install", "missing": missing}
    if not missing:
        return row
    if wheels is None:
        return row | {"error": "packages are missing: give a folder by --wheels, see --prepare"}
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-index", f"--find-links={wheels}",
         "--no-warn-script-location", *missing],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return row if done.returncode == 0 else row | {"error": done.stderr[-600:]}


def is_there(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def namespace(folder: Path) -> Path:
    """Links that give the folders their import names, as an installation would."""
    (folder / "infllm").mkdir(parents=True, exist_ok=True)
    for name, where in (("cli", "infllm_cli"), ("engine", "engine"), ("kernels", "kernels"),
                        ("presets", "presets")):  # fmt: skip
        link = folder / "infllm" / name
        if not link.exists():
            link.symlink_to(ROOT / where)
    return folder


def steps(part: str, shape: str, device: str, output: Path, minutes: float) -> list[Step]:
    """What a part does, in order; limits are in proportion to `minutes`."""
    unit = minutes * 60 / (240 if part == "check" else 300)

    def script(name: str, seconds: float, *more: str, threads: str | None = None) -> Step:
        command = [sys.executable, str(HERE / f"gpu_first_{part}.py"), name, "--shape", shape,
                   "--device", device, "--output", str(output), "--seconds", str(seconds * unit),
                   *more]  # fmt: skip
        return Step(name, command, (seconds + 5) * unit, threads)

    def tests(name: str, seconds: float, files: list[str], chosen: str) -> Step:
        command = [sys.executable, "-m", "pytest", *files, "-q", "-p", "no:benchmark", "-p",
                   "no:cacheprovider", "-W", "default", "--maxfail=15", "-k", chosen,
                   *(["-n", "12"] if device != "cpu" else [])]  # fmt: skip
        return Step(name, command, seconds * unit, "1")

    if part == "speed":
        return [script("speed", 290)]
    kernels, engine = ["tests/gpu/test_kernels.py"], ["tests/gpu/test_engine.py",
                                                      "tests/gpu/test_staging.py"]  # fmt: skip
    of_kernels, of_engine = "bf16 or fp32", (
        "(llama or cuts or golden or steps or staging or asking or pinned) and not gpt_oss"
    )  # fmt: skip
    if device == "cpu":
        of_kernels, of_engine = "fp32 and blocks_of_a_chunk", "codes_are or pinned"
    return [
        script("ceilings", 15),
        script("compile", 45, threads="1"),
        script("attention", 20),
        tests("kernel tests", 80, kernels, of_kernels),
        tests("engine tests", 70, engine, of_engine),
    ]


class Rows:
    """Rows of a run, written to a file one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")

    def add(self, row: dict[str, Any]) -> None:
        """Write a row and print it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def run(step: Step, rows: Rows, environment: dict[str, str], seconds: float) -> None:
    """Run a step's process, its rows written as they come; a row at its end."""
    began = time.monotonic()
    limit = min(step.seconds, seconds)
    log = rows.path.with_name(f"{rows.path.stem}-{step.name.replace(' ', '-')}.log")
    if limit < 5:
        rows.add({"part": step.name, "name": "end", "skipped": "no time left"})
        return
    if step.threads is not None:
        environment = environment | {"OMP_NUM_THREADS": step.threads}
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            ["timeout", "--kill-after=5", str(round(limit)), *step.command], cwd=ROOT,
            env=environment, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            if line.startswith("{"):
                rows.add({"part": step.name, **json.loads(line)})
            else:
                errors.write(line)
                last = line.strip() or last
        code = process.wait()
    row = {"part": step.name, "name": "end", "seconds": round(time.monotonic() - began, 1)}
    if code not in (0, NO_TESTS):
        row |= {"exit": code, "timed_out": code in (124, 137), "log": log.name}
    rows.add(row | ({"last": last} if last else {}))


def main() -> int:
    """Run a part; 1 where a step of it failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--part", choices=MINUTES)
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="download wheels to it")
    parser.add_argument("--python", default="3.12", help="that the wheels are for")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install from")
    parser.add_argument("--output", type=Path, default=Path("first_light"))
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal")
    parser.add_argument("--shape", help="by default llama-3-8b, and toy on a CPU")
    parser.add_argument("--minutes", type=float, help="stop then, about")
    args = parser.parse_args()
    if args.prepare is not None:
        prepare(args.prepare, args.python)
        return 0
    if args.part is None:
        parser.error("give --part or --prepare")
    minutes = args.minutes or MINUTES[args.part]
    deadline = time.monotonic() + 60 * minutes
    output = args.output.resolve()
    rows = Rows(output / f"{args.part}.jsonl")
    rows.add(install(args.wheels))
    links = namespace(Path(tempfile.mkdtemp(prefix="infllm-links-")))
    environment = {
        **os.environ, "THP_MEM_ALLOC_ENABLE": "1",
        "PYTHONPATH": os.pathsep.join([str(links), str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    if args.device == "cpu":
        environment |= {"TRITON_INTERPRET": "1", "INFLLM_KERNELS": "triton"}
    shape = args.shape or ("toy" if args.device == "cpu" else "llama-3-8b")
    for step in steps(args.part, shape, args.device, output, minutes):
        run(step, rows, environment, deadline - time.monotonic())
    found = [json.loads(line) for line in rows.path.read_text(encoding="utf-8").splitlines()]
    return int(any("error" in row or "exit" in row for row in found))


if __name__ == "__main__":
    sys.exit(main())
