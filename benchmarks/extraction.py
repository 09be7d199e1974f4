"""How much of a document's words come out of the reader, and in which order: worst files first.

Each file is compared with the text beside it (NAME.txt, or NAME.EXT.txt), PDFs without one with
what `pdftotext` gives where it is installed. Words are letters and digits in lower case, hyphens
and ligatures resolved on both sides.

    recall     share of the reference's words that the reader gives, each as often as it has them
    precision  share of the reader's words that the reference has
    order      share of the words found equally often on both sides that follow each other alike

    python benchmarks/extraction.py DIR --json OUT
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from common import environment

from infllm.cli.documents import DocumentError, Limits, read_sources

KINDS = (".pdf", ".epub", ".docx", ".html", ".htm", ".xhtml", ".md", ".rst", ".ipynb")
SECONDS = 120  # for the reference
WORD = re.compile(r"[^\W_]+")
BROKEN = re.compile(r"(?<=[^\W\d_])[-\u00ad\u2010\ufffe] ?\n *(?=[^\W\d_])")


@dataclass(frozen=True)
class Row:
    """One file; `reason` says why there are no figures."""

    file: str
    recall: float | None = None
    precision: float | None = None
    order: float | None = None
    words: int = 0
    reference_words: int = 0
    seconds: float = 0.0
    reference: str = ""
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    reason: str = ""


def words(text: str) -> list[str]:
    """Hyphens go, so that a word broken by one reader and joined by the other is the same."""
    plain = unicodedata.normalize("NFKC", BROKEN.sub("", text)).casefold()
    plain = re.sub(r"(?<=\w)[-\u00ad\u2010\u2011](?=\w)", "", plain)
    return WORD.findall(plain)


def reference(path: Path) -> tuple[str, str] | None:
    """Text to compare with, and where it is from."""
    for beside in (path.with_suffix(".txt"), path.with_name(path.name + ".txt")):
        if beside.is_file():
            return beside.read_text(encoding="utf-8", errors="replace"), beside.name
    if path.suffix.lower() != ".pdf" or shutil.which("pdftotext") is None:
        return None
    try:
        done = subprocess.run(
            ["pdftotext", "-enc", "UTF-8", str(path), "-"],
            capture_output=True,
            check=False,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    text = done.stdout.decode("utf-8", errors="replace")
    return (text, "pdftotext") if done.returncode == 0 else None


def ordered_share(given: Sequence[str], expected: Sequence[str]) -> float:
    """Length of the longest sequence of words that follow each other on both sides, over that of
    all words compared. The n-th "sea" is compared with the n-th, so only words that both have
    equally often are: one that is missing would move all behind it.
    """
    count, other = Counter(given), Counter(expected)
    places: dict[str, list[int]] = defaultdict(list)
    for place, word in enumerate(expected):
        places[word].append(place)
    seen: Counter[str] = Counter()
    tails: list[int] = []
    compared = 0
    for word in given:
        if count[word] != other[word]:
            continue
        place = places[word][seen[word]]
        seen[word] += 1
        compared += 1
        at = bisect_left(tails, place)
        tails[at : at + 1] = [place]
    return len(tails) / compared if compared else 0.0


def compare(path: Path) -> Row:
    against = reference(path)
    started = time.perf_counter()
    try:
        document = read_sources([str(path)], limits=Limits()).documents[0]
    except DocumentError as error:
        return Row(path.name, reason=f"{type(error).__name__}: {error.message}".replace(
            f"{path}: ", ""
        ))  # fmt: skip
    seconds = round(time.perf_counter() - started, 3)
    given = words(document.text)
    facts = {
        "words": len(given),
        "seconds": seconds,
        "warnings": tuple(document.warnings),
        "left_out": tuple(f"{one.count} {one.what}" for one in document.left_out),
    }
    if against is None:
        return Row(path.name, reason="no reference", **facts)
    expected = words(against[0])
    if not expected:
        return Row(path.name, reason=f"{against[1]} has no words", **facts)
    common = (Counter(given) & Counter(expected)).total()
    return Row(
        path.name,
        round(common / len(expected), 4),
        round(common / max(1, len(given)), 4),
        round(ordered_share(given, expected), 4),
        reference_words=len(expected),
        reference=against[1],
        **facts,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="OUT", help="all rows")
    args = parser.parse_args()
    files = sorted(p for p in args.folder.rglob("*") if p.suffix.lower() in KINDS and p.is_file())
    if not files:
        parser.error(f"no documents in {args.folder}")
    rows = []
    for path in files:
        rows.append(compare(path))
        print(f"{len(rows)}/{len(files)} {path.name}", file=sys.stderr)
    measured = sorted((r for r in rows if r.recall is not None), key=lambda r: (r.recall, r.order))
    print(f"{'file':44} {'recall':>7} {'precis.':>7} {'order':>7} {'words':>8} {'seconds':>8}")
    for row in measured:
        print(
            f"{row.file[:44]:44} {row.recall:7.4f} {row.precision:7.4f} {row.order:7.4f} "
            f"{row.reference_words:8} {row.seconds:8.2f}"
        )
    for row in rows:
        if row.recall is None:
            print(f"{row.file[:44]:44} {row.reason}")
    figures = {
        "benchmark": "extraction",
        "files": len(rows),
        "measured": len(measured),
        **{
            f"median_{name}": round(statistics.median(getattr(r, name) for r in measured), 4)
            for name in ("recall", "precision", "order")
            if measured
        },
        "under_0.9": [row.file for row in measured if row.recall is not None and row.recall < 0.9],
        **environment(),
    }
    print(json.dumps(figures))
    if args.json:
        report = figures | {"rows": [asdict(row) for row in measured] + [
            asdict(row) for row in rows if row.recall is None
        ]}  # fmt: skip
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
