"""List numbers of Word documents, as Word shows them."""

from pathlib import Path

import pytest

from infllm.cli.documents.archive import Archive
from infllm.cli.documents.docx import read_docx
from infllm.cli.documents.limits import Limits
from infllm.cli.documents.numerals import numeral
from tests.cli.documents.word import level, numbered, p, style, word

LIST = '<w:abstractNum w:abstractNumId="{}">{}</w:abstractNum>'
NUMBER = '<w:num w:numId="{}"><w:abstractNumId w:val="{}"/>{}</w:num>'
RESTART = '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="{}"/></w:lvlOverride>'


@pytest.fixture
def lines(tmp_path: Path):
    def lines(body: str, **parts: str) -> list[str]:
        path = tmp_path / "a.docx"
        path.write_bytes(word(body, **parts))
        with Archive(str(path), "a.docx", Limits()) as opened:
            return read_docx(opened).text.split("\n\n")

    return lines


def test_levels_count_within_each_other(lines) -> None:
    levels = (
        level(0, "decimal", "%1.")
        + level(1, "lowerLetter", "%1.%2)")
        + level(2, "lowerRoman", "(%3)")
    )
    places = [0, 1, 1, 2, 0, 1, 2, 2]
    assert lines(
        "".join(numbered("x", depth) for depth in places),
        numbering=LIST.format(0, levels) + NUMBER.format(1, 0, ""),
    ) == ["1. x", "1.a) x", "1.b) x", "(i) x", "2. x", "2.a) x", "(i) x", "(ii) x"]  # fmt: skip


def test_numbers_go_on_and_restart(lines) -> None:
    numbering = LIST.format(0, level(0, "decimal", "%1)", start=3)) + "".join(
        NUMBER.format(number, 0, override)
        for number, override in ((1, ""), (2, ""), (3, RESTART.format(7)))
    )
    body = "".join(numbered("x", number=number) for number in (1, 1, 2, 3, 3, 1))
    assert lines(body, numbering=numbering) == ["3) x", "4) x", "5) x", "7) x", "8) x", "9) x"]


def test_a_level_that_does_not_restart(lines) -> None:
    never = '<w:lvlRestart w:val="0"/>'
    levels = level(0, "decimal", "%1") + level(1, "decimal", "%2", never)
    body = "".join(numbered("x", depth) for depth in (0, 1, 0, 1))
    numbering = LIST.format(0, levels) + NUMBER.format(1, 0, "")
    assert lines(body, numbering=numbering) == ["1 x", "1 x", "2 x", "2 x"]


def test_legal_numbers_are_decimal(lines) -> None:
    levels = level(0, "upperRoman", "%1") + level(1, "decimal", "%1.%2", "<w:isLgl/>")
    body = numbered("x") + numbered("y", 1)
    numbering = LIST.format(0, levels) + NUMBER.format(1, 0, "")
    assert lines(body, numbering=numbering) == ["I x", "1.1 y"]


def test_symbols(lines) -> None:
    def font(name: str) -> str:
        return f'<w:rPr><w:rFonts w:ascii="{name}"/></w:rPr>'

    levels = (
        level(0, "bullet", "\uf0b7", font("Symbol"))
        + level(1, "bullet", "\uf0fc", font("Wingdings"))
        + level(2, "bullet", "–")
        + level(3, "bullet", "\ue123", font("Unknown"))
    )
    body = "".join(numbered("x", depth) for depth in range(4))
    numbering = LIST.format(0, levels) + NUMBER.format(1, 0, "")
    assert lines(body, numbering=numbering) == ["• x", "✓ x", "– x", "• x"]


def test_numbers_of_styles_and_their_bases(lines) -> None:
    place = '<w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr>'
    styles = style("h1", "heading 1", inside=place) + style("h2", "heading 2", "h1")
    levels = level(0, "decimal", "Part %1:", '<w:pStyle w:val="h1"/>') + level(
        1, "decimal", "%1.%2", '<w:pStyle w:val="h2"/>'
    )
    off = '<w:numPr><w:numId w:val="0"/></w:numPr>'
    body = p("a", style="h1") + p("b", style="h2") + p("c", style="h1", properties=off)
    numbering = LIST.format(0, levels) + NUMBER.format(1, 0, "")
    assert lines(body, styles=styles, numbering=numbering) == ["Part 1: a", "1.1 b", "c"]


def test_lists_kept_by_a_numbering_style(lines) -> None:
    numbering = (
        LIST.format(0, '<w:numStyleLink w:val="s"/>')
        + LIST.format(1, '<w:styleLink w:val="s"/>' + level(0, "decimal", "§ %1"))
        + NUMBER.format(1, 0, "")
    )
    assert lines(numbered("x") + numbered("y"), numbering=numbering) == ["§ 1 x", "§ 2 y"]


def test_nothing_for_lists_that_are_not_there(lines) -> None:
    assert lines(numbered("x", number=5)) == ["x"]


@pytest.mark.parametrize(
    ("number", "style", "text"),
    [
        (4, "upperRoman", "IV"), (1994, "lowerRoman", "mcmxciv"), (27, "lowerLetter", "aa"),
        (28, "upperLetter", "BB"), (7, "decimalZero", "07"), (7, "none", ""),
        (7, "unheard-of", "7"),
        (11, "ordinal", "11th"), (22, "ordinal", "22nd"), (3, "decimalEnclosedCircle", "③"),
        (21, "decimalEnclosedCircle", "21"), (12, "chineseCounting", "十二"),
        (105, "chineseCountingThousand", "一百〇五"), (2, "russianLower", "б"),
        (0, "lowerRoman", "0"), (10**9, "lowerRoman", "1000000000"),
        (3, "ideographTraditional", "丙"),
    ],
)  # fmt: skip
def test_number_formats(number: int, style: str, text: str) -> None:
    assert numeral(number, style) == text


def test_a_custom_number_format() -> None:
    assert numeral(7, "custom", "001, 002, 003, ...") == "007"
