"""Bounds on what one call of the reader may take."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds of a worker's CPU time. Reaching one raises
    ``LimitExceeded``.

    CPU time, because on a busy machine wall time says nothing about a document. What waits
    without computing is ended after ``wall_factor`` times as many seconds by the clock.
    """

    source_bytes: int = 2 * GIB  # a PDF or an archive, parsed from disk
    text_bytes: int = 256 * MIB  # anything read into memory: text, HTML, standard input
    total_chars: int = 512 * MIB  # text of all sources together
    files: int = 100_000  # entries looked at in folders and globs
    depth: int = 100  # folders inside folders
    code_bytes: int = 1 * MIB  # a source or data file met in a folder; larger ones are data
    archive_members: int = 50_000
    archive_bytes: int = 256 * MIB  # unpacked, all members that are read
    archive_ratio: int = 200  # unpacked / packed, of members above 1 MiB
    pdf_pages: int = 50_000
    page_seconds: float = 10.0  # one PDF page
    parse_seconds: float = 60.0  # opening a PDF; a whole HTML, EPUB or DOCX file
    document_seconds: float = 1200.0  # one PDF as a whole, all processes together
    wall_factor: float = 12.0
    stalled_pages: int = 6  # pages that may run out of time before the PDF is given up
    worker_bytes: int = 3 * GIB  # address space of a worker process, beside the file itself
    workers: int = 8  # processes that read pages of one PDF, at most one per core
