"""Text of a PDF's page that a reader does not see, by pdfium."""

from __future__ import annotations

import ctypes

import pypdfium2
import pypdfium2.raw as pdfium

TINY_POINTS = 1.0  # type nobody reads
WHITE = 250  # of 255, in each of red, green and blue
HIDDEN_OBJECTS = 20_000  # per page; beyond it the check for hidden text is cut short


def hidden_text(page: pypdfium2.PdfPage, text_page: pypdfium2.PdfTextPage) -> dict[str, int]:
    """Characters that are invisible (and no text of a scan), white on nothing, or tiny."""
    texts, has_image, shapes = [], False, []
    for number in range(min(pdfium.FPDFPage_CountObjects(page), HIDDEN_OBJECTS)):
        item = pdfium.FPDFPage_GetObject(page, number)
        kind = pdfium.FPDFPageObj_GetType(item)
        if kind == pdfium.FPDF_PAGEOBJ_TEXT:
            texts.append(item)
        elif kind == pdfium.FPDF_PAGEOBJ_IMAGE:
            has_image = True
            shapes.append(item)
        else:
            shapes.append(item)
    found: dict[str, int] = {}
    for item in texts:
        reason = _reason(item, has_image, shapes)
        if reason is not None:
            size = pdfium.FPDFTextObj_GetText(item, text_page, None, 0)
            found[reason] = found.get(reason, 0) + max(0, size // 2 - 1)
    return {reason: chars for reason, chars in found.items() if chars}


def _reason(item: object, has_image: bool, shapes: list[object]) -> str | None:
    if pdfium.FPDFTextObj_GetTextRenderMode(item) == pdfium.FPDF_TEXTRENDERMODE_INVISIBLE:
        return None if has_image else "drawn invisibly"
    matrix = pdfium.FS_MATRIX()
    size = ctypes.c_float()
    if (
        pdfium.FPDFTextObj_GetFontSize(item, size)
        and pdfium.FPDFPageObj_GetMatrix(item, matrix)
        and size.value * max(map(abs, (matrix.a, matrix.b, matrix.c, matrix.d))) < TINY_POINTS
    ):
        return "too small to read"
    red, green, blue, alpha = (ctypes.c_uint() for _ in range(4))
    if (
        pdfium.FPDFPageObj_GetFillColor(item, red, green, blue, alpha)
        and (min(red.value, green.value, blue.value) >= WHITE or not alpha.value)
        and not any(_is_behind(shape, item) for shape in shapes)
    ):
        return "white on white"
    return None


def _is_behind(shape: object, item: object) -> bool:
    """Whether a picture or filled area lies under the middle of a text object."""
    if pdfium.FPDFPageObj_GetType(shape) == pdfium.FPDF_PAGEOBJ_PATH:
        fill, stroke = ctypes.c_int(), ctypes.c_int()
        if not pdfium.FPDFPath_GetDrawMode(shape, fill, stroke) or not fill.value:
            return False
    left, bottom, right, top = _bounds(item)
    x, y = (left + right) / 2, (bottom + top) / 2
    left, bottom, right, top = _bounds(shape)
    return left <= x <= right and bottom <= y <= top


def _bounds(item: object) -> tuple[float, float, float, float]:
    edges = [ctypes.c_float() for _ in range(4)]
    pdfium.FPDFPageObj_GetBounds(item, *edges)
    left, bottom, right, top = (edge.value for edge in edges)
    return left, bottom, right, top
