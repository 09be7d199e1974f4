"""Text on its way out: stop texts, trimming, control characters, numbers."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli import text
from infllm.cli.tables import Table
from infllm.cli.tasks.answer import StopTexts, Trimmed

cuts = st.lists(st.text("ab \n", max_size=4), max_size=12)


@given(cuts, st.lists(st.text("ab ", min_size=1, max_size=3), max_size=3))
def test_stop_texts_do_not_depend_on_the_pieces(pieces, stops):
    whole = "".join(pieces)
    begun = len(whole) - len(whole.lstrip())  # before that, blanks stop nothing
    places = {stop: whole.find(stop, begun if stop.isspace() else 0) for stop in stops}
    found = [at for at in places.values() if at >= 0]
    # Pieces may end a stop text before one that began earlier is complete: the first complete wins.
    ends = [(at + len(stop), at) for stop, at in places.items() if at >= 0]
    stopper = StopTexts(stops)
    given_out = "".join(stopper.push(piece) for piece in pieces) + stopper.flush()
    assert stopper.stopped == bool(found)
    if not found:
        assert given_out == whole
    else:
        assert whole.startswith(given_out)
        assert len(given_out) in {start for _, start in ends}


def test_a_blank_line_ends_an_answer_that_has_begun():
    for pieces in (["\n\n", "It is.", "\n", "\nMore."], ["\n\nIt is.\n\nMore."]):
        stopper = StopTexts(["\nQuestion:", "\n\n"])
        assert "".join(map(stopper.push, pieces)).strip() == "It is."
        assert stopper.stopped
    stopper = StopTexts(["\nQuestion:", "\n\n"])
    assert "".join(map(stopper.push, ["\n", "\nQuestion", ": More?"])).strip() == ""
    assert stopper.stopped


@given(cuts)
def test_trimmed_is_strip(pieces):
    trimmed = Trimmed()
    assert "".join(trimmed.push(piece) for piece in pieces) == "".join(pieces).strip()


ENDS = "\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029"
TURNS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@given(st.text(st.one_of(st.characters(), st.sampled_from(ENDS + TURNS + "\x9b\x1b\r\t\n"))))
def test_clean_keeps_everything_but_what_a_terminal_obeys(value):
    cleaned = text.clean(value)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in cleaned)
    assert not set(cleaned) & set(TURNS)
    plain = [c for c in value if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs")]
    kept = "".join(c for c in cleaned if unicodedata.category(c) != "Cf")
    assert kept.replace("\n", "") == "".join(c for c in plain if c not in "\n\u2028\u2029")


def test_separators_keep_words_and_numbers_apart():
    for end in ENDS:
        assert text.clean(f"77{end}88") == "77\n88"
        assert text.one_line(f"77{end}88") == "77 88"


def test_joiners_that_spell_words_and_emoji_stay():
    for word in (
        "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\U0001f469\u200d\U0001f33e",
    ):
        assert text.clean(word) == word


def test_plurals_of_several_words():
    nouns = {
        "running line": "2 running lines", "image without text": "2 images without text",
        "policy": "2 policies", "entry": "2 entries", "day": "2 days", "suffix": "2 suffixes",
    }  # fmt: skip
    assert {noun: text.plural(2, noun) for noun in nouns} == nouns
    assert text.plural(1, "image without text") == "1 image without text"


@pytest.mark.parametrize(
    ("n_bytes", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (4_190_000, "4.19 MB"), (137e9, "137 GB"),
     (2.5e12, "2.5 TB")],
)  # fmt: skip
def test_sizes(n_bytes, shown):
    assert text.size(n_bytes) == shown


@pytest.mark.parametrize(
    ("duration", "shown"),
    [(0.421, "0.42 s"), (93.14, "93.1 s"), (725, "12 min 5 s"), (7380, "2 h 3 min")],
)
def test_seconds(duration, shown):
    assert text.seconds(duration) == shown


def test_plain_table():
    table = Table(["name", "tokens"], [["a\x1b[1m", "1"], ["long name", "1,000"]])
    assert table.plain() == "name       tokens\na[1m            1\nlong name   1,000"


def test_plurals():
    assert [text.plural(n, "policy") for n in (0, 1, 2)] == ["0 policies", "1 policy", "2 policies"]
    assert text.plural(1200, "file") == "1,200 files"
