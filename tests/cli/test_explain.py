"""Strips and pictures of what was looked up."""

import re
import unicodedata
from dataclasses import dataclass

import pytest

from infllm.cli.tasks.explain import ASCII_SHADES, LABEL, draw_strip, strips
from tests.cli.memories import ANSWER, HARBOUR


@dataclass(frozen=True)
class Unit:
    start: int
    stop: int
    mass: float


def test_explain_draws_within_the_width_and_without_escape_codes(infllm, harbour):
    result = infllm("ask", harbour, HARBOUR, "--explain", "--no-read-back")
    assert result.out == f"{ANSWER}\n"
    assert "\x1b" not in result.raw_err
    drawn = [line for line in result.raw_err.splitlines() if line.endswith("|")]
    assert drawn[0].startswith("question ")
    assert "".join(line[:LABEL].strip() for line in drawn[1:]).endswith(ANSWER)
    assert all(len(line) == 80 for line in drawn)
    assert any("█" in line for line in drawn)


def test_explain_says_what_was_read_back(infllm, harbour):
    result = infllm("ask", harbour, HARBOUR, "--explain", "--read-back")
    drawn = [line for line in result.raw_err.splitlines() if line.endswith("|")]
    assert len(drawn) == 1
    assert re.search(r"read back \d+ tokens of it, and answered from these\n", result.raw_err)


def cells(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


@pytest.mark.parametrize("width", [10, 25, 40, 80, 200])
@pytest.mark.parametrize("pieces", [["a"], ["\u4e2d\u6587" * 9], [" word"] * 100, []])
def test_no_line_of_a_strip_is_wider_than_the_terminal(width, pieces):
    looked = [Unit(0, 32, 0.5), Unit(64, 96, 0.1)]
    drawn = draw_strip(looked, [looked] * len(pieces), pieces, 123_456_789, width)
    assert max(map(cells, drawn)) <= width
    assert len(drawn) <= 26


def test_a_strip():
    looked = [Unit(0, 10, 0.1), Unit(70, 80, 0.4)]
    drawn = draw_strip(looked, [[Unit(30, 40, 1.0)], []], [" one", "\n"], 80, 25, ASCII_SHADES)
    assert drawn == [
        "               080 tokens",
        "question       |.      #|",
        "one            |   #    |",
        "               |        |",
    ]


def test_strips_put_what_lies_behind_the_document_into_the_last_column():
    assert strips([[Unit(150, 160, 1.0)], []], 100, 4) == [[0, 0, 0, 1.0], [0] * 4]


@pytest.mark.parametrize("back", ["--read-back", "--no-read-back"])
def test_plot_writes_a_picture(infllm, harbour, tmp_path, back):
    path = tmp_path / "lookups.png"
    costs = "What costs $5_{ and not $6^, \\frac?"
    result = infllm("ask", harbour, costs, "--plot", path, back, "--max-new-tokens", "4")
    assert result.code == 0, result.raw_err
    assert path.read_bytes().startswith(b"\x89PNG")
    assert f"drew {path}\n" in result.err


@pytest.mark.parametrize("path", ["lookups.bmp", "missing/lookups.png"])
def test_a_picture_that_cannot_be_drawn_is_told_before_reading(infllm, fakes, book, path):
    result = infllm("ask", book, "Why?", "--plot", path)
    assert (result.code, fakes.engines) == (2, [])
