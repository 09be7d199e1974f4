"""Values of filled forms, added text and comments, by either library."""

import io

from pypdf import PdfWriter
from pypdf.generic import BooleanObject, NameObject, read_object

from infllm.cli.documents.pdf_form import Field, notes
from tests.cli.documents.make import pdf

WIDGET = "/Type /Annot /Subtype /Widget /Rect [150 690 350 710] /F 4"
FORM = [
    f"<< {WIDGET} /FT /Tx /T (surname) /V (Ida Holm 4711) >>",
    f"<< {WIDGET} /FT /Tx /T (f12) /TU (Date of birth) /V (May 2) >>",
    f"<< {WIDGET} /FT /Tx /T (middle name) >>",
    f"<< {WIDGET} /FT /Ch /Ff 131072 /T (town) /V (hb) /Opt [[(hb) (Harbour)] [(hl) (Hill)]] >>",
    f"<< {WIDGET} /FT /Btn /T (agree) /V /Yes /AS /Yes >>",
    f"<< {WIDGET} /FT /Btn /T (smoker) /V /Off /AS /Off >>",
    f"<< {WIDGET} /FT /Btn /T (meals) /V /vegan /AS /vegan >>",
]
FILLED = """surname: Ida Holm 4711
Date of birth: May 2
town: Harbour
[x] agree
[ ] smoker
[x] meals: vegan"""


def test_values_of_a_form_are_read_at_their_page(read) -> None:
    document = read(pdf(["Membership form\nSurname:", "The rules"], annotations={0: FORM}))
    assert document.text == f"Membership form\nSurname:\n\n{FILLED}\n\nThe rules"
    assert document.origin(document.text.index("4711")).page == "1"
    assert document.warnings == []


def test_a_form_without_other_text_is_no_scan(read) -> None:
    document = read(pdf([""], annotations={0: FORM}))
    assert (document.text, document.warnings, document.pages_without_text) == (FILLED, [], 0)


def test_a_form_that_keeps_its_text_elsewhere_is_told(read) -> None:
    writer = PdfWriter(clone_from=io.BytesIO(pdf(["Please wait a moment"])))
    form = b"<< /Fields [] /XFA (<xdp:xdp xmlns:xdp='http://ns.adobe.com/xdp/'/>) >>"
    writer.root_object[NameObject("/AcroForm")] = read_object(io.BytesIO(form), writer)
    writer.root_object[NameObject("/NeedsRendering")] = BooleanObject(True)
    out = io.BytesIO()
    writer.write(out)
    assert read(out.getvalue()).warnings[0].startswith("a form made by XFA")


def test_radio_buttons_are_one_line() -> None:
    buttons = [Field("radio", "pay", "card", export) for export in ("cash", "card")]
    assert notes(buttons, []) == ["pay: card"]
    assert notes([Field("radio", "pay", "", "cash")], []) == ["[ ] pay"]


NOTED = [
    "<< /Type /Annot /Subtype /FreeText /Contents (paid on May 2) /Rect [150 600 350 620] /F 4 >>",
    "<< /Type /Annot /Subtype /Text /Contents (call Ida) /T (Bo) /Rect [10 600 20 620] /F 4 >>",
    "<< /Type /Annot /Subtype /Popup /Contents (call Ida) /Rect [10 600 20 620] /F 4 >>",
    "<< /Type /Annot /Subtype /Highlight /Contents (really?) /Rect [10 500 20 520] /F 4 >>",
]


def test_added_text_and_comments_are_read(read) -> None:
    document = read(pdf(["Invoice of the club\nTotal 900"], annotations={0: NOTED}))
    assert document.text == (
        "Invoice of the club\nTotal 900\n\n"
        "Added text: paid on May 2\nComment by Bo: call Ida\nComment: really?"
    )


def test_what_a_viewer_hides_of_a_form_is_flagged(read) -> None:
    hidden = f"<< {WIDGET.replace('/F 4', '/F 2')} /FT /Tx /T (code) /V (ignore all) >>"
    document = read(pdf(["A form of the club"], annotations={0: [hidden]}))
    assert "code: ignore all" in document.text
    assert document.warnings == ["hidden text (in a hidden field or note) was read: page 1"]
