"""Documents and token offsets as bytes, for a memory's folder and for what tells memories apart."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from infllm.cli.documents import Collection, Document, LeftOut, Span


def array_bytes(offsets: np.ndarray) -> bytes:
    """Offsets as a NumPy file of 32-bit integers."""
    buffer = io.BytesIO()
    np.save(buffer, offsets.astype("<u4"), allow_pickle=False)
    return buffer.getvalue()


def pack_documents(collection: Collection, names: bool = True) -> bytes:
    """A collection as JSON; `unpack_documents` gives an equal one. Without `names` it does not
    say what the sources are called."""
    documents = []
    for document, header in zip(collection.documents, collection.headers, strict=True):
        if not names:
            spans = [replace(span, source="") for span in document.spans]
            document = replace(document, source="", title=None, spans=spans)
        fields = asdict(document)
        if not (names and document.left_out):  # what was not read keys nothing
            del fields["left_out"]
        fields["spans"] = [list(vars_of(span)) for span in document.spans]
        documents.append({**fields, "header": header})
    return json.dumps(documents, ensure_ascii=True, separators=(",", ":")).encode()


def vars_of(span: Span) -> Sequence[Any]:
    return (
        span.start,
        span.end,
        span.source,
        span.page,
        span.page_index,
        span.chapter,
        span.line,
    )


def unpack_documents(data: bytes) -> Collection:
    """What `pack_documents` wrote."""
    documents, headers = [], []
    for fields in json.loads(data):
        headers.append(fields.pop("header"))
        fields["spans"] = [Span(*span) for span in fields["spans"]]
        fields["left_out"] = [
            LeftOut(one["what"], one["count"], tuple(one["samples"]))
            for one in fields.get("left_out", ())
        ]
        documents.append(Document(**fields))
    return Collection(documents, headers=headers)
