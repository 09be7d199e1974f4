"""The text of PDF pages made plain: ligatures spelt, control characters out, line by line."""

from __future__ import annotations

import re
from dataclasses import dataclass

from infllm.cli.documents.encoding import clean

LIGATURES = str.maketrans(
    {
        "\ufb00": "ff",
        "\ufb01": "fi",
        "\ufb02": "fl",
        "\ufb03": "ffi",
        "\ufb04": "ffl",
        "\ufb05": "st",
        "\ufb06": "st",
    }
)
# pdfium writes U+FFFE (older ones U+0002) for a hyphen at the end of a line, newline included.
LINE_HYPHEN = re.compile("[\ufffe\x02](?:\r?\n)?")
SOFT_HYPHEN = re.compile("\u00ad(?! ?\n)")


def normalize(raw: str) -> str:
    """One page's raw text: newlines \\n, no control characters, ligatures as letters, line-end
    hyphens as hyphen and newline."""
    text = clean(LINE_HYPHEN.sub("-\n", raw)).translate(LIGATURES).replace("\uffff", "")
    text = SOFT_HYPHEN.sub("", text)
    lines = [line.rstrip() for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


@dataclass
class PageLines:
    """A page's lines as normalized text. ``edges``: how far the upper and lower edge of each is
    from the page's top, in points, and ``height`` the page's; None where that is not known."""

    texts: list[str]
    edges: list[tuple[float, float]] | None = None
    height: float = 0.0

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


def page_lines(
    raw: list[str], edges: list[tuple[float, float]] | None = None, height: float = 0.0
) -> PageLines:
    """Normalized; a line without text goes, and between blocks one empty line stays."""
    if edges is None:
        text = normalize("\n".join(raw))
        return PageLines(text.split("\n") if text else [])
    kept = [
        (normalize(line + "\n!")[:-2].rstrip(), edge) for line, edge in zip(raw, edges, strict=True)
    ]
    kept = [(line, edge) for line, edge in kept if line.strip()]
    return PageLines([line for line, _ in kept], [edge for _, edge in kept], height)
