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
    net = MONTHS[month]
    gross = f"{float(net.replace(',', '')) * 1.4:,.2f}"
    return (
        f"Harbour Works Ltd\nPayslip for {month} 2024\nEmployee: Ada Finch, number 4471\n"
        f"Gross pay: {gross}\nIncome tax: {number * 7 + 412}.18\nPension: {number * 3 + 96}.50\n"
        f"The net pay in {month} was {net} and was paid on {month} {20 + number % 8}.\n"
        f"Page {number} of 12"
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


@pytest.mark.parametrize("make", [as_files, as_pdfs, as_pages])
def test_the_net_pay_of_december_is_cited(infllm, pocket, tmp_path, make):
    sources = make(tmp_path)
    text = infllm("inspect", "--text", *sources).out
    for month, net in MONTHS.items():
        assert f"The net pay in {month} was {net}" in text
    fields = json.loads(infllm("ask", *sources, QUESTION, "--json").out)
    assert "The net pay in December was 4,118.73" in fields["citations"][0]["quote"]
