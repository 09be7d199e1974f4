"""Form values and comments of a page, by pdfium."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from infllm.cli.documents.pdf_form import UNTICKED, Comment, Field

KINDS = {
    pdfium.FPDF_FORMFIELD_TEXTFIELD: "text",
    pdfium.FPDF_FORMFIELD_COMBOBOX: "choice",
    pdfium.FPDF_FORMFIELD_LISTBOX: "choice",
    pdfium.FPDF_FORMFIELD_CHECKBOX: "checkbox",
    pdfium.FPDF_FORMFIELD_RADIOBUTTON: "radio",
    pdfium.FPDF_FORMFIELD_SIGNATURE: "signature",
}
COMMENTS = {
    pdfium.FPDF_ANNOT_TEXT: "Text",
    pdfium.FPDF_ANNOT_FREETEXT: "FreeText",
    pdfium.FPDF_ANNOT_HIGHLIGHT: "Highlight",
    pdfium.FPDF_ANNOT_UNDERLINE: "Underline",
    pdfium.FPDF_ANNOT_SQUIGGLY: "Squiggly",
    pdfium.FPDF_ANNOT_STRIKEOUT: "StrikeOut",
    pdfium.FPDF_ANNOT_STAMP: "Stamp",
    pdfium.FPDF_ANNOT_CARET: "Caret",
    pdfium.FPDF_ANNOT_LINE: "Line",
    pdfium.FPDF_ANNOT_SQUARE: "Square",
    pdfium.FPDF_ANNOT_CIRCLE: "Circle",
    pdfium.FPDF_ANNOT_POLYGON: "Polygon",
    pdfium.FPDF_ANNOT_POLYLINE: "PolyLine",
    pdfium.FPDF_ANNOT_INK: "Ink",
    pdfium.FPDF_ANNOT_FILEATTACHMENT: "FileAttachment",
    pdfium.FPDF_ANNOT_REDACT: "Redact",
}
UNSEEN = pdfium.FPDF_ANNOT_FLAG_HIDDEN | pdfium.FPDF_ANNOT_FLAG_NOVIEW
ANNOTATIONS = 20_000  # of a page


class Annotations:
    """Those of one page. ``hidden``: characters of those that viewers do not show."""

    def __init__(self, page: pypdfium2.PdfPage, form: Any):
        self.fields: list[Field] = []
        self.comments: list[Comment] = []
        self.hidden = 0
        for annotation in _annotations(page):
            kind = pdfium.FPDFAnnot_GetSubtype(annotation)
            found: Field | Comment | None = None
            if kind == pdfium.FPDF_ANNOT_WIDGET and form is not None:
                found = _field(annotation, form)
                if found is not None:
                    self.fields.append(found)
            elif kind in COMMENTS:
                found = Comment(COMMENTS[kind], _key(annotation, b"Contents"), "")
                if found.text.strip():
                    author = _key(annotation, b"T")
                    self.comments.append(Comment(found.kind, found.text, author))
            if found is not None and pdfium.FPDFAnnot_GetFlags(annotation) & UNSEEN:
                shown = found.value if isinstance(found, Field) else found.text
                self.hidden += len(shown.strip())


def _annotations(page: pypdfium2.PdfPage) -> Iterator[Any]:
    for number in range(min(pdfium.FPDFPage_GetAnnotCount(page), ANNOTATIONS)):
        annotation = pdfium.FPDFPage_GetAnnot(page, number)
        if annotation:
            yield annotation
            pdfium.FPDFPage_CloseAnnot(annotation)


def _field(annotation: Any, form: Any) -> Field | None:
    kind = KINDS.get(pdfium.FPDFAnnot_GetFormFieldType(form, annotation))
    if kind is None:
        return None
    name = _text(pdfium.FPDFAnnot_GetFormFieldAlternateName, form, annotation)
    name = name or _text(pdfium.FPDFAnnot_GetFormFieldName, form, annotation)
    value = _text(pdfium.FPDFAnnot_GetFormFieldValue, form, annotation)
    if kind == "signature":
        signed = pdfium.FPDFAnnot_HasKey(annotation, b"V")
        return Field(kind, name, "signed" if signed else "")
    if kind == "choice":
        return Field(kind, name, _options(annotation, form) or value)
    if kind == "text":
        return Field(kind, name, value)
    export = _text(pdfium.FPDFAnnot_GetFormFieldExportValue, form, annotation)
    shown = bool(pdfium.FPDFAnnot_IsChecked(form, annotation))
    state = _key(annotation, b"AS")
    if state not in UNTICKED and not shown:  # a box without pictures of its states
        export, shown = state, True
    return Field(kind, name, value, export, shown)


def _options(annotation: Any, form: Any) -> str:
    """The chosen options as a reader sees them: their value may be a code."""
    count = max(0, pdfium.FPDFAnnot_GetOptionCount(form, annotation))
    return ", ".join(
        _text(pdfium.FPDFAnnot_GetOptionLabel, form, annotation, number)
        for number in range(count)
        if pdfium.FPDFAnnot_IsOptionSelected(form, annotation, number)
    )


def _key(annotation: Any, key: bytes) -> str:
    return _text(pdfium.FPDFAnnot_GetStringValue, annotation, key)


def _text(function: Callable[..., int], *arguments: Any) -> str:
    """What a function of pdfium writes as UTF-16 with a zero behind it."""
    size = function(*arguments, None, 0)
    if size <= 2:
        return ""
    buffer = ctypes.create_string_buffer(size)
    function(*arguments, ctypes.cast(buffer, ctypes.POINTER(pdfium.FPDF_WCHAR)), size)
    return buffer.raw[: size - 2].decode("utf-16-le", errors="replace")
