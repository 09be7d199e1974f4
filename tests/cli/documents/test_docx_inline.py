"""Inside paragraphs of Word documents: symbols, fields, forms, equations, pictures."""

from infllm.cli.documents import LeftOut
from infllm.cli.documents.docx import read_docx
from tests.cli.documents.readers import archive_reader
from tests.cli.documents.word import NAMESPACES, field, p, style, t, word

read = archive_reader("a.docx", read_docx)


def test_hidden_text_is_left_out_and_told(read) -> None:
    hidden = style("secret", kind="character", inside="<w:rPr><w:vanish/></w:rPr>")
    whole = style("para", inside="<w:rPr><w:vanish/></w:rPr>")
    document = read(
        word(
            p("a", t("one", "<w:vanish/>"), t("two", '<w:rStyle w:val="secret"/>'), "b",
              t("shown", '<w:rStyle w:val="secret"/><w:vanish w:val="0"/>'))
            + p("three", style="para"),
            styles=hidden + whole,
        )
    )  # fmt: skip
    assert document.text == "abshown"
    assert document.left_out == [LeftOut("hidden text", 3, ("one", "two", "three"))]


def test_symbols_breaks_and_fields(read) -> None:
    document = read(
        word(
            p('<w:r><w:sym w:font="Wingdings" w:char="F0FC"/></w:r>', " done",
              "<w:r><w:tab/><w:t>a</w:t><w:br/><w:t>b</w:t><w:noBreakHyphen/><w:softHyphen/></w:r>",
              t("soft\u00adhyphen"), t("a", '<w:rFonts w:ascii="Symbol"/>'))
            + p("see ", field("REF x", "clause 4"))
            + p('<w:fldSimple w:instr="DATE">' + t("1 May") + "</w:fldSimple>")
            + p('<w:hyperlink r:id="x">' + t("link") + "</w:hyperlink>")
        )
    )  # fmt: skip
    assert document.text == "✓ done\ta\nb-softhyphenα\n\nsee clause 4\n\n1 May\n\nlink"


def test_an_open_field_does_not_swallow_what_follows(read) -> None:
    begin = '<w:r><w:fldChar w:fldCharType="begin"/></w:r>'
    assert read(word(p("a", begin, "b") + p("c"))).text == "ab\n\nc"


def test_form_values_without_result_text(read) -> None:
    begin = '<w:r><w:fldChar w:fldCharType="begin"><w:ffData>{}</w:ffData></w:fldChar></w:r>'
    end = '<w:r><w:fldChar w:fldCharType="end"/></w:r>'
    box = "<w:checkBox><w:default w:val='{}'/></w:checkBox>"
    drop = (
        '<w:ddList><w:result w:val="1"/><w:listEntry w:val="no"/><w:listEntry w:val="yes"/>'
        "</w:ddList>"
    )
    body = "".join(p(begin.format(one), end, "agree") for one in (box.format(1), box.format(0)))
    assert read(word(body)).text == "☒ agree\n\n☐ agree"
    assert read(word(p("say ", begin.format(drop), end))).text == "say yes"


def test_raised_and_struck_text_keeps_its_meaning(read) -> None:
    up, down = '<w:vertAlign w:val="superscript"/>', '<w:vertAlign w:val="subscript"/>'
    document = read(
        word(
            p("10", t("-6", up), " H", t("2", down), "O 1", t("st", up), " x", t("ab", up), " ",
              t("not ", "<w:strike/>"), t("so", "<w:strike/>"))
        )
    )  # fmt: skip
    assert document.text == "10⁻⁶ H₂O 1st x^(ab) ~~not so~~"


def test_equations_and_readings(read) -> None:
    def m(text: str) -> str:
        return f"<m:r><m:t>{text}</m:t></m:r>"

    half = f"<m:f><m:fPr/><m:num>{m('x+1')}</m:num><m:den>{m('2')}</m:den></m:f>"
    power = f"<m:sSup><m:e>{m('10')}</m:e><m:sup>{m('6')}</m:sup></m:sSup>"
    root = f"<m:rad><m:deg/><m:e>{m('7')}</m:e></m:rad>"
    ruby = f"<w:r><w:ruby><w:rt>{t('あお')}</w:rt><w:rubyBase>{t('青')}</w:rubyBase></w:ruby></w:r>"
    document = read(word(p(f"<m:oMath>{half}{m('=')}{power}{m('·')}{root}</m:oMath>") + p(ruby)))
    assert document.text == "(x+1)/2=10^6·√(7)\n\n青(あお)"


def test_pictures_by_their_alternative_text(read) -> None:
    named = '<w:r><w:drawing><wp:docPr id="1" descr="A map"/><pic:pic/></w:drawing></w:r>'
    bare = '<w:r><w:drawing><wp:docPr id="1"/><pic:pic/></w:drawing></w:r>'
    document = read(
        word(p("see ", named) + p(bare) + p(bare.replace('"/>', '" descr="a.png"/>', 1)))
    )
    assert document.text == "see [image: A map]"
    assert document.left_out == [LeftOut("image without text", 2)]


def test_charts_by_the_values_they_keep(read) -> None:
    values = "".join(f'<c:pt idx="{n}"><c:v>{v}</c:v></c:pt>' for n, v in enumerate((4, 9)))
    names = "".join(f'<c:pt idx="{n}"><c:v>{v}</c:v></c:pt>' for n, v in enumerate(("May", "June")))
    chart = (
        f"<c:chartSpace {NAMESPACES}><c:title><a:p><a:r><a:t>Sales</a:t></a:r></a:p></c:title>"
        f"<c:ser><c:tx><c:v>2024</c:v></c:tx><c:cat>{names}</c:cat><c:val>{values}</c:val></c:ser>"
        "</c:chartSpace>"
    )
    body = p('<w:r><w:drawing><c:chart r:id="r0"/></w:drawing></w:r>')
    assert read(word(body, chart=chart)).text == "[chart: Sales; 2024: May = 4, June = 9]"
