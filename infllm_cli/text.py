"""Text made fit for a terminal: control sequences out, numbers and sizes in readable form."""

# Documents and models are not trusted: an escape sequence in either could recolour, retitle or
# clear the reader's terminal. Line feeds and tabs stay; carriage returns go (they overwrite).
_CONTROLS = {code: None for code in (*range(32), 127, *range(128, 160)) if chr(code) not in "\n\t"}


def clean(text: str) -> str:
    """`text` without C0 and C1 control characters, except line feed and tab."""
    return text.translate(_CONTROLS)


def one_line(text: str) -> str:
    """`clean` text on a single line, for names and messages."""
    return " ".join(clean(text).split())


def count(number: int) -> str:
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """`3 files`, `1 file`, `2 policies`."""
    if number == 1:
        return f"{number:,} {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("cy") else f"{number:,} {noun}s"


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
