"""Fonts that do not say which characters they show, and scripts that run from right to left."""

import io
from pathlib import Path

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, NameObject, read_object

from infllm.cli.documents import NoText, read_sources
from tests.cli.documents.make import pdf


def garbled(pages: int, sound: int) -> bytes:
    """Pages in a font whose glyphs have names of no meaning, and some in a sound one."""
    names = b"BT /F2 12 Tf 72 700 Td <01020304050403> Tj 0 -14 Td <0102030405> Tj ET"
    writer = PdfWriter(clone_from=io.BytesIO(pdf([names] * pages + ["the sound text"] * sound)))
    encoding = b"<< /Type /Encoding /Differences [1 /g4 /g16 /g7 /g9 /g2] >>"
    font = (
        b"<< /Type /Font /Subtype /Type1 /BaseFont /ABCDEF+X /FirstChar 1 /LastChar 5 "
        b"/Widths [600 600 600 600 600] /Encoding %s >>" % encoding
    )
    for page in writer.pages:
        page["/Resources"]["/Font"][NameObject("/F2")] = read_object(io.BytesIO(font), writer)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_pages_whose_fonts_name_no_characters_are_flagged(read) -> None:
    warnings = read(garbled(1, 1)).warnings
    assert warnings[0].startswith("text is garbled, its fonts do not say which characters")
    assert warnings[0].endswith("page 1; run OCR, e.g. ocrmypdf --force-ocr")


def test_a_document_of_such_pages_has_no_text(read) -> None:
    with pytest.raises(NoText, match="no readable text on 2 of 2 pages"):
        read(garbled(2, 0))


# Hebrew in the order of reading, and as it is drawn from left to right.
VISUAL = [
    (
        "אבג דה 4711 וז",
        "זו 4711 הד גבא",
    ),
    ("אב 12/05/2024 גד", "דג 12/05/2024 בא"),
    ("אב 3,215.00 גד", "דג 3,215.00 בא"),
    (
        "אב hello world גד ה",
        "ה דג hello world בא",
    ),
    (
        "אב Python 3.11 גד ה",
        "ה דג Python 3.11 בא",
    ),
    ("אב 10 20 גד", "דג 20 10 בא"),
    ("(אב) גד", "דג (בא)"),
    ("12. אב גד", "דג בא .12"),
]


@pytest.mark.parametrize(("read_as", "drawn"), VISUAL)
def test_hebrew_is_read_from_right_to_left(read_as: str, drawn: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pdf"
    path.write_bytes(unicode_pdf(drawn))
    assert read_sources([str(path)]).text == read_as


def unicode_pdf(text: str) -> bytes:
    """A page that draws the characters from left to right, with a map to Unicode."""
    codes = {char: number for number, char in enumerate(sorted(set(text)), 1)}
    shown = "".join(f"{codes[char]:02X}" for char in text)
    pairs = "\n".join(f"<{code:02X}> <{ord(char):04X}>" for char, code in codes.items())
    cmap = DecodedStreamObject()
    cmap.set_data(
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def "
        b"/CMapType 2 def 1 begincodespacerange <00> <FF> endcodespacerange "
        + f"{len(codes)} beginbfchar\n{pairs}\nendbfchar endcmap end end".encode()
    )
    writer = PdfWriter(
        clone_from=io.BytesIO(pdf([f"BT /F2 12 Tf 72 700 Td <{shown}> Tj ET".encode()]))
    )
    widths = " ".join(["600"] * len(codes))
    font = read_object(
        io.BytesIO(
            f"<< /Type /Font /Subtype /TrueType /BaseFont /X /FirstChar 1 /LastChar {len(codes)} "
            f"/Widths [{widths}] >>".encode()
        ),
        writer,
    )
    font[NameObject("/ToUnicode")] = writer._add_object(cmap)
    writer.pages[0]["/Resources"]["/Font"][NameObject("/F2")] = font
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()
