"""Bytes to text: byte order mark, Unicode by its own structure, then a guess that says so."""

from __future__ import annotations

import codecs
import re
import unicodedata

from infllm.cli.documents.controls import clean
from infllm.cli.documents.errors import UnsupportedFormat
from infllm.cli.documents.legacy import decode_legacy, decode_mixed

__all__ = ["BYTE_ORDER_MARKS", "binary", "clean", "decode", "wide_encoding"]

# UTF-32-LE begins like UTF-16-LE, so it is asked first.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

# Written in seven bits, so it passes for UTF-8: shifts between ASCII and two-byte characters.
SHIFTED = (
    (re.compile(rb"\x1b\$\)C"), ("iso2022_kr",)),
    (re.compile(rb"\x1b\$[@B]"), ("iso2022_jp_2", "iso2022_jp_2004", "iso2022_jp_ext")),
)
WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
SAMPLE_BYTES = 65536
WIDE_BYTES = 8  # fewer say nothing
WIDE_TEXT = 0.97  # share of plausible characters in text of two or four bytes a character
# Characters in common use whose code ends in a zero byte; any other is ASCII with swapped bytes.
ROUND_CODES = {0x3000, 0x4E00, 0x6700}
# Controls that no text holds. Line and page breaks, backspace, escape, the information separators
# and the end mark of DOS files are found in texts.
ODD_CONTROL = re.compile(rb"[\x01-\x07\x0e-\x19\x7f]")
NULS = re.compile(rb"\0+")
ASCII_WORDS = re.compile(rb"[A-Za-z0-9 ]")
# Runs of NUL bytes in a text: lists separated by them, padding, logs after a power cut. A binary
# file has more of them.
NUL_SHARE = 1 / 6
CONTROL_SHARE = 1 / 50  # compressed data has five times as many


def decode(data: bytes, source: str) -> tuple[str, str | None]:
    """Text of ``data``, and a warning where its encoding was guessed or damaged.

    Raises UnsupportedFormat for binary data.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _damaged(data[len(mark) :], encoding)
    if b"\0" in data and not _is_text_with_nuls(data):
        wide = wide_encoding(data)
        if wide is not None:
            text, warning = _damaged(data, wide)
            return text, warning or f"no byte order mark; read as {wide}, which is a guess"
        if _is_binary(data):
            raise binary(source)
    for shift, encodings in SHIFTED:
        if shift.search(data) and data.isascii():
            return _shifted(data, encodings)
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError as error:
        first = error.start
    if _is_binary(data):
        raise binary(source)
    return decode_mixed(data, first) or decode_legacy(data)


def binary(source: str) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"{source}: binary data of no known document format",
        "Give text, Markdown, HTML, EPUB, PDF, DOCX, a notebook or source code.",
    )


def wide_encoding(data: bytes) -> str | None:
    """The one of ``WIDE`` in which data without a byte order mark is text, if any.

    Blanks, newlines and digits of every script have a zero byte there, on one side.
    """
    best, encoding = WIDE_TEXT, None
    if len(data) < WIDE_BYTES:
        return None
    for candidate in WIDE:
        width = 4 if "32" in candidate else 2
        sample = data[: min(SAMPLE_BYTES, len(data) - len(data) % width)]
        if b"\0" not in sample:
            continue
        text = sample.decode(candidate, errors="replace")
        share = sum(map(_is_plausible, text)) / len(text) if text else 0.0
        if share > best:
            best, encoding = share, candidate
    return encoding


def _is_plausible(char: str) -> bool:
    """Whether a character is found in texts. ASCII read with its bytes swapped gives ideographs
    and blanks of other scripts, the newline a code point without a character."""
    code = ord(char)
    if code < 0x250:
        return char.isprintable() or char in "\t\n\v\f\r"
    if code == 0xFFFD or (not code & 0xFF and code < 0x7F00 and code not in ROUND_CODES):
        return False
    return unicodedata.category(char) not in ("Cn", "Cc", "Co", "Cs")


def _is_text_with_nuls(data: bytes) -> bool:
    """Whether single bytes are characters, in spite of the NULs among them.

    Read as UTF-16, such a text gives ideographs, which are plausible too.
    """
    if _is_binary(data):
        return False
    sample = data[:SAMPLE_BYTES]
    return len(ASCII_WORDS.findall(sample)) > len(sample) / 2 or _is_utf8(data)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_binary(data: bytes) -> bool:
    """Whether the beginning of ``data``, or of what follows its first NUL, has too many controls.

    Bytes above ASCII count for nothing: in Shift_JIS or a DOS code page most letters are there.
    """
    first = max(0, data.find(b"\0") - SAMPLE_BYTES // 8)
    for sample in (data[:SAMPLE_BYTES], data[first : first + SAMPLE_BYTES]):
        runs = len(NULS.findall(sample))
        length = len(sample) - sample.count(b"\0") + runs
        odd = len(ODD_CONTROL.findall(sample))
        if runs > NUL_SHARE * length or (odd and odd + runs > CONTROL_SHARE * length):
            return True
    return False


def _shifted(data: bytes, encodings: tuple[str, ...]) -> tuple[str, str]:
    for encoding in encodings:
        try:
            return data.decode(encoding), f"read as {encoding}, which is a guess"
        except UnicodeDecodeError:
            continue
    text, warning = _damaged(data, encodings[0])
    return text, f"read as {encodings[0]}, which is a guess; {warning}"


def _damaged(data: bytes, encoding: str) -> tuple[str, str | None]:
    try:
        return data.decode(encoding), None
    except UnicodeDecodeError:
        text = data.decode(encoding, errors="replace")
    broken = text.count("\N{REPLACEMENT CHARACTER}")
    return text, f"{broken} characters are damaged ({encoding} with wrong bytes)"
