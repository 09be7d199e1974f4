"""HTML gives what a reader would see, with chapters and lines."""

import re
import time

import pytest

from infllm.cli.documents.document import Document, SpanBuilder
from infllm.cli.documents.html import decode_html, extract_html
from infllm.cli.documents.words import words


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


LABELS = [
    ("iso-8859-1", "cp1252", "“It’s 20 €” – café"),
    ("latin1", "cp1252", "naïve – 5 €"),
    ("us-ascii", "cp1252", "naïve – 5 €"),
    ("iso-8859-9", "cp1254", "“ağaç”"),
    ("shift_jis", "cp932", "①髙橋さんの番号は4711です。"),
    ("x-sjis", "cp932", "①髙橋さん"),
    ("gb2312", "gb18030", "朱镕基 €"),
    ("gbk", "gb18030", "朱镕基"),
    ("ks_c_5601-1987", "cp949", "똠방각하"),
    ("big5", "big5hkscs", "孩子們早上去上學"),
    ("euc-jp", "euc_jis_2004", "①番"),
    ("tis-620", "cp874", "ดวงอาทิตย์"),
    ("utf-16", "utf-8", "größer"),
    ("utf-16le", "utf-8", "größer"),
    ("unicode", "utf-8", "größer"),
    ("iso-8859-1", "utf-8", "größer"),  # saved anew, the old label left in
    ("undefined", "utf-8", "größer"),
    ("idna", "cp1252", "größer als der Zähler"),
    ("rot13", "cp1252", "größer als der Zähler"),
    ("utf-7", "cp1252", "größer als der Zähler"),
    ("", "cp1252", "größer als der Zähler"),
]


@pytest.mark.parametrize(("label", "encoding", "text"), LABELS)
def test_a_charset_label_means_what_browsers_take_it_for(
    label: str, encoding: str, text: str
) -> None:
    html = f'<!doctype html><meta charset="{label}"><p>'
    assert decode_html(html.encode() + text.encode(encoding), "x")[0] == html + text


def test_declared_encoding_is_used_unless_it_is_wrong() -> None:
    assert decode_html("<meta charset=cp1252>é".encode("cp1252"), "x")[0].endswith("é")
    assert decode_html('<meta charset="ascii">é'.encode(), "x")[0].endswith("é")


def test_soft_hyphens_and_control_characters_are_gone() -> None:
    assert read("<p>ex\u00adam\u200bple \x07&#8205;").text == "example \u200d"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("About 10<sup>6</sup> people", "About 10^6 people"),
        ("10<sup> -3</sup>m, 5<sup>2</sup>3", "10^-3 m, 5^2 3"),
        ("x<sup>n</sup>y and 2<sup>n+1</sup>", "x^n y and 2^n+1"),
        ("in 1999.<sup>3</sup> A word<sup><a>12</a></sup>", "in 1999.^3 A word^12"),
        ("the 1<sup>st</sup>, M<sup>lle</sup>, [1]<sup>[2]</sup>", "the 1st, Mlle, [1][2]"),
        ("H<sub>2</sub>O, 12<sub>3</sub>, v<sub>max</sub>", "H2O, 12_3, v_max"),
        ("3<sup>1</sup>/<sub>2</sub> cups, <sup>3</sup>&frasl;<sub>4</sub>", "3 1/2 cups, 3⁄4"),
        ("in 1999<a epub:type=noteref>7</a>, 12<a role=doc-noteref>8</a>", "in 1999^7, 12^8"),
        ("10<span style='vertical-align: super'>6</span>", "10^6"),
        ("10<span style='vertical-align: baseline'>6</span>", "106"),
        ("<math><mn>3</mn><mfrac><mn>1</mn><mn>2</mn></mfrac></math>", "3 1/2"),
        ("<math><msup><mn>10</mn><mn>6</mn></msup></math>", "10^6"),
        (
            "<math><semantics><mfrac><mrow><mn>1</mn><mo>+</mo><mi>x</mi></mrow><mn>4</mn></mfrac>"
            "<annotation>tex</annotation></semantics></math>",
            "(1+x)/4",
        ),
    ],
)
def test_raised_and_lowered_text_keeps_numbers_apart(html: str, text: str) -> None:
    assert read(f"<p>{html}").text == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        (
            "合言葉は<ruby>青<rt>あお</rt>空<rt>ぞら</rt></ruby>です。",
            "合言葉は青空(あおぞら)です。",
        ),
        ("<ruby>青<rt>あお</rt></ruby><ruby>空<rt>ぞら</rt></ruby>へ", "青空(あおぞら)へ"),
        ("<ruby>漢字<rp>(</rp><rt>かんじ</rt><rp>)</rp></ruby>。", "漢字(かんじ)。"),
        ("<ruby>汉<rt>hàn<rt></rt>字<rt>zì</ruby>", "汉字(hàn zì)"),
        ("<ruby><rb>東<rb>京<rtc><rt>とう<rt>きょう</rtc></ruby>", "東京(とうきょう)"),
        ("<ruby>人<rt></rt></ruby>", "人"),
    ],
)
def test_readings_stand_in_brackets_behind_the_word(html: str, text: str) -> None:
    assert read(f"<p>{html}").text == text
    assert read(f"<h1>{html}</h1>x").origin(0).chapter == re.sub(r"\(.*\)", "", text)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<ol start=4><li>Open<li>Ring</ol>", "4. Open\n5. Ring"),
        ("<ol reversed><li>a<li>b<li>c</ol>", "3. a\n2. b\n1. c"),
        ("<ol reversed start=9><li>a<li>b</ol>", "9. a\n8. b"),
        ("<ol type=A start=26><li>a<li>b</ol>", "Z. a\nAA. b"),
        ("<ol type=i><li>a<li value=9>b<li>c</ol>", "i. a\nix. b\nx. c"),
        ("<ol style='list-style-type:lower-alpha'><li>a</ol>", "a. a"),
        ("<ol start=x><li>a</ol>", "1. a"),
        ("<ol start=-1><li>a<li>b<li>c</ol>", "-1. a\n0. b\n1. c"),
        ("<ol><li><ol type=a><li>in</ol><li>b</ol>", "1. a. in\n\n2. b"),
        ("<ol><li>a<ul><li>b</ul><li>c</ol>", "1. a\n\n- b\n\n2. c"),
        ("<ol><li></ol>after", "after"),
    ],
)
def test_list_items_have_their_numbers(html: str, text: str) -> None:
    assert read(html).text == text


def test_images_are_read_by_their_descriptions_or_told() -> None:
    html = (
        "<p>See <img src=a.png alt='Sales of 4711'>, <img src=b/no.png>, <img src=c alt=''>"
        "<img alt=T>he <img alt='{\\displaystyle x^2}'><noscript><p>No <b>script</b></noscript>"
        "<svg role=img aria-label=Map></svg><svg><title>Red</title><text>inside</text></svg>"
        "<iframe src=//x/y title=Player></iframe>"
    )
    out = SpanBuilder("x")
    facts = extract_html(html, out, xml=False, lines=False)
    assert out.finish()[0] == (
        "See [image: Sales of 4711] , , The {\\displaystyle x^2}\n\nNo script\n"
        "[image: Map]\n[image: Red] inside"
    )
    assert [(left.what, left.count, left.samples) for left in facts.left_out] == [
        ("image without text", 1, ("no.png",)),
        ("embedded page", 1, ("Player",)),
    ]


def test_what_a_filled_form_shows() -> None:
    html = (
        "<form><label>Name</label><input value='Ida Holm'><textarea>Long note 4711</textarea>"
        "<input type=checkbox checked>Yes<input type=checkbox>No<input type=radio checked>A"
        "<input type=hidden value=secret><input type=password value=pw>"
        "<input type=number value=47><input type=text value=11><button>Go</button>"
        "<textarea>one\ntwo</textarea>"
        "<select><option>Kiel<option selected>Lund</select><select><option>First<option>x</select>"
        "<input type=submit value=Send></form>"
    )
    out = SpanBuilder("x")
    facts = extract_html(html, out, xml=False, lines=False)
    assert out.finish()[0] == (
        "Name [Ida Holm] Long note 4711 [x] Yes [ ] No (x) A [47] [11] Go one\n"
        "two [Lund] [First] [Send]"
    )
    assert [(left.what, left.count, left.samples) for left in facts.left_out] == [
        ("option not chosen", 2, ("Kiel", "x"))
    ]


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<tr><td><p>Name</p><td><p>Age</p><tr><td>Ann<td>30", "Name | Age\nAnn | 30"),
        ("<tr><td><ul><li>a<li>b</ul><td>x<br>y", "- a - b | x y"),
        ("<tr><th>A<th>B<th>C<tr><td>1<td><td>3<tr><td><td>2", "A | B | C\n1 |  | 3\n| 2"),
        ("<tr><td rowspan=2>r<td>4<tr><td>6<tr><td>7<td>8", "r | 4\n| 6\n7 | 8"),
        ("<tr><td colspan=2>w<td>8<tr><td>1<td>2<td>3", "w |  | 8\n1 | 2 | 3"),
        (
            "<tr><td><h1>Head</h1><p>One</p><td><table><tr><td>1<td>2<tr><td>3<td>4</table>",
            "Head\n\nOne\n\n1 | 2\n3 | 4",
        ),
        (f"<tr><td><p>{'long ' * 500}</p><p>b</p><td>c", f"{('long ' * 500).strip()}\n\nb\n\nc"),
    ],
)
def test_a_row_of_data_stays_a_line(html: str, text: str) -> None:
    assert read(f"<table>{html}</table>").text == text


@pytest.mark.parametrize(
    ("html", "text", "hidden"),
    [
        ("<i style='visibility:hidden'>no<b style='visibility: visible'>yes</b>no</i>", "yes", 4),
        ("<i style='font-size:0'>no<b style='font-size:12px'>yes</b></i>", "yes", 2),
        ("<i style='font-size:0'>no<b style='font-size:2em'>no</b></i>.", ".", 4),
        ("<i style='display:none'>no<b style='display:block'>no</b></i>.", ".", 4),
        ("<i style='display:none;DISPLAY: inline'>yes</i>", "yes", 0),
        ("<i style='display:none !important'>no</i>.", ".", 2),
        ("<i hidden=until-found>yes</i><i hidden>no</i>", "yes", 2),
        ("<i style='visibility:hidden'>no</i>yes", "yes", 2),
    ],
)
def test_visible_children_of_hidden_parents(html: str, text: str, hidden: int) -> None:
    out = SpanBuilder("x")
    facts = extract_html(f"<p>{html}", out, xml=False, lines=False)
    assert (out.finish()[0], facts.hidden) == (text, hidden)


def test_controls_in_pages_separate_and_keep_lines() -> None:
    document = read("<p>77\v88\f99\x1f1\x85 It&#146;s\n<p>next")
    assert document.text == "77 88 99 1 It’s\n\nnext"
    assert document.origin(document.text.index("next")).line == 2


PROSE = "".join(f"<p>Sentence {n} of the story is told here.</p>" for n in range(30))
LINKS = "".join(f"<li><a href=/{n}>Entry {n} of a list</a></li>" for n in range(20))


@pytest.mark.parametrize(
    "html",
    [
        f"<nav><ul>{LINKS}</ul></nav>{PROSE}",
        f"<div role=navigation>{LINKS}</div>{PROSE}",
        f"<ul>{LINKS}</ul><div>{PROSE}</div>",
        f"<header><img alt=Logo>Our company</header>{PROSE}<footer>Imprint</footer>",
        f"<div class='cookie-consent'>We use <a>cookies of many kinds</a></div>{PROSE}",
        f"<article>{PROSE}<div class=share><a>Share it with others</a></div></article>",
        f"{PROSE}<aside><h2>More</h2><ul>{LINKS}</ul></aside>",
        f"<table><tr><td><ul>{LINKS}</ul></td><td>{PROSE}</td></tr></table>",
    ],
)
def test_main_text_is_what_the_page_is_about(html: str) -> None:
    out = SpanBuilder("x")
    facts = extract_html(html, out, xml=False, lines=False, main_text=True)
    text = out.finish()[0]
    assert text.startswith("Sentence 0 ")
    assert text.endswith("Sentence 29 of the story is told here.")
    assert facts.left_out[0].what == "block of page furniture"


@pytest.mark.parametrize(
    "html",
    [
        f"<header><h1>Title</h1></header>{PROSE}",
        f"<article><header>By Ida</header>{PROSE}<footer>Written in Lund</footer></article>",
        f"<div class=header>{PROSE}</div>",
        f"<footer>{PROSE * 3}</footer>",
        f"<ul>{LINKS}</ul>",  # nothing would be left
        f"{PROSE}<aside>A note of the author, without any link.</aside>",
        f"{PROSE}<ul><li>a <a>b</a><li>c</ul>",
        f"<div>{PROSE}<h2>See also</h2><ul>{LINKS}</ul></div>",
        f"<div class=has-sidebar><div>{PROSE[:900]}</div><p><a>{'link ' * 300}</a></div>",
    ],
)
def test_in_doubt_main_text_keeps(html: str) -> None:
    out, whole = SpanBuilder("x"), SpanBuilder("x")
    facts = extract_html(html, out, xml=False, lines=False, main_text=True)
    extract_html(html, whole, xml=False, lines=False, main_text=False)
    assert out.finish()[0] == whole.finish()[0]
    assert [left.what for left in facts.left_out if "furniture" in left.what] == []


def test_automatic_main_text_only_where_most_is_furniture() -> None:
    few, many = f"<nav>{LINKS}</nav>{PROSE}", f"<nav>{LINKS * 4}</nav>{PROSE}"
    for html, begin in ((few, "- Entry 0"), (many, "Sentence 0"), (f"<nav>{LINKS}</nav>x", "- En")):
        out = SpanBuilder("x")
        extract_html(html, out, xml=False, lines=False, main_text=None)
        assert out.finish()[0].startswith(begin)


@pytest.mark.parametrize(
    "unit",
    sorted(
        words(
            """<div> <b> <b/id=1><i> <table><tr><td> <ul><li> <h1><div> <sup> <rt> <ruby>a<rt>
            <dl><dd> <math><msup> <![CDATA[ < <!-- <svg> <select>"""
        )
    ),
)
def test_deep_and_broken_pages_take_linear_time(unit: str) -> None:
    began = time.process_time()
    read("<!doctype html>" + unit * 20_000 + "x", xml=unit.startswith("<!["))
    assert time.process_time() - began < 10  # quadratic ones take a minute


def test_text_beyond_the_depth_of_browsers_is_kept() -> None:
    html = "<div>a <b>b</b>" * 600 + "<p>4711<span>8</span>" + "</div>" * 600 + "<p>end"
    text = read(html).text
    assert text.count("a b") == 600
    assert text.endswith("47118\n\nend")
