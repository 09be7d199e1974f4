"""Raw text of PDF pages made plain, and text whose fonts name no characters."""

import time

import pytest

from infllm.cli.documents.garbled import garbled_share, is_readable
from infllm.cli.documents.pagetext import normalize, page_lines


def test_ligatures_and_line_end_hyphens() -> None:
    assert normalize("e\ufb03cient \ufb02ow, Voraus\ufffesetzung\r\nx\u00ady \x04") == (
        "efficient flow, Voraus-\nsetzung\nxy"
    )


def test_lines_keep_their_places() -> None:
    page = page_lines(["a \x04", "\x04", "b"], [(0, 1), (2, 3), (4, 5)], 10)
    assert (page.texts, page.edges) == (["a", "b"], [(0, 1), (4, 5)])


@pytest.mark.parametrize(
    "raw", ["/g4/g16/g7 /g9/g2/g11", "(cid:12)(cid:3)", "\ufffd\ufffd \ufffd", "\x01\x04", "\ue001"]
)
def test_what_shows_no_characters_is_garbled(raw: str) -> None:
    assert garbled_share(raw) > 0.9


@pytest.mark.parametrize("raw", ["see /usr/lib64 and /g4", "• one\n\uf0b7 two words", "日本語", ""])
def test_what_shows_them_is_not(raw: str) -> None:
    assert garbled_share(raw) < 0.2


def test_readable_text_has_the_small_words_of_its_language() -> None:
    assert is_readable("the keeper of the wall")
    assert is_readable("der Wärter und die Mauer")
    assert not is_readable("7KH NHHSHU RI WKH ZDOO")


def test_a_run_of_letters_without_a_blank_costs_its_length() -> None:
    run = "a" * 200_000
    began = time.process_time()
    normalize(run)
    garbled_share(run)
    garbled_share("/g4" * 60_000 + "!")
    assert time.process_time() - began < 5
