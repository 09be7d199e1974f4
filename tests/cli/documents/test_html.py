"""HTML gives what a reader would see, with chapters and lines."""

from infllm.cli.documents.document import Document, SpanBuilder
from infllm.cli.documents.html import decode_html, extract_html


def read(html: str, xml: bool = False) -> Document:
    out = SpanBuilder("x")
    facts = extract_html(html, out, xml=xml, lines=True)
    return Document("x", "html", *out.finish(), title=facts.title)


def test_blocks_are_paragraphs_and_markup_is_gone() -> None:
    document = read(
        "<title> A\nB </title><style>p{}</style><script>var x</script>"
        "<p>One <b>two</b>\n three<br>four</p>five<div>six</div><!-- no --><p>&lt;seven&gt;"
    )
    assert document.title == "A B"
    assert document.text == "One two three\nfour\n\nfive\nsix\n\n<seven>"


def test_lists_tables_and_preformatted_text() -> None:
    document = read(
        "<ul><li> a</li><li><p>b</p></li></ul><table><tr><td>1<td>2<tr><td>3<td>4</table>"
        "<pre>x\n  y</pre>"
    )
    assert document.text == "- a\n\n- b\n\n1 | 2\n3 | 4\n\nx\n  y"


def test_hidden_text_is_left_out_and_counted() -> None:
    out = SpanBuilder("x")
    facts = extract_html(
        '<p>seen<span style="display: none">secret</span><p hidden>also',
        out,
        xml=False,
        lines=False,
    )
    assert out.finish()[0] == "seen"
    assert facts.hidden == len("secretalso")


def test_lines_and_chapters() -> None:
    html = "<html>\n<body>\n<h1>Big\nhead</h1>\n<p>first</p>\n\n<pre>\none\ntwo</pre><p\n>last"
    document = read(html)
    places = {
        word: document.origin(document.text.index(word))
        for word in ("Big", "first", "one", "two", "last")
    }
    assert {word: origin.line for word, origin in places.items()} == {
        "Big": 3,
        "first": 5,
        "one": 8,
        "two": 9,
        "last": 9,
    }
    assert {origin.chapter for origin in places.values()} == {"Big head"}


def test_xhtml_elements_that_close_themselves() -> None:
    document = read('<title/><script src="x"/><p><a id="1"/>text</p><![CDATA[a <b]]>', xml=True)
    assert document.text == "text\n\na <b"


def test_very_deep_nesting_is_walked() -> None:
    assert read("<div>" * 5000 + "text").text == "text"


def test_declared_encoding_is_used_unless_it_is_wrong() -> None:
    assert decode_html("<meta charset=cp1252>é".encode("cp1252"), "x")[0].endswith("é")
    assert decode_html('<meta charset="ascii">é'.encode(), "x")[0].endswith("é")


def test_soft_hyphens_and_control_characters_are_gone() -> None:
    assert read("<p>ex\u00adam\u200bple \x07&#8205;").text == "example \u200d"
