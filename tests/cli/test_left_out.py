"""What of the sources is not in their text is told by every command, and kept with a memory."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infllm.cli import estimate
from infllm.cli.documents import Collection, Document, LeftOut, Span
from infllm.cli.documents import reading as documents_reading
from infllm.cli.packing import pack_documents, unpack_documents
from tests.cli.fakes import FakeTokenizer
from tests.cli.memories import ANSWER, HARBOUR

LOST = [
    LeftOut("running line", 12, ("Confidential", "Page\u202e of\n9")),
    LeftOut("image without text", 1, ("figure.png",)),
]
LINE = "left out: 12 running lines, 1 image without text"


@pytest.fixture
def lossy(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Readers that leave something out of every text file; the options that they were given."""
    given: list[dict[str, Any]] = []
    read, init = documents_reading.read_plain, documents_reading._Reader.__init__

    def reading(*arguments: Any, **options: Any) -> Document:
        return replace(read(*arguments, **options), left_out=list(LOST))

    def noting(self: Any, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **options)
        given.append({"main_text": self.main_text, "outputs": self.outputs})

    monkeypatch.setattr(documents_reading, "read_plain", reading)
    monkeypatch.setattr(documents_reading._Reader, "__init__", noting)
    monkeypatch.setattr(estimate, "load_tokenizer", lambda config: FakeTokenizer())
    return given


@pytest.mark.parametrize(
    "command",
    [
        ["ask", "BOOK", "What is the pass key?"],
        ["ask", "BOOK", "What is the pass key?", "--json"],
        ["ask", "BOOK", "--questions", "q.txt"],
        ["summarize", "BOOK"],
        ["ppl", "BOOK"],
    ],
)
def test_one_line_on_standard_error(infllm, fakes, lossy, book, command):
    Path("q.txt").write_text("Why?\n")
    result = infllm(*(str(book) if part == "BOOK" else part for part in command))
    assert result.code == 0
    assert f"{LINE} (infllm inspect {book} shows them)\n" in result.raw_err
    assert "Confidential" not in result.raw_err + result.out
    if "--json" in command:
        kinds = [{"what": "running line", "count": 12}, {"what": "image without text", "count": 1}]
        assert json.loads(result.out)["left_out"] == kinds


def test_more_of_it_when_asked_and_nothing_when_told(infllm, fakes, lossy, book):
    verbose = infllm("ask", book, "What is the pass key?", "-v").raw_err
    assert f'left out of {book}: 12 running lines: "Confidential", "Page of 9"\n' in verbose
    assert "left out" not in infllm("ask", book, "What is the pass key?", "-q").raw_err


def test_of_several_sources_the_sum(infllm, fakes, lossy, book, tmp_path):
    (tmp_path / "b b.txt").write_text("More.")
    result = infllm("ask", book, tmp_path / "b b.txt", "What is the pass key?")
    assert "left out: 24 running lines, 2 images without text (infllm inspect SOURCE" in result.err
    alone = infllm("ask", tmp_path / "b b.txt", "What is the pass key?")
    assert f"(infllm inspect '{tmp_path}/b b.txt' shows them)" in alone.err


def test_nothing_is_said_where_nothing_was_left_out(infllm, fakes, book):
    result = infllm("ask", book, "What is the pass key?", "--json")
    assert "left out" not in result.err
    assert json.loads(result.out)["left_out"] == []


def test_inspect_lists_it_by_source(infllm, lossy, book):
    result = infllm("inspect", book)
    told = f"\nleft out of {book}\n  12 running lines\n  1 image without text\n"
    assert told in result.out
    assert "left out" not in result.raw_err
    with_samples = infllm("inspect", book, "-v").out
    assert '\n  12 running lines\n    "Confidential"\n    "Page of 9"\n  1 image' in with_samples
    fields = json.loads(infllm("inspect", book, "--json").out)
    assert fields["documents"][0]["left_out"] == [
        {"what": "running line", "count": 12, "samples": ["Confidential", "Page\u202e of\n9"]},
        {"what": "image without text", "count": 1, "samples": ["figure.png"]},
    ]
    assert fields["left_out"][0] == {"what": "running line", "count": 12}


def test_the_choices_of_reading_reach_the_readers(infllm, fakes, lossy, book):
    assert lossy == []
    for command in (["ask", book, "Why?"], ["summarize", book], ["ppl", book], ["inspect", book],
                    ["inspect", "--text", book], ["ask", book, "Why?", "--dry-run"]):  # fmt: skip
        for option, choices in (
            ([], {"main_text": None, "outputs": False}),
            (["--main-text", "--outputs"], {"main_text": True, "outputs": True}),
            (["--no-main-text"], {"main_text": False, "outputs": False}),
        ):
            assert infllm(*command, *option).code == 0
            assert lossy.pop() == choices


# ---- inspect --text ----


@pytest.mark.parametrize("end", ["", "\n", "\n\n \n"])
def test_the_text_and_nothing_else(infllm, tmp_path, end):
    text = "Zoë\t\u202eabc\u202c 10\u2076 \U0001f469\u200d\U0001f33e  two  blanks" + end
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    result = infllm("inspect", "--text", path)
    assert (result.code, result.out, result.raw_err) == (0, text, "")


def test_the_text_of_several_is_what_is_read(infllm, fakes, tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"This is {name}.\n")
    result = infllm("inspect", "--text", tmp_path / "a.txt", tmp_path / "b.txt")
    infllm("ask", tmp_path / "a.txt", tmp_path / "b.txt", "Why?")
    read = fakes.engine.tokenizer.decode(fakes.engine.sessions[0].given)
    assert result.out == read.removesuffix("\n\nQuestion: Why?\nAnswer:")


def test_text_is_no_json_and_needs_no_model(infllm, book):
    assert infllm("inspect", "--text", book, "--json").code == 2
    result = infllm("inspect", "--text", book, "--preset", "no-such-preset")
    assert (result.code, result.out) == (0, book.read_text())


def test_the_text_of_what_cannot_be_read(infllm, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    for name in ("empty.txt", "missing.txt"):
        result = infllm("inspect", "--text", tmp_path / name)
        assert (result.code, result.out) == (3, "")


# ---- memories ----


def collection(left_out: list[LeftOut]) -> Collection:
    document = Document("a.txt", "text", "One two.", [Span(0, 8, "a.txt", line=1)])
    return Collection([replace(document, left_out=left_out)])


def test_it_goes_into_a_memory_and_comes_back():
    back = unpack_documents(pack_documents(collection(LOST)))
    assert back.documents == collection(LOST).documents
    assert isinstance(back.documents[0].left_out[0].samples, tuple)


def test_a_memory_is_not_told_apart_by_it_and_older_ones_open():
    plain = pack_documents(collection([]), names=False)
    assert pack_documents(collection(LOST), names=False) == plain
    assert b"left_out" not in plain  # as before there was such a field
    assert b"left_out" not in pack_documents(collection([]))
    assert unpack_documents(pack_documents(collection([]))).documents == collection([]).documents


def test_a_memory_tells_it_again(infllm, pocket, lossy, text, tmp_path):
    indexed = infllm("index", text, "-o", tmp_path / "a.mem", "--json")
    assert LINE in indexed.raw_err
    assert json.loads(indexed.out)["left_out"][0]["count"] == 12
    asked = infllm("ask", tmp_path / "a.mem", HARBOUR)
    assert asked.out == f"{ANSWER}\n"
    assert f"{LINE}\n" in asked.raw_err


# ---- perplexity of the text alone ----


def scores(infllm: Any, *sources: Path) -> list[Any]:
    fields = json.loads(infllm("ppl", *sources, "--json").out)
    return [fields[name] for name in ("tokens", "nll", "bits_per_byte", "curve")]


def test_perplexity_does_not_depend_on_names(infllm, pocket, book, tmp_path):
    deep = tmp_path / "a folder" / ("long" * 20)
    deep.mkdir(parents=True)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"The story of the quay. {name[0] == 'a'} and the mill.\n")
        os.link(tmp_path / name, deep / f"renamed {name}")
    here = scores(infllm, tmp_path / "a.txt", tmp_path / "b.txt")
    assert scores(infllm, deep) == here
    assert scores(infllm, deep / "renamed a.txt", tmp_path / "b.txt") == here
    one = tmp_path / "one.txt"
    one.write_text((tmp_path / "a.txt").read_text() + "\n\n" + (tmp_path / "b.txt").read_text())
    assert scores(infllm, one) == here


def test_perplexity_says_how_sources_are_joined(infllm, fakes, book):
    assert "without names of sources, a blank line between them" in infllm("ppl", book).err


# ---- times and tokens ----


def test_tokens_and_seconds_are_of_the_same_reading(infllm, pocket, text, monkeypatch):
    """A long question takes its time, and the sentence counts its tokens with that time."""
    import time

    from infllm.cli.tasks import questions

    look = questions.look

    def slow(*arguments: Any) -> Any:
        time.sleep(0.6)
        return look(*arguments)

    long = " ".join(["the quay and the mill"] * 200) + " " + HARBOUR
    quick = json.loads(infllm("ask", text, HARBOUR, "--json").out)
    monkeypatch.setattr(questions, "look", slow)
    result = infllm("ask", text, long, "--json")
    fields = json.loads(result.out)
    assert fields["tokens_read"] > quick["tokens_read"] + 800
    assert fields["seconds"] >= 0.6
    sentence = r"read ([\d,]+) tokens in ([\d.]+) s \(([\d,]+) tok/s\)(, (\d+) read back)?"
    told = re.search(sentence, result.raw_err)
    assert told is not None
    number = int(told[1].replace(",", ""))
    assert number == fields["tokens_read"]
    assert int(told[5] or 0) == fields["tokens_read_back"]
    assert float(told[2]) == pytest.approx(fields["seconds"], abs=0.06)
    assert fields["tokens_per_second"] == pytest.approx(number / fields["seconds"], rel=0.02)


def test_of_a_memory_the_question_alone_was_read(infllm, harbour):
    result = infllm("ask", harbour, HARBOUR)
    sentence = r"\nread the question's \d+ tokens in T, (\d+ read back, )?answered in T; "
    assert re.search(sentence, result.err)
    assert "tok/s" not in result.err
