"""Documents of any kind as text in which every character knows where it came from."""

from infllm.cli.documents.document import Collection, Document, LeftOut, Origin, Skipped, Span
from infllm.cli.documents.errors import (
    DocumentError,
    Encrypted,
    LimitExceeded,
    NoText,
    SourceNotFound,
    Unreadable,
    UnsupportedFormat,
)
from infllm.cli.documents.folder import is_memory
from infllm.cli.documents.limits import Limits
from infllm.cli.documents.reading import Listing, list_sources, read_sources

__all__ = [
    "Collection",
    "Document",
    "DocumentError",
    "Encrypted",
    "LeftOut",
    "LimitExceeded",
    "Limits",
    "Listing",
    "NoText",
    "Origin",
    "Skipped",
    "SourceNotFound",
    "Span",
    "Unreadable",
    "UnsupportedFormat",
    "is_memory",
    "list_sources",
    "read_sources",
]
