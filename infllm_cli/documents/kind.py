"""Which kind of document some bytes are. The content decides; the name only breaks ties."""

from __future__ import annotations

import re
from pathlib import PurePath

from infllm.cli.documents.encoding import BYTE_ORDER_MARKS, decode
from infllm.cli.documents.errors import UnsupportedFormat
from infllm.cli.documents.words import words

HEAD_BYTES = 65536  # how much of a file ``sniff`` wants to see

# Kinds whose parsers run in a worker process and read the file themselves.
PARSED = frozenset({"pdf", "html", "epub", "docx", "zip"})

MARKDOWN = {".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd"}
RST = {".rst", ".rest"}
HTML = {".html", ".htm", ".xhtml", ".xht"}
CODE = words(
    """.py .pyi .pyx .ipynb .js .mjs .cjs .ts .tsx .jsx .c .h .cc .cpp .cxx .hh .hpp .cu .cuh .m
    .mm .java .kt .kts .scala .go .rs .rb .php .pl .pm .lua .r .jl .swift .cs .fs .vb .hs .ml .mli
    .ex .exs .erl .clj .lisp .el .sh .bash .zsh .fish .ps1 .bat .sql .proto .thrift .graphql .css
    .scss .less .vue .svelte .json .jsonl .yaml .yml .toml .ini .cfg .conf .xml .xsd .xsl .svg .csv
    .tsv .tf .cmake .mk .gradle .nix .zig .nim .dart .asm .s .f .f90 .v .sv .vhd .ld .tex .bib
    .diff .patch .lock .map"""
)

SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (8, b"WEBP", "a WebP image"),
    (4, b"ftyp", "a video or HEIF image"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Microsoft Office file (.doc, .xls, .ppt)"),
    (0, b"{\\rtf", "an RTF document"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"AT&TFORM", "a DjVu document"),
    (60, b"BOOKMOBI", "a Mobipocket/Kindle book"),
    (0, b"ITSF", "a CHM help file"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\0", "an xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"SQLite format 3", "an SQLite database"),
    (0, b"\x7fELF", "a program"),
)
NEXT_STEP = {
    "an RTF document": "Convert it: libreoffice --headless --convert-to docx FILE",
    "an old Microsoft Office file (.doc, .xls, .ppt)": (
        "Convert it: libreoffice --headless --convert-to pdf FILE"
    ),
    "a PostScript file": "Convert it: ps2pdf FILE",
    "a DjVu document": "Convert it: djvutxt FILE book.txt",
    "a Mobipocket/Kindle book": "Convert it to EPUB, e.g. with Calibre's ebook-convert.",
}

BLANKS = b" \t\r\n\f\0\xef\xbb\xbf"  # and the mark of UTF-8
PDF_HEADER_BYTES = 1024  # readers accept %PDF- anywhere in the first kilobyte
XML_DECLARATION = re.compile(rb"<\?xml[^>]{0,256}\?>")
HTML_START = re.compile(rb"<!doctype\s+html|<html[\s>]", re.IGNORECASE)
HTML_TAG = re.compile(rb"<(?:p|div|h[1-6]|body|table|ul|ol|br|span|article|section)\b[^<]*>", re.I)


def sniff(head: bytes, name: str) -> str:
    """Kind of the document that begins with ``head`` (up to HEAD_BYTES) and is called ``name``.

    One of text, markdown, rst, html, pdf, epub, docx, zip (an archive whose directory has to be
    read), notebook, code. Raises UnsupportedFormat, naming the format where it is known.
    """
    suffix = PurePath(name).suffix.lower()
    if _is_pdf(head) or _is_headless_pdf(head):
        return "pdf"
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return _zip_kind(head)
    for offset, signature, what in SIGNATURES:
        if head[offset : offset + len(signature)] == signature and not _is_text(head, offset):
            raise unsupported(name, what)
    body = head.removeprefix(BYTE_ORDER_MARKS[0][0])
    if b"\0" in head:  # binary, or text of two or four bytes a character
        body = decode(head, name)[0].encode(errors="replace")
    if _is_html(body) or (suffix in HTML and HTML_TAG.search(body)):
        return "html"
    if suffix == ".ipynb" or (body.lstrip().startswith(b"{") and b'"nbformat"' in body):
        return "notebook"
    if suffix in MARKDOWN:
        return "markdown"
    if suffix in RST:
        return "rst"
    return "code" if suffix in CODE else "text"


def _is_html(body: bytes) -> bool:
    """Whether a page begins here, behind blanks, comments and an XML declaration."""
    position = len(body) - len(body.lstrip())
    while True:
        declaration = XML_DECLARATION.match(body, position)
        if declaration:
            position = declaration.end()
        elif body.startswith(b"<!--", position):
            end = body.find(b"-->", position)
            if end < 0:
                return False
            position = end + len(b"-->")
        else:
            return HTML_START.match(body, position) is not None
        while body[position : position + 1].isspace():
            position += 1


def unsupported(name: str, what: str) -> UnsupportedFormat:
    hint = NEXT_STEP.get(what) or (
        "Run OCR on it first, e.g. ocrmypdf or tesseract."
        if "image" in what
        else "Unpack it and give the files or their folder."
        if "archive" in what
        else "Convert it to PDF, EPUB, DOCX, HTML or text."
    )
    return UnsupportedFormat(f"{name}: {what}; this format is not read", hint)


def _is_text(head: bytes, offset: int) -> bool:
    """Signatures that are plain letters could begin a text; binary files have controls soon."""
    return offset > 0 and not re.search(rb"[\x00-\x08\x0e-\x1f]", head[:512])


def _is_pdf(head: bytes) -> bool:
    """By a header at the start, or behind other bytes and before objects: texts may name one."""
    before, header, _ = head[:PDF_HEADER_BYTES].partition(b"%PDF-")
    return bool(header) and (not before.strip(BLANKS) or b" obj" in head)


def _is_headless_pdf(head: bytes) -> bool:
    """A PDF whose header line is damaged: a comment, then objects."""
    return head.startswith(b"%") and bool(
        re.search(rb"^\d+ \d+ obj\b", head[:PDF_HEADER_BYTES], re.M) and b"endobj" in head
    )


def _zip_kind(head: bytes) -> str:
    """By the members whose local headers are in sight; "zip" where only the directory can tell."""
    if head[30:38] == b"mimetype":
        return "epub" if head[38:].startswith(b"application/epub+zip") else "zip"
    names = re.findall(rb"PK\x03\x04.{26}(META-INF/container\.xml|word/)", head, re.DOTALL)
    return "zip" if not names else "docx" if names[0] == b"word/" else "epub"
