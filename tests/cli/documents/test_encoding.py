"""Bytes become the text that was written, or are refused as binary."""

import codecs
import contextlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli.documents.encoding import clean, decode
from infllm.cli.documents.errors import UnsupportedFormat

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufffd\ufeff"))


@given(TEXT)
def test_utf8_is_exact(text: str) -> None:
    assert decode(text.encode(), "x") == (text, None)


@given(TEXT, st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]))
def test_byte_order_mark_decides(text: str, encoding: str) -> None:
    mark = {
        "utf-8": codecs.BOM_UTF8,
        "utf-16-le": codecs.BOM_UTF16_LE,
        "utf-16-be": codecs.BOM_UTF16_BE,
        "utf-32-le": codecs.BOM_UTF32_LE,
        "utf-32-be": codecs.BOM_UTF32_BE,
    }[encoding]
    assert decode(mark + text.encode(encoding), "x") == (text, None)


@given(st.binary(max_size=300))
def test_any_bytes_give_text_or_a_typed_error(data: bytes) -> None:
    with contextlib.suppress(UnsupportedFormat):
        clean(decode(data, "x")[0]).encode("utf-8")


def test_a_legacy_encoding_is_guessed_and_said() -> None:
    written = "Der Zähler stand über Nacht auf größter Höhe, für Ärger war gesorgt. " * 20
    text, warning = decode(written.encode("cp1252"), "x")
    assert text == written
    assert warning is not None
    assert "guess" in warning


def test_what_comes_after_the_sample_is_read_in_the_commonest_encoding() -> None:
    written = "Über den Fluß ging es nur zögernd. " * 3000 + "La señorita Núñez"
    assert decode(written.encode("cp1252"), "x")[0] == written


def test_other_alphabets_are_guessed() -> None:
    written = "Мы вышли из дома рано утром, когда солнце ещё не взошло над рекой. " * 20
    assert decode(written.encode("cp1251"), "x")[0] == written


def test_a_few_wrong_bytes_do_not_change_the_encoding() -> None:
    written = "Zähler über Größe, " * 40
    text, warning = decode(written.encode() + b"\xff.", "x")
    assert text == written + "\N{REPLACEMENT CHARACTER}."
    assert warning == "1 characters are damaged (utf-8 with wrong bytes)"


@pytest.mark.parametrize(
    "data",
    [
        b"x\0",
        b"MZ\0\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0 program",
        zlib.compress(bytes(range(256)) * 20),
        struct.pack("<40d", *(1 / n for n in range(1, 41))),
        struct.pack("<200i", *range(200)),
        b"\x80\x04\x95\x1b\0\0\0\0\0\0\0}\x94(\x8c\x03key\x94K\x01\x8c\x04name\x94K\x02u.",
    ],
)
def test_binary_data_is_refused(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat):
        decode(data, "x")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"start of log\n" * 30 + b"\0the hint is heron\n", None),
        (b"before" + b"\0" * 4096 + b"after", "before\nafter"),  # padding after a power cut
        (b"usr/bin\0etc/hosts\0var/log\0", "usr/bin\netc/hosts\nvar/log\n"),
        (b"Z\xe4hler\0gr\xf6\xdfer als zuvor, sagte er", "Zähler\ngrößer als zuvor, sagte er"),
    ],
)
def test_nuls_in_a_text_separate_and_do_not_refuse_it(data: bytes, text: str | None) -> None:
    assert clean(decode(data, "x")[0]) == (text or data.decode().replace("\0", "\n"))


WESTERN = {
    "German": "Das Schloß kostet 4711 € – „teuer“, sagte Müller. Der Zähler stand still.",
    "Swedish": "Läraren målade sången när det blåste. Gubben såg båten på bryggan i går.",
    "Italian": "La città portò più bella quaggiù. La virtù non può così: perché piove già.",
    "French": "Le garçon a mangé la crème brûlée à l’hôtel. Où étiez-vous l’été dernier ?",
    "Spanish": "El niño pequeño soñó con una montaña. ¿Dónde está la señorita Núñez?",
    "Danish": "Manden på øen så på søen hele året. Blåbærgrød er godt. Ægget er på bordet.",
    "Norwegian": "Han gikk på ski over fjellet i går. Været var dårlig, så vi måtte kjøre hjem.",
    "Portuguese": "A informação não está disponível. São João é uma estação do coração.",
    "Dutch": "De coördinatie met België is geëindigd. Hij kreeg één idee en twee cafés.",
    "Finnish": "Hän käveli hitaasti metsän läpi järvelle. Älä pelkää pimeää yötä.",
    "Icelandic": "Það er gott að búa á Íslandi. Þetta er stór á og lítill dalur.",
    "Catalan": "La qüestió és que l’home ha d’anar a Barcelona. Això és molt important.",
    "English": "“It’s 20 €,” she said – the café’s naïve owner didn’t care…",
    "German marks": "Die »movprfx«-Folge wurde für »%s« beschädigt, genügend Platz ist frei.",
    "French marks": "L’option « else » n’est pas définie dans «%s» par l’auteur.",
    "Spanish marks": "¡Esta opción «sed» no está en la señal!",
    "Galician": "¿Onde está a opción «typefind» desta canción?",
    "Dutch text": "Het bestand is niet geïnterpreteerd, want het is voor een ander.",
    "signs only": "The temperature is 20° and the price £30 © 2003 Smith.",
}
LEGACY = {
    "Polish": (["cp1250", "iso8859-2"], "Dziękuję bardzo, że pan przyszedł na spotkanie."),
    "Czech": (["cp1250", "iso8859-2"], "Děkuji, že jste přišli včera večer k nám domů."),
    "Hungarian": (["cp1250", "iso8859-2"], "Köszönöm szépen, hogy eljöttél hozzánk, és őt is."),
    "Russian": (["cp1251", "koi8-r", "cp866", "mac-cyrillic"], "Деревня спала, и ещё лаяли псы."),
    "RUSSIAN": (["cp1251", "koi8-r", "cp866"], "МЫ ВЫШЛИ ИЗ ДОМА РАНО УТРОМ. КОД 4711."),
    "Ukrainian": (["cp1251", "koi8-u"], "Ми вийшли з дому рано. Її сестра їде до Києва."),
    "Greek": (["cp1253", "iso8859-7"], "Η θάλασσα ήταν ήρεμη και ο ήλιος έλαμπε."),
    "Turkish": (["cp1254"], "Çocuklar bahçede oynuyordu, güneş ışığı ağaçların arasındaydı."),
    "Croatian": (["cp1250"], "Sljedeća naredba nije među važećima, čitaj dalje."),
    "Lithuanian": (["cp1257"], "Įkelti klaviatūros žymą, kuri buvo ištrinta iš sąrašo."),
    "Latvian": (["cp1257"], "Bērni spēlējās pagalmā, un saule spīdēja šurp ģimenei."),
    "Estonian": (["cp1257"], "Täna õhtul šifreeriti žanri nimi järve ääres."),
    "Hebrew": (["cp1255"], "הילד הלך לבית הספר בבוקר מוקדם."),
    "Arabic": (["cp1256"], "ذهب الولد إلى المدرسة في الصباح الباكر."),
    "Thai": (["cp874"], "เด็กไปโรงเรียนในตอนเช้า ดวงอาทิตย์ส่องแสงเหนือภูเขา"),
    "Japanese": (
        ["cp932", "euc-jp", "iso2022-jp"],
        "吾輩は猫である。名前はまだ無い。合言葉は青空です。",
    ),
    "Chinese": (["gbk", "gb18030"], "孩子们早上去上学，太阳从山上升起。密码是青空。"),
    "Taiwanese": (["big5"], "孩子們早上去上學，太陽從山上升起。密碼是青空。"),
    "Korean": (["euc-kr", "cp949"], "아이들은 아침 일찍 학교에 갔다. 비밀번호는 푸른하늘입니다."),
    "German": (["cp850", "cp437", "mac-roman"], "Der Zähler stand über Nacht auf größter Höhe."),
    "French": (["cp850", "mac-roman"], "Le garçon a mangé la crème brûlée, où étiez-vous ?"),
}


@pytest.mark.parametrize("language", WESTERN)
@pytest.mark.parametrize("times", [1, 40])
def test_western_prose_is_windows_1252(language: str, times: int) -> None:
    written = f"{WESTERN[language]}\n" * times
    for text in (written, written.upper()):
        read, warning = decode(text.encode("cp1252"), "x")
        assert read == text
        assert warning == "not UTF-8; read as windows-1252, which is a guess"


@pytest.mark.parametrize(
    ("language", "encoding"),
    [(name, code) for name, (codes, _) in LEGACY.items() for code in codes],
)
@pytest.mark.parametrize("times", [1, 40])
def test_legacy_encodings(language: str, encoding: str, times: int) -> None:
    written = f"{LEGACY[language][1]}\n" * times
    text, warning = decode(written.encode(encoding), "x")
    assert text == written
    assert warning is not None
    assert "which is a guess" in warning


@pytest.mark.parametrize("language", [*WESTERN, *LEGACY])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_two_and_four_bytes_a_character_without_a_mark(language: str, encoding: str) -> None:
    written = (WESTERN.get(language) or LEGACY[language][1]) + " 4711\r\n"
    text, warning = decode(written.encode(encoding), "x")
    assert text == written
    assert warning == f"no byte order mark; read as {encoding}, which is a guess"


@pytest.mark.parametrize("language", [*WESTERN, *LEGACY])
def test_utf8_with_a_few_bytes_of_windows_1252(language: str) -> None:
    around = f"{WESTERN.get(language) or LEGACY[language][1]} Größe, café\n" * 3
    stray = "Le café “à la carte” – it’s 5 €, NÃO\n"
    text, warning = decode(around.encode() + stray.encode("cp1252") + around.encode(), "x")
    assert text == around + stray + around
    assert warning is not None
    assert "bytes are not UTF-8; read as windows-1252" in warning


def test_cut_characters_are_damage_not_other_letters() -> None:
    written = "孩子們早上去上學，太陽從山上升起。caf\u00e9 "
    text, warning = decode(written.encode() + "é".encode()[:1] + b" " + "山".encode()[:2], "x")
    assert text.removeprefix(written).replace("\ufffd", "") == " "
    assert warning is not None
    assert "damaged" in warning


@pytest.mark.parametrize("control", ["\v", "\f", "\x85", "\x1c", "\x1d", "\x1e", "\x1f", "\0"])
def test_controls_that_separate_go_on_separating(control: str) -> None:
    assert clean(f"77{control}88").split() == ["77", "88"]
    assert clean(f"77{control}88", " ") == "77 88"


def test_clean_takes_other_controls_and_normalizes_newlines() -> None:
    assert clean("a\r\nb\rc\x07\td\ud800\x7f") == "a\nb\nc\td"


def test_escape_sequences_leave_no_digits() -> None:
    assert clean("\x1b[1;31m4711\x1b[0m \x1b]0;title 12\x07end") == "4711 end"


def test_what_is_struck_over_is_read_once() -> None:
    assert clean("N\bNA\bAM\bME\bE _\b4_\b7") == "NAME 47"


def test_windows_1252_characters_that_passed_for_controls() -> None:
    assert clean("It\x92s \x80 20 \x96 \x93so\x94") == "It’s € 20 – “so”"
