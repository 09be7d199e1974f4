"""Control characters in text: what separates words goes on separating them, the rest goes."""

from __future__ import annotations

import re

# All C0 and C1 controls except tab and newline, DEL, and lone surrogates.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

# Controls that separate: NUL, vertical tab, form feed, the separators of files, groups and
# records, and next line end a line; the separator of units stands between two fields.
BREAKS = "\x00\x0b\x0c\x1c\x1d\x1e\x85"
BREAK = re.compile(f"[{BREAKS}]")
UNIT_SEPARATOR = "\x1f"
NULS = re.compile("\x00\x00+")
OVERSTRUCK = re.compile("[^\n\b]\b")  # one character over another: the last one is seen
# Colours and cursor moves, window titles. Their digits are no text: "\x1b[31m4711" says 4711.
ESCAPE = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)")


def _meaning(code: int) -> str | None:
    """What a control that separates nothing stands for; None where it is to go.

    A C1 control is a windows-1252 byte that somebody took for Latin-1: 0x92 is an apostrophe.
    """
    if chr(code) == UNIT_SEPARATOR:
        return " "
    if 0x80 <= code < 0xA0:
        return bytes([code]).decode("cp1252", errors="ignore") or None
    return None


MEANING = {
    code: _meaning(code)
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000))
    if chr(code) not in BREAKS + "\t\n"
}


def without_controls(text: str) -> str:
    """``text`` with newlines as \\n, and of controls only the ``BREAKS`` left."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not CONTROL.search(text):
        return text
    if "\x1b" in text:
        text = ESCAPE.sub("", text)
    if "\b" in text:
        text = OVERSTRUCK.sub("", text)
    return NULS.sub("\x00", text).translate(MEANING)


def clean(text: str, breaks: str = "\n") -> str:
    """Newlines as \\n; controls that separate as ``breaks``, one character; no other controls,
    and no lone surrogates."""
    return BREAK.sub(breaks, without_controls(text))
