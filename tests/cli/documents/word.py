"""Word documents, part by part, for the tests."""

from __future__ import annotations

from collections.abc import Mapping

from tests.cli.documents.make import archive

NAMESPACES = " ".join(
    f'xmlns:{prefix}="{uri}"'
    for prefix, uri in {
        "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
        "m": "http://schemas.openxmlformats.org/officeDocument/2006/math",
        "r": "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
        "mc": "http://schemas.openxmlformats.org/markup-compatibility/2006",
        "wps": "http://schemas.microsoft.com/office/word/2010/wordprocessingShape",
        "wp": "http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing",
        "pic": "http://schemas.openxmlformats.org/drawingml/2006/picture",
        "c": "http://schemas.openxmlformats.org/drawingml/2006/chart",
        "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
        "v": "urn:schemas-microsoft-com:vml",
    }.items()
)
KINDS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
STRICT_KINDS = "http://purl.oclc.org/ooxml/officeDocument/relationships"


def t(text: str, look: str = "") -> str:
    """A run with some text."""
    properties = f"<w:rPr>{look}</w:rPr>" if look else ""
    return f'<w:r>{properties}<w:t xml:space="preserve">{text}</w:t></w:r>'


def p(*inside: str, style: str = "", properties: str = "") -> str:
    """A paragraph; what does not begin as markup is text."""
    runs = "".join(one if one.startswith("<") else t(one) for one in inside)
    named = f'<w:pStyle w:val="{style}"/>' if style else ""
    return f"<w:p><w:pPr>{named}{properties}</w:pPr>{runs}</w:p>"


def table(*rows: tuple[str, ...]) -> str:
    """A table of cells given as blocks, or as text."""
    lines = (
        "".join(f"<w:tc>{cell if cell.startswith('<') else p(cell)}</w:tc>" for cell in row)
        for row in rows
    )
    return f"<w:tbl>{''.join(f'<w:tr>{line}</w:tr>' for line in lines)}</w:tbl>"


def control(content: str) -> str:
    return f"<w:sdt><w:sdtPr/><w:sdtContent>{content}</w:sdtContent></w:sdt>"


def field(instruction: str, result: str) -> str:
    mark = '<w:r><w:fldChar w:fldCharType="{}"/></w:r>'.format
    code = f"<w:r><w:instrText>{instruction}</w:instrText></w:r>"
    return f"<w:r/>{mark('begin')}{code}{mark('separate')}{t(result)}{mark('end')}"


def style(style_id: str, name: str = "", base: str = "", inside: str = "", kind: str = "") -> str:
    based = f'<w:basedOn w:val="{base}"/>' if base else ""
    return (
        f'<w:style w:type="{kind or "paragraph"}" w:styleId="{style_id}">'
        f'<w:name w:val="{name or style_id}"/>{based}{inside}</w:style>'
    )


def level(depth: int, number_format: str, text: str, inside: str = "", start: int = 1) -> str:
    return (
        f'<w:lvl w:ilvl="{depth}"><w:start w:val="{start}"/><w:numFmt w:val="{number_format}"/>'
        f'<w:lvlText w:val="{text}"/>{inside}</w:lvl>'
    )


def numbered(text: str, depth: int = 0, number: int = 1) -> str:
    place = f'<w:numPr><w:ilvl w:val="{depth}"/><w:numId w:val="{number}"/></w:numPr>'
    return p(text, properties=place)


def relations(targets: Mapping[str, str], kinds: str = KINDS) -> str:
    """Relations ``r0``, ``r1``, ... to targets, by kind. A kind may end in a digit."""
    lines = (
        f'<Relationship Id="r{number}" Type="{kinds}/{kind.rstrip("0123456789")}"'
        f' Target="{target}"/>'
        for number, (kind, target) in enumerate(targets.items())
    )
    namespace = "http://schemas.openxmlformats.org/package/2006/relationships"
    return f'<Relationships xmlns="{namespace}">{"".join(lines)}</Relationships>'


def word(body: str, extra: Mapping[str, str | bytes] | None = None, **parts: str) -> bytes:
    """A Word document. ``parts`` are the contents of further parts by kind: styles, footnotes,
    header1, ..., to which the main part has relations ``r0``, ``r1``, ... in their order."""
    roots = {"styles", "numbering", "footnotes", "endnotes", "comments", "settings"}
    members: dict[str, str | bytes] = {
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": relations({"officeDocument": "word/document.xml"}),
        "word/document.xml": f"<w:document {NAMESPACES}><w:body>{body}</w:body></w:document>",
        "word/_rels/document.xml.rels": relations({kind: f"{kind}.xml" for kind in parts}),
    }
    for kind, content in parts.items():
        root = f"w:{kind}" if kind in roots else "w:hdr"
        whole = content if content.startswith("<c:chartSpace") else None
        members[f"word/{kind}.xml"] = whole or f"<{root} {NAMESPACES}>{content}</{root}>"
    return archive(members | dict(extra or {}))
