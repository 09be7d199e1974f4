"""Real documents from many producers, sound and broken: text or a typed error, as expected."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infllm.cli.documents import Document, DocumentError, NoText, read_sources

SECONDS = 60  # a bound against hanging, not a measurement
CLOSE = 0.15  # relative difference to the reference's count of characters

Outcome = Document | DocumentError


@dataclass(frozen=True)
class Case:
    """One reading of one file: what the manifest's sentence allows, and what came."""

    file: str
    expected: str
    probe: dict
    outcome: Outcome
    seconds: float


@pytest.fixture(scope="module")
def cases(documents_folder: Path) -> list[Case]:
    manifest = json.loads((documents_folder / "MANIFEST.json").read_text(encoding="utf-8"))
    return [
        case
        for entry in manifest["documents"]
        for case in read_as_expected(documents_folder, entry)
    ]


def read_as_expected(folder: Path, entry: dict) -> Iterator[Case]:
    """Without the password, and where the manifest gives one, with it."""
    without, _, given = entry["expected"].partition("; with the password: ")
    yield read(folder, entry, without.removeprefix("without password: "), None)
    if given:
        yield read(folder, entry, given, entry["password"])


def read(folder: Path, entry: dict, expected: str, password: str | None) -> Case:
    started = time.monotonic()
    outcome: Outcome
    try:
        path = str(folder / entry["file"])
        outcome = read_sources([path], password=password).documents[0]
    except DocumentError as error:
        outcome = error
    seconds = time.monotonic() - started
    return Case(entry["file"], expected, entry["reference_probe"], outcome, seconds)


def fits(outcome: Outcome, expected: str) -> bool:
    if isinstance(outcome, Document):
        # Where the reference reads pages alone, we read what was written upon them too.
        if outcome.kind == "pdf" and outcome.text.startswith("Added text: "):
            return True
        return "text" in expected.replace("no text", "") or "plus a warning" in expected
    if isinstance(outcome, NoText):
        return "no text" in expected
    return "typed error" in expected


def test_every_document_as_its_manifest_expects(cases: list[Case]) -> None:
    assert [case for case in cases if not fits(case.outcome, case.expected)] == []


def test_every_document_in_time(cases: list[Case]) -> None:
    assert [case for case in cases if case.seconds > SECONDS] == []


def test_errors_name_the_file_and_the_next_step(cases: list[Case]) -> None:
    for case in cases:
        if isinstance(case.outcome, DocumentError):
            assert case.file in case.outcome.message
            assert case.outcome.hint


def test_as_much_text_as_the_reference_finds(cases: list[Case]) -> None:
    off = []
    for case in cases:
        reference = case.probe.get("pdfium_chars", case.probe.get("chars"))
        if case.expected == "text" and isinstance(reference, int) and reference >= 100:
            found = len(case.outcome.text) if isinstance(case.outcome, Document) else 0
            if abs(found - reference) > CLOSE * reference:
                off.append((case.file, reference, found))
    assert off == []


def test_every_character_has_an_origin(cases: list[Case]) -> None:
    for case in cases:
        if isinstance(case.outcome, Document):
            ends = [0, *(span.end for span in case.outcome.spans)]
            assert [span.start for span in case.outcome.spans] == ends[:-1]
            assert ends[-1] == len(case.outcome.text)
            paged = {span.page_index is not None for span in case.outcome.spans}
            assert paged == {case.outcome.kind == "pdf"}
