"""Text made fit for a terminal: control sequences out, numbers and sizes in readable form."""

import re

# Documents, names and models are not trusted: an escape sequence could recolour, retitle or clear
# the reader's terminal, and a bidirectional override shows "exe.txt" for what is called "txt.exe".
# Joiners (U+200C, U+200D) stay: scripts and emoji are spelled with them.
UNSAFE = (
    "\x7f-\x9f"  # delete, C1 controls: U+009B begins an escape sequence
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # what turns the direction of writing
    "\u2028\u2029"  # separators of lines and paragraphs
    "\ufff9-\ufffb"  # interlinear annotations
    "\ud800-\udfff"  # lone surrogates: no characters, and no UTF-8
)
_CONTROLS = re.compile(f"[\x00-\x08\x0d-\x1b{UNSAFE}]")
# Other ends of lines, pages and records: to drop them would weld the words on both sides.
_SEPARATORS = re.compile("[\x0b\x0c\x1c-\x1f\x85\u2028\u2029]")


def clean(text: str) -> str:
    """`text` without control characters, except line feed and tab, and without what turns the
    direction of writing. Carriage returns go (they overwrite); separators become line feeds."""
    return _CONTROLS.sub("", _SEPARATORS.sub("\n", text))


def one_line(text: str) -> str:
    """`clean` text on a single line, for names and messages."""
    return " ".join(clean(text).split())


# What follows a noun and keeps its number.
_HEAD = re.compile(r"(?=,? (?:without|with|of|in|on|by|from|for|that|beside|outside) )")


def count(number: int) -> str:
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """`3 files`, `1 file`, `2 policies`, `2 images without text`."""
    if number == 1:
        return f"{number:,} {noun}"
    head, *rest = _HEAD.split(noun, maxsplit=1)
    if re.search(r"[^aeiou]y$", head):
        head = f"{head[:-1]}ie"
    elif re.search(r"(?:s|x|ch|sh)$", head):
        head = f"{head}e"
    return f"{number:,} {head}s{''.join(rest)}"


def size(n_bytes: int | float) -> str:
    """Bytes in decimal units with three digits: `512 B`, `4.19 MB`, `128 GB`."""
    amount = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def seconds(duration: float) -> str:
    """`0.42 s`, `93.1 s`, `12 min 5 s`, `2 h 3 min`."""
    if duration < 1:
        return f"{duration:.2f} s"
    if duration < 119.95:
        return f"{duration:.1f} s"
    whole = round(duration)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
