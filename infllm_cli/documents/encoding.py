"""Bytes to text: byte order mark, strict UTF-8, then a guess that says so."""

from __future__ import annotations

import codecs
import re

from infllm.cli.documents.errors import UnsupportedFormat

# UTF-32-LE begins like UTF-16-LE, so it is asked first.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

# All C0 and C1 controls except tab and newline, DEL, and lone surrogates.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

GUESS_BYTES = 65536  # charset-normalizer takes seconds on megabytes; a sample decides as well
BROKEN_UTF8 = 0.01  # share of replaced characters up to which a text counts as damaged UTF-8


def decode(data: bytes, source: str) -> tuple[str, str | None]:
    """Text of ``data``, and a warning where its encoding was guessed or damaged.

    Raises UnsupportedFormat for binary data.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            text = data[len(mark) :].decode(encoding, errors="replace")
            return text, _damage(text, encoding)
    if b"\0" in data:
        raise binary(source)
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError:
        return _guess(data, source)


def binary(source: str) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"{source}: binary data of no known document format",
        "Give text, Markdown, HTML, EPUB, PDF, DOCX, a notebook or source code.",
    )


def _guess(data: bytes, source: str) -> tuple[str, str | None]:
    damaged = data.decode("utf-8", errors="replace")
    broken = damaged.count("\N{REPLACEMENT CHARACTER}")
    valid = sum(1 for byte in data[:GUESS_BYTES] if byte >= 0xC0)
    if broken <= BROKEN_UTF8 * len(damaged) and broken * 4 <= valid:
        return damaged, _damage(damaged, "utf-8")
    if len(CONTROL.findall(data[:GUESS_BYTES].decode("latin-1"))) > 0.3 * min(
        len(data), GUESS_BYTES
    ):
        raise binary(source)
    from charset_normalizer import from_bytes

    # The sample is cut at the first byte above ASCII, which carries the evidence.
    first = next(index for index, byte in enumerate(data) if byte >= 0x80)
    begin = max(0, first - GUESS_BYTES // 8)
    best = from_bytes(data[begin : begin + GUESS_BYTES]).best()
    guesses = ["cp1252", "latin-1"]
    # Several encodings may read the sample alike; then the commonest is meant.
    if best is not None and "cp1252" not in best.could_be_from_charset:
        guesses.insert(0, best.encoding)
    for encoding in guesses:
        try:
            text = data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
        return text, f"not UTF-8; read as {encoding}, which is a guess"
    raise binary(source)  # not reached: latin-1 decodes every byte


def _damage(text: str, encoding: str) -> str | None:
    broken = text.count("\N{REPLACEMENT CHARACTER}")
    if not broken:
        return None
    return f"{broken} characters are damaged ({encoding} with wrong bytes)"


def clean(text: str) -> str:
    """Newlines as \\n; control characters and lone surrogates removed."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return CONTROL.sub("", text) if CONTROL.search(text) else text
