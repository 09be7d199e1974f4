"""Words broken at the ends of lines and pages."""

import time

import pytest

from infllm.cli.documents.hyphens import Vocabulary, dehyphenate, page_joint

# Enough small words for the text to be taken for English.
ENGLISH = "the end of the day and the start of the night in the harbour, for it is with us\n"


def joined(text: str, around: str = ENGLISH) -> str:
    page = around + text
    return dehyphenate(page, Vocabulary([page])).removeprefix(around)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the infor-\nmation desk", "the information desk"),
        ("an under-\nstanding", "an understanding"),
        ("the infor-\nmation[3] desk", "the information[3] desk"),
        ("(infor-\nmation)", "(information)"),
        ("a word that nobody knows: quizzle-\nbomp", "a word that nobody knows: quizzlebomp"),
    ],
)
def test_a_syllable_is_joined(text: str, expected: str) -> None:
    assert joined(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a well-\nknown man",
        "run git-\ncommit now",
        "run it with --no-\ncache now",
        "see https://example.org/long-\nname/page",
        "see example.org/long-\nname",
        "write to first-\nlast@example.org",
        "the path src/my-\nfile",
        "set MY_VAR-\nname",
        "an e-\nmail",
        "an x-\nray",
        "the re-\nelected mayor",
        "part AB-\n1234",
        "the years 1990-\n2000",
        "an 18-\nyear old",
        "met Jean-\nPaul",
        "cross-\nreference",
    ],
)
def test_a_hyphen_that_belongs_to_the_word_stays(text: str) -> None:
    assert joined(text) == text.replace("\n", "")


def test_the_document_decides_first() -> None:
    assert joined("quizzle-bomp, a quizzle-\nbomp") == "quizzle-bomp, a quizzle-bomp"
    assert joined("gitcommit, a git-\ncommit") == "gitcommit, a gitcommit"


def test_parts_of_broken_words_are_no_words() -> None:
    assert "infor" not in Vocabulary(["the infor-\nmation"]).known


def test_other_languages_are_joined() -> None:
    german = "die Mauer und der Hafen, das Boot ist von der Stadt mit einem Turm\n"
    assert joined("die Straßen-\nbahn", german) == "die Straßenbahn"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("pre-\nand post-war", "pre- and post-war"), ("Vor-\nund Nachteile", "Vor- und Nachteile")],
)
def test_a_hyphen_for_a_word_left_out_keeps_its_blank(text: str, expected: str) -> None:
    assert joined(text) == expected


def test_capitals_are_joined_where_the_word_is_known() -> None:
    assert joined("INFORMATION; INFOR-\nMATION") == "INFORMATION; INFORMATION"


def test_a_dash_is_no_hyphen() -> None:
    assert joined("the wall -\nthe sea") == "the wall -\nthe sea"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("an exam-", "ple of", (1, "")),
        ("a well-", "known man", (1, "-")),
        ("it goes", "on here", (0, "\n")),
        ("It ends.", "next one", (0, "\n\n")),
        ("it goes", "On", (0, "\n\n")),
        ("1990-", "2000", (0, "\n\n")),
    ],
)
def test_where_pages_meet(before: str, after: str, expected: tuple[int, str]) -> None:
    assert page_joint(before, after, Vocabulary([ENGLISH])) == expected


@pytest.mark.parametrize("run", ["a" * 200_000, "a-" * 100_000, "-\n" * 100_000, "a-\n" * 60_000])
def test_a_run_without_a_blank_costs_its_length(run: str) -> None:
    began = time.process_time()
    known = Vocabulary([run])
    dehyphenate(run, known)
    page_joint(run + "-", run, known)
    assert time.process_time() - began < 10
