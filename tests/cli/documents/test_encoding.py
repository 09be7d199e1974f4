"""Bytes become the text that was written, or are refused as binary."""

import codecs
import contextlib

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


def test_nul_means_binary() -> None:
    with pytest.raises(UnsupportedFormat):
        decode(b"abc\0def", "x")


def test_clean_takes_control_characters_and_normalizes_newlines() -> None:
    assert clean("a\r\nb\rc\x1b[31m\x07\td\x9b\ud800") == "a\nb\nc[31m\td"
