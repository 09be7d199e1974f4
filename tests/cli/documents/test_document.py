"""Every character of a document and of a collection knows where it came from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli.documents.document import Collection, Document, Origin, SpanBuilder

PIECES = st.lists(
    st.tuples(
        st.text("ab\n", max_size=8),
        st.sampled_from([None, "i", "1"]),
        st.sampled_from([None, "One", "Two"]),
        st.one_of(st.none(), st.integers(1, 50)),
    ),
    max_size=12,
)


def build(source: str, pieces: list) -> tuple[Document, list[Origin]]:
    """A document, and the origin of each of its characters as it was put in."""
    out = SpanBuilder(source)
    expected = []
    for text, page, chapter, line in pieces:
        out.add(text, page=page, chapter=chapter, line=line)
        for index in range(len(text)):
            at = None if line is None else line + text.count("\n", 0, index)
            expected.append(Origin(source, page, None, chapter, at))
    return Document(source, "text", *out.finish()), expected


@given(PIECES)
def test_origin_of_every_character(pieces: list) -> None:
    document, expected = build("book", pieces)
    assert [document.origin(offset) for offset in range(len(document.text))] == expected


@given(PIECES)
def test_spans_are_in_order_and_cover_the_text(pieces: list) -> None:
    document, _ = build("book", pieces)
    end = 0
    for span in document.spans:
        assert span.start == end < span.end
        end = span.end
    assert end == len(document.text)


@given(st.lists(PIECES, min_size=1, max_size=4))
def test_origin_in_a_collection(many: list) -> None:
    built = [build(f"book {number}", pieces) for number, pieces in enumerate(many)]
    collection = Collection([document for document, _ in built])
    found: dict[str, list[Origin]] = {}
    for offset in range(len(collection.text)):
        origin = collection.origin(offset)
        found.setdefault(origin.source, []).append(origin)
    for number, (document, expected) in enumerate(built):
        header = [] if len(built) == 1 else f"# book {number}\n\n"
        lead = len(header) + (2 if number else 0)
        origins = found.get(document.source, [])
        assert origins[:lead] == [Origin(document.source)] * lead
        assert origins[lead:] == expected


def test_a_single_document_has_no_header() -> None:
    document, _ = build("book", [("text", None, None, 1)])
    assert Collection([document]).text == "text"


def test_several_documents_have_a_header_each() -> None:
    first, _ = build("a/x.txt", [("one", None, None, 1)])
    second, _ = build("b\n.txt", [("two", None, None, 1)])
    assert (
        Collection([first, second]).text
        == "# a/x.txt\n\none\n\n# b\N{REPLACEMENT CHARACTER}.txt\n\ntwo"
    )


def test_outside_the_text() -> None:
    document, _ = build("book", [("text", None, None, 1)])
    for offset in (-1, 4):
        with pytest.raises(IndexError):
            document.origin(offset)
        with pytest.raises(IndexError):
            Collection([document]).origin(offset)


def test_origin_reads_as_a_citation() -> None:
    assert (
        str(Origin("a.pdf", page="iv", page_index=3, chapter="Preface")) == "a.pdf, p. iv, Preface"
    )
    assert str(Origin("a.txt", line=7)) == "a.txt, line 7"
