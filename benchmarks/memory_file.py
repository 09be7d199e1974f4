"""Read once, ask for ever: what saving a memory costs, and how fast and lean the saved one answers.

    python benchmarks/memory_file.py --sources BOOK... --length 1M

Processes, one after the other: `plain` reads the text and answers, `index` reads it into a memory
file and says what part of its time the saving took, `ask` opens that file and answers the same
questions, and several times more with the files just brought to the file cache. As the command
does, it checks all of the file while torch is imported and the model loads; what is not done by
then counts as opening.
The text is the sources one after the other, again from the start if they are too short, with a pass
key and a few facts planted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import environment

from infllm.cli.documents import Collection, Document, Span
from infllm.cli.memory import Memory, open_memory, plan_reading, read_memory
from infllm.cli.options import Sampling
from infllm.cli.output import Output
from infllm.cli.tasks.lengths import parse_length
from infllm.cli.tasks.questions import ask_memory

if TYPE_CHECKING:
    from infllm.engine import Engine, MemoryWriter

WARM = 5  # times that a warm memory is asked
FACTS = [  # depth, sentence, question
    (0.31, "The pass key is 84137. Remember it.", "What is the pass key?"),
    (0.07, "The harbour office was opened in 1931.", "When was the harbour office opened?"),
    (0.55, "The access code of the north store is 4821.",
     "What is the access code of the north store?"),
    (0.83, "The keeper of the lamp house is Orla Finn.", "Who is the keeper of the lamp house?"),
]  # fmt: skip


def make_text(sources: list[Path], tokens: int, engine: Engine) -> str:
    """About `tokens` tokens of the sources with the facts at their depths."""
    assert engine.tokenizer is not None
    text = "\n\n".join(path.read_text(encoding="utf-8") for path in sources)
    ids = engine.tokenizer.encode(text)
    ids = (ids * (tokens // len(ids) + 1))[: tokens - 200]
    text = engine.tokenizer.decode(ids)
    for depth, sentence, _ in sorted(FACTS, reverse=True):
        at = text.index(" ", int(depth * len(text)))
        text = f"{text[:at]} {sentence}{text[at:]}"
    return text


def resident() -> int:
    """Resident bytes of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def answers(engine: Engine, memory: Memory) -> list[dict[str, Any]]:
    """The questions' answers, plainly and read back; greedy."""
    sampling = Sampling(max_new_tokens=16, stop=("\nQuestion:",))
    rows = []
    for _, _, question in FACTS:
        for back in (False, True):
            reply = ask_memory(engine, memory, question, sampling, read_back=back)
            rows.append(
                {
                    "question": question,
                    "read_back": back,
                    "answer": reply.answer.text,
                    "pieces": reply.answer.pieces,
                    "citations": [citation.fields for citation in reply.citations],
                    "seconds_to_first_token": round(reply.seconds + reply.seconds_back, 3),
                    "seconds": round(reply.seconds + reply.answering, 3),
                }
            )
    return rows


class Saving:
    """Counts the seconds that saving takes while it is in force."""

    def __init__(self) -> None:
        from infllm.engine import MemoryWriter

        self.seconds = 0.0
        self._writer = MemoryWriter
        self._save = MemoryWriter._save

    def __enter__(self) -> Saving:
        def timed(writer: MemoryWriter, *, complete: bool) -> None:
            began = time.perf_counter()
            self._save(writer, complete=complete)
            self.seconds += time.perf_counter() - began

        self._writer._save = timed
        return self

    def __exit__(self, *exc: object) -> None:
        self._writer._save = self._save


def read(preset: str, text_file: Path, folder: Path | None) -> dict[str, Any]:
    """Read the text, into a memory file if a folder is given; then answer."""
    from infllm.engine import load

    engine = load(preset)
    text = text_file.read_text(encoding="utf-8")
    span = Span(0, len(text), "text.txt", line=1)
    collection = Collection([Document("text.txt", "text", text, [span])])
    plan = plan_reading(engine, collection, 64)
    began = time.perf_counter()
    with Saving() as saving:
        memory = read_memory(engine, plan, Output("index", quiet=True), folder)
    seconds = time.perf_counter() - began
    row: dict[str, Any] = {
        "tokens": plan.tokens, "seconds": round(seconds, 3),
        "tokens_per_second": round(plan.tokens / seconds, 1), "peak_bytes": peak(),
    }  # fmt: skip
    if folder is not None:
        sizes = [path.stat().st_size for path in folder.iterdir()]
        row |= {"files": len(sizes), "disk_bytes": sum(sizes)}
        row["seconds_saving"] = round(saving.seconds, 3)
    return row | {"answers": answers(engine, memory)}


def bring_to_the_file_cache(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb", buffering=0) as file:
            while file.read(2**22):
                pass


def ask(preset: str, folder: Path, *, warm_files: bool) -> dict[str, Any]:
    """Open the memory and ask; the first question's first token is timed from after loading."""
    from infllm.engine import Verification

    verification = Verification(folder)  # as the command does: before torch is imported

    from infllm.engine import load
    from infllm.engine.text import build_prompt

    engine = load(preset)
    assert engine.tokenizer is not None
    warm = engine.session()  # what any first pass of the model costs is not the memory's
    warm.read(engine.tokenizer.encode("What is it?"))
    warm.end()
    if warm_files:  # some systems let go of file pages within seconds
        bring_to_the_file_cache(folder)
    base = resident()
    began = time.perf_counter()
    memory = open_memory(engine, verification)
    opened = time.perf_counter() - began
    prompt = build_prompt(engine.tokenizer, engine.config, "ask", question=FACTS[0][2])
    session = memory.session.fork()
    session.read(prompt.tail_ids)
    next(session.generate(max_new_tokens=1))
    first = time.perf_counter() - began
    rows = answers(engine, memory)
    return {
        "seconds_to_open": round(opened, 3), "seconds_to_first_token": round(first, 3),
        "peak_bytes_above_model": peak() - base, "disk_bytes_mapped": session.stats.disk_bytes,
        "answers": rows,
    }  # fmt: skip


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two rows' answers are the same tokens and the same citations."""
    keys = ("question", "read_back", "answer", "pieces", "citations")
    return [[x[k] for k in keys] for x in a["answers"]] == [
        [x[k] for k in keys] for x in b["answers"]
    ]


def in_process(what: str, args: argparse.Namespace, folder: Path, text: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--row", what, str(folder), str(text)]
    command += ["--preset", args.preset, "--sources", "-"]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    if out.returncode != 0:
        raise SystemExit(out.stderr)
    row = json.loads(out.stdout.splitlines()[-1])
    shown = {key: value for key, value in row.items() if key != "answers"}
    print(what, json.dumps(shown), file=sys.stderr, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sources", nargs="+", type=Path, required=True, help="text files")
    parser.add_argument("--length", type=parse_length, default=parse_length("1M"))
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; default: /tmp")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        what, folder, text = args.row[0], Path(args.row[1]), Path(args.row[2])
        if what.startswith("ask"):
            row = ask(args.preset, folder, warm_files=what != "ask")
        else:
            row = read(args.preset, text, folder if what == "index" else None)
        print(json.dumps(row))
        return
    from infllm.engine import load

    place = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        text = place / "text.txt"
        text.write_text(make_text(args.sources, args.length, load(args.preset)), encoding="utf-8")
        warm = [f"ask_warm_{number + 1}" for number in range(WARM)]
        rows = {what: in_process(what, args, place / "memory", text) for what in
                ("plain", "index", "ask", *warm)}  # fmt: skip
    finally:
        shutil.rmtree(place)
    report = {
        "benchmark": "memory_file", **environment(),
        "saving_costs": round(rows["index"]["seconds"] / rows["plain"]["seconds"] - 1, 4),
        "saving_share": round(rows["index"]["seconds_saving"] / rows["index"]["seconds"], 4),
        "same_answers": all(same(rows["plain"], row) for row in rows.values()),
        "seconds_to_first_token_warm": sorted(
            rows[what]["seconds_to_first_token"] for what in warm
        ),
        **rows,
    }  # fmt: skip
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({k: v for k, v in report.items() if k not in rows}, indent=1))


if __name__ == "__main__":
    main()
