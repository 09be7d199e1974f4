"""The example report: its facts can be read, each once, on the page that is recorded."""

import json

import pytest

from infllm.cli.documents import Limits
from infllm.cli.documents.pdf import read_pdf
from infllm.cli.documents.worker import Worker
from tests.conftest import ROOT


@pytest.mark.parametrize("backend", ["pdfium", "pypdf"])
def test_facts(backend: str) -> None:
    facts = json.loads((ROOT / "examples" / "field-report.json").read_text())["facts"]
    path = str(ROOT / "examples" / "field-report.pdf")
    with Worker(Limits()) as worker:
        report = read_pdf(path, "report", limits=Limits(), worker=worker, backend=backend)
    assert len(facts) == 12
    assert len(report.text.split()) > 15_000
    lines = report.text.split("\n")
    for fact in facts:
        assert lines.count(fact["sentence"]) == 1
        assert fact["answer"] in fact["sentence"]
        assert report.origin(report.text.index(fact["sentence"])).page == fact["page"]
