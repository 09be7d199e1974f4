"""Word documents: nothing that a page shows is lost, doubled or changed in silence."""

from pathlib import Path

import pytest

from infllm.cli.documents import (
    LeftOut,
    LimitExceeded,
    NoText,
    Unreadable,
    read_sources,
)
from infllm.cli.documents.docx import read_docx
from tests.cli.documents.make import archive
from tests.cli.documents.readers import archive_reader
from tests.cli.documents.word import (
    KINDS,
    NAMESPACES,
    STRICT_KINDS,
    control,
    field,
    p,
    relations,
    style,
    t,
    table,
    word,
)

read = archive_reader("a.docx", read_docx)


NOTE = '<w:{0} w:id="{1}">{2}</w:{0}>'
FOOTNOTE = '<w:r><w:footnoteReference w:id="{}"/></w:r>'


def test_notes_follow_the_paragraph_that_refers_to_them(read) -> None:
    document = read(
        word(
            p("Due at once.", FOOTNOTE.format(7)) + p("Four weeks.", FOOTNOTE.format(3))
            + p("Ends.", '<w:r><w:endnoteReference w:id="2"/></w:r>'),
            footnotes='<w:footnote w:type="separator" w:id="0"><w:p><w:r><w:separator/></w:r></w:p>'
            "</w:footnote>" + NOTE.format("footnote", 3, p("of clause 9"))
            + NOTE.format("footnote", 7, p("7350 crowns") + p("refundable")),
            endnotes=NOTE.format("endnote", 2, p("unless renewed")),
        )
    )  # fmt: skip
    assert document.text.split("\n\n") == [
        "Due at once.[^1]",
        "[^1] 7350 crowns\nrefundable",
        "Four weeks.[^2]",
        "[^2] of clause 9",
        "Ends.[^i]",
        "[^i] unless renewed",
    ]
    assert (document.warnings, document.left_out) == ([], [])


def test_notes_in_cells_follow_the_table(read) -> None:
    cell = p("[^1] is no note. 5", FOOTNOTE.format(2))
    document = read(word(table((cell, "b")), footnotes=NOTE.format("footnote", 2, p("net"))))
    assert document.text == "[^1] is no note. 5[^1] | b\n\n[^1] net"


def test_a_missing_note_is_told(read) -> None:
    document = read(word(p("x", FOOTNOTE.format(9)), footnotes=NOTE.format("footnote", 2, p("y"))))
    assert document.warnings == ["1 footnotes are missing"]
    assert document.left_out == [LeftOut("footnote that nothing refers to", 1, ("y",))]


def test_comments_are_told_not_read(read) -> None:
    notes = NOTE.format("comment", 0, p("Check the sum.")) + NOTE.format("comment", 1, p("Done"))
    document = read(word(p("text"), comments=notes))
    assert document.text == "text"
    assert document.left_out == [LeftOut("comment", 2, ("Check the sum.", "Done"))]


def test_content_controls_at_every_level(read) -> None:
    rows = table(("a", "b")).replace("<w:tc>", "<w:sdt><w:sdtContent><w:tc>", 1)
    rows = rows.replace("</w:tc>", "</w:tc></w:sdtContent></w:sdt>", 1)
    rows = rows.replace("</w:tbl>", control(f"<w:tr><w:tc>{p('c')}</w:tc></w:tr>") + "</w:tbl>")
    inside = table((control(p("in a cell")), "d"))
    document = read(
        word(control(control(p("block")) + p("x", control(t("inline")))) + rows + inside)
    )
    assert document.text == "block\n\nxinline\n\na | b\nc\n\nin a cell | d"


def test_nested_tables_are_read_once(read) -> None:
    deep = table(("1", "2"), ("3", p("deep") + table(("x", "y"))))
    document = read(word(table(("left", p("before") + deep + p("after")))))
    assert document.text == "left | before [1 | 2; 3 | deep [x | y]] after"


def test_columns_stay_below_each_other(read) -> None:
    wide = (
        '<w:tc><w:tcPr><w:gridSpan w:val="2"/></w:tcPr><w:p><w:r><w:t>all</w:t></w:r></w:p></w:tc>'
    )
    rows = table(("a", "b", "c")).replace(
        "</w:tbl>", f"<w:tr>{wide}<w:tc>{p('9')}</w:tc></w:tr></w:tbl>"
    )
    assert read(word(rows)).text == "a | b | c\nall |  | 9"


def test_a_table_of_one_column_is_a_frame(read) -> None:
    headings = style("h", "heading 1")
    document = read(word(table((p("Part", style="h") + p("text"),)), styles=headings))
    assert document.text == "Part\n\ntext"
    assert document.title == "Part"


def test_tracked_changes_as_accepted(read) -> None:
    removed = "<w:del><w:r><w:delText>Old</w:delText></w:r></w:del>"
    document = read(
        word(
            p(removed, f"<w:ins>{t('New')}</w:ins>", " term")
            + p(f"<w:moveFrom>{t('The rent is 900.')}</w:moveFrom>") + p("between")
            + p(f"<w:moveTo>{t('The rent is 900.')}</w:moveTo>")
            + p("joined ", properties="<w:rPr><w:del/></w:rPr>") + p("paragraph")
        )
    )  # fmt: skip
    assert document.text.split("\n\n") == [
        "New term",
        "between",
        "The rent is 900.",
        "joined paragraph",
    ]
    assert document.left_out == [LeftOut("deleted text (tracked change)", 1, ("Old",))]


def test_a_paragraph_whose_end_was_deleted_is_kept_where_none_follows(read) -> None:
    joined = p("kept", properties="<w:rPr><w:del/></w:rPr>")
    assert read(word(joined)).text == "kept"
    assert read(word(joined + table(("a", joined)) + p("z"))).text == "kept\n\na | kept\n\nz"


def test_text_moved_to_nowhere_is_told(read) -> None:
    document = read(word(p("kept") + p(f"<w:moveFrom>{t('gone')}</w:moveFrom>")))
    assert document.left_out == [LeftOut("deleted text (tracked change)", 1, ("gone",))]


def text_box(choice: str, fallback: str) -> str:
    return (
        "<w:r><mc:AlternateContent><mc:Choice><w:drawing><wps:txbx><w:txbxContent>"
        f"{choice}</w:txbxContent></wps:txbx></w:drawing></mc:Choice><mc:Fallback><w:pict>"
        f"<w:txbxContent>{fallback}</w:txbxContent></w:pict></mc:Fallback></mc:AlternateContent>"
        "</w:r>"
    )


def test_text_boxes_once_and_by_paragraph(read) -> None:
    inside = p("first") + p("second")
    document = read(word(p("anchor", text_box(inside, inside)) + p("after")))
    assert document.text == "anchor\n\nfirst\n\nsecond\n\nafter"


def test_a_choice_without_text_gives_way_to_its_fallback(read) -> None:
    assert read(word(p("a", text_box("", p("old form"))))).text == "a\n\nold form"


@pytest.mark.parametrize(
    ("styles", "used"),
    [
        (style("a1", "heading 2"), "a1"),
        (style("b", "mine", "a1") + style("a1", "heading 1"), "b"),
        (style("c", "kop", inside='<w:pPr><w:outlineLvl w:val="0"/></w:pPr>'), "c"),
        (style("c", "kop", inside='<w:pPr><w:outlineLvl w:val="1"/></w:pPr>')
         + style("d", base="c") + style("e", base="d"), "e"),
        ("", "berschrift1"), ("", "Titre2"), ("", "Ttulo1"), ("", "Nagwek1"), ("", "Heading3"),
    ],
)  # fmt: skip
def test_headings_in_every_language(read, styles: str, used: str) -> None:
    document = read(word(p("One", style=used) + p("text"), styles=styles))
    assert document.origin(document.text.index("text")).chapter == "One"


@pytest.mark.parametrize(
    ("styles", "used"),
    [
        (style("a", "heading 1") + style("TOC", base="a",
         inside='<w:pPr><w:outlineLvl w:val="9"/></w:pPr>'), "TOC"),
        (style("x", base="y") + style("y", base="x"), "x"),
        (style("berschrift1", "Body Text"), "berschrift1"),
        ("", "Normal"), ("", "nowhere"),
    ],
)  # fmt: skip
def test_other_paragraphs_are_no_headings(read, styles: str, used: str) -> None:
    document = read(word(p("One", style=used) + p("text"), styles=styles))
    assert document.origin(0).chapter is None


def test_an_outline_level_of_the_paragraph_itself(read) -> None:
    document = read(word(p("One", properties='<w:outlineLvl w:val="0"/>') + p("text")))
    assert document.title == "One"


@pytest.mark.parametrize(
    ("main", "kinds"),
    [("word/document2.xml", KINDS), ("Word/body.xml", STRICT_KINDS), ("x/y.xml", KINDS)],
)
def test_the_main_part_by_the_package(tmp_path: Path, main: str, kinds: str) -> None:
    path = tmp_path / "a.docx"
    body = f"<w:document {NAMESPACES}><w:body>{p('found')}</w:body></w:document>"
    path.write_bytes(
        archive({"_rels/.rels": relations({"officeDocument": f"/{main}"}, kinds), main: body})
    )
    assert read_sources([str(path)]).text == "found"


def test_the_main_part_by_its_type(tmp_path: Path) -> None:
    path = tmp_path / "a.docm"
    kind = "application/vnd.ms-word.document.macroEnabled.main+xml"
    body = f"<w:document {NAMESPACES}><w:body>{p('found')}</w:body></w:document>"
    types = f'<Types><Override PartName="/word/x.xml" ContentType="{kind}"/></Types>'
    path.write_bytes(archive({"[Content_Types].xml": types, "word/x.xml": body}))
    assert read_sources([str(path)]).text == "found"
    path.write_bytes(archive({"[Content_Types].xml": types, "word/styles.xml": "<x/>"}))
    with pytest.raises(Unreadable, match="main part is missing"):
        read_sources([str(path)])


@pytest.mark.parametrize("nest", [table, control])
def test_deep_nesting_ends_in_text_or_a_typed_error(tmp_path: Path, nest) -> None:
    for depth, whole in ((50, True), (5000, False)):
        body = p("inmost")
        for _ in range(depth):
            body = nest((body, "x")) if nest is table else nest(body)
        path = tmp_path / "a.docx"
        path.write_bytes(word(body))
        if whole:
            assert read_sources([str(path)]).text.count("inmost") == 1
        else:
            with pytest.raises((Unreadable, LimitExceeded)):
                read_sources([str(path)])


def test_strict_namespaces(read) -> None:
    body = (
        f"<w:document {NAMESPACES}><w:body>{p('One', style='h')}{p('text')}</w:body></w:document>"
    )
    strict = "http://purl.oclc.org/ooxml/wordprocessingml/main"
    data = body.replace("http://schemas.openxmlformats.org/wordprocessingml/2006/main", strict)
    assert read(word("", {"word/document.xml": data})).text == "One\n\ntext"


def section(*references: str, properties: str = "") -> str:
    return f"<w:sectPr>{''.join(references)}{properties}</w:sectPr>"


def header(number: int, which: str = "default", kind: str = "header") -> str:
    return f'<w:{kind}Reference w:type="{which}" r:id="r{number}"/>'


def test_headers_and_footers_once(read) -> None:
    first = section(header(0), header(2, kind="footer"), header(3, "first"))
    document = read(
        word(
            p("one", properties=first) + p("two") + section(header(1)),
            header1=p("Draft 3, secret"),
            header2=p("Draft 3, ") + p("secret"),
            footer1=p("Page ", field("PAGE", "3")) + p("ref 17"),
            header3=p("never shown"),
        )
    )
    assert document.text.split("\n\n") == [
        "[header] Draft 3, secret",
        "one",
        "[footer] Page\nref 17",
        "[header] Draft 3,\nsecret",
        "two",
    ]
    assert document.left_out == [LeftOut("header that no page shows", 1, ("never shown",))]


def test_without_relations_parts_go_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    root = f"<w:{{0}} {NAMESPACES}>{{1}}</w:{{0}}>"
    path.write_bytes(
        archive(
            {
                "word/document.xml": root.format("document", p("x", FOOTNOTE.format(2))),
                "word/footnotes.xml": root.format("footnotes", NOTE.format("footnote", 2, p("y"))),
                "word/header1.xml": root.format("hdr", p("z")),
            }
        )
    )
    assert read_sources([str(path)]).text == "[header] z\n\nx[^1]\n\n[^1] y"


def test_what_can_be_read_of_damaged_parts(read) -> None:
    whole = word(p("kept") + p("x", FOOTNOTE.format(2)), footnotes="<w:footnote></w:p>")
    document = read(whole)
    assert document.text == "kept\n\nx[^1]"
    assert "word/footnotes.xml is damaged" in document.warnings[0]
    cut = f"<w:document {NAMESPACES}><w:body>{p('kept')}<w:p><w:r><w:t>be"
    document = read(word("", {"word/document.xml": cut}))
    assert document.text == "kept\n\nbe"
    assert "word/document.xml is damaged" in document.warnings[0]


def test_a_part_that_is_gone(read) -> None:
    links = relations({"styles": "styles.xml"})
    document = read(word(p("kept"), {"word/_rels/document.xml.rels": links}))
    assert (document.text, document.warnings) == (
        "kept",
        ["word/styles.xml is missing from the archive"],
    )


@pytest.mark.parametrize("cut", [30, 200, -40])
def test_a_cut_document(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(word(p("text" * 50))[:cut])
    with pytest.raises(Unreadable, match="damaged archive"):
        read_sources([str(path)])


def test_an_empty_document_says_what_was_left_out(read) -> None:
    with pytest.raises(NoText, match="1 hidden text"):
        read(word(p(t("secret", "<w:vanish/>"))))


def test_imported_pages(read) -> None:
    body = '<w:altChunk r:id="r0"/>' + p("after")
    extra = {"word/_rels/document.xml.rels": relations({"aFChunk": "a.html"})}
    document = read(word(body, {**extra, "word/a.html": "<html><body><p>page"}))
    assert document.text == "page\n\nafter"
    extra = {"word/_rels/document.xml.rels": relations({"aFChunk": "a.rtf"})}
    document = read(word(body, {**extra, "word/a.rtf": "{\\rtf1 page}"}))
    assert document.text == "after"
    assert document.warnings[0].startswith("word/a.rtf, a file taken in whole, is left out")
