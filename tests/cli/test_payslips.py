"""Documents that differ in a line only: the month that was asked for is the month that is cited."""

import json
from pathlib import Path

import pytest

from tests.cli.documents.make import pdf

MONTHS = {
    "January": "2,871.40", "February": "2,871.40", "March": "2,915.12", "April": "2,902.77",
    "May": "3,011.05", "June": "2,988.60", "July": "2,871.95", "August": "2,940.31",
    "September": "2,899.18", "October": "2,957.64", "November": "3,420.09", "December": "4,118.73",
}  # fmt: skip
QUESTION = "What was the net pay in December?"


def slip(month: str, number: int) -> str:
    net = float(MONTHS[month].replace(",", ""))
    return (
        f"Harbour Works Ltd\nPayslip 2024\nEmployee no. 4711\nMonth: {month}\n"
        f"Hours worked in {month}: {159 + number}\nShift allowance for {month}: {39 + number}.00\n"
        f"Gross pay: {net * 1.3:.2f}\nTax: {net * 0.3:.2f}\nNet pay: {MONTHS[month]}"
    )


def as_files(folder: Path) -> list[Path]:
    for number, month in enumerate(MONTHS, 1):
        (folder / f"{number:02}-{month}.txt").write_text(slip(month, number) + "\n")
    return sorted(folder.glob("*.txt"))


def as_pdfs(folder: Path) -> list[Path]:
    for number, month in enumerate(MONTHS, 1):
        (folder / f"{number:02}-{month}.pdf").write_bytes(pdf([slip(month, number)]))
    return sorted(folder.glob("*.pdf"))


def as_pages(folder: Path) -> list[Path]:
    """Depends on running lines being told from payments: the same place, other numbers."""
    pages = [slip(month, number) for number, month in enumerate(MONTHS, 1)]
    (folder / "payslips.pdf").write_bytes(pdf(pages))
    return [folder / "payslips.pdf"]


PAGES = pytest.param(
    as_pages,
    marks=pytest.mark.xfail(reason="payments are taken for page numbers", strict=False),
)


def of_month(text: str, month: str) -> str:
    """What stands between a month and the next."""
    return text.partition(f"Month: {month}")[2].partition("Month: ")[0]


@pytest.mark.parametrize("make", [as_files, as_pdfs, PAGES])
def test_every_net_pay_is_read(infllm, tmp_path, make):
    text = infllm("inspect", "--text", *make(tmp_path)).out
    for month, net in MONTHS.items():
        assert f"Net pay: {net}" in of_month(text, month)


@pytest.mark.parametrize("make", [as_files, as_pdfs, PAGES])
def test_the_net_pay_of_december_is_cited(infllm, pocket, tmp_path, make):
    """The last slips are within the window when the question comes: they need no lookup."""
    fields = json.loads(infllm("ask", *make(tmp_path), QUESTION, "--json").out)
    cited = [citation["quote"] for citation in fields["citations"]]
    assert any("December" in quote and "Net pay: 4,118.73" in quote for quote in cited)
