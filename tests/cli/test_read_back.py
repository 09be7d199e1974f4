"""Passages that a question found, read again next to it."""

import json
from types import SimpleNamespace

import pytest

from infllm.cli.documents import Collection, Document
from infllm.cli.tasks.citations import Found
from infllm.cli.tasks.looking import choose, spell, with_opening
from tests.cli.memories import ANSWER, HARBOUR
from tests.cli.stories import fact, story


def test_passages_are_read_again_next_to_the_question(infllm, harbour):
    fields = json.loads(infllm("ask", harbour, HARBOUR, "--read-back", "--json").out)
    assert fields["answer"] == ANSWER
    assert 0 < fields["tokens_read_back"] < 256
    assert fields["citations"][0]["quote"] == fact("vague-harbor", ANSWER)
    plain = json.loads(infllm("ask", harbour, HARBOUR, "--no-read-back", "--json").out)
    assert plain["tokens_read_back"] == 0
    assert (plain["tokens_given"], plain["tokens_read"]) == (
        fields["tokens_given"],
        fields["tokens_read"],
    )
    as_preset = json.loads(infllm("ask", harbour, HARBOUR, "--json").out)
    assert as_preset["tokens_read_back"] == fields["tokens_read_back"]
    off = json.loads(infllm("ask", harbour, HARBOUR, "--set", "read_back=false", "--json").out)
    assert off["tokens_read_back"] == 0


def test_a_text_within_the_window_has_nothing_to_read_back(infllm, pocket, tmp_path):
    (tmp_path / "short.txt").write_text(fact("vague-harbor", ANSWER))
    result = infllm("ask", tmp_path / "short.txt", HARBOUR, "--read-back", "--json")
    assert json.loads(result.out)["tokens_read_back"] == 0
    explained = infllm("ask", tmp_path / "short.txt", HARBOUR, "--explain")
    assert "nothing was looked up: the whole text is within the window" in explained.err


def test_a_question_longer_than_the_window_reads_nothing_back(infllm, harbour):
    long = " ".join(f"And what of day {day}?" for day in range(60))
    result = infllm("ask", harbour, long, "--read-back", "--json", "--max-new-tokens", "4")
    assert (result.code, json.loads(result.out)["tokens_read_back"]) == (0, 0)


TEXT = (
    "The key of the mill lies under the stone. The key of the barn hangs on a nail. "
    "The key of the boat is with the cook. Rain fell."
)


def found(score, sentence, words):
    start = TEXT.index(sentence)
    return Found(score, start, start + len(sentence), words)


def test_a_sentence_with_as_many_words_of_the_question_is_read_back_whatever_was_attended():
    mill = found(0.61, "The key of the mill lies under the stone.", 0.44)
    rain = found(0.32, "Rain fell.", 0.02)
    barn = found(0.29, "The key of the barn hangs on a nail.", 0.43)
    assert choose(TEXT, [mill, rain, barn], "Where are the keys of mill and barn?") == [
        mill, rain, barn,
    ]  # fmt: skip
    weak = barn._replace(words=0.2)
    assert choose(TEXT, [mill, rain, weak], "Where are the keys?") == [mill, rain]


def test_as_many_sentences_are_read_back_as_a_question_names_things():
    names = ["Ada", "Bert", "Cleo", "Dora", "Emil", "Fay", "Gus"]
    text = " ".join(f"{name} was born in spring." for name in names)
    ranked = [
        Found(0.4 - i / 100, text.index(name), text.index(name) + 23 + len(name), 0.4)
        for i, name in enumerate(names)
    ]
    spare = Found(0.3, 0, 10, 0.4)  # nothing new
    assert choose(text, [*ranked, spare], f"When were {', '.join(names)} born?") == ranked
    assert choose(text, [*ranked, spare], "Who was born in spring?") == ranked[:5]


def test_nothing_found_is_nothing_chosen():
    assert choose(TEXT, [], "Where?") == []


@pytest.mark.parametrize(("form", "between"), [("lines", "\n"), ("prose", " ")])
def test_passages_stand_in_the_order_of_the_text_and_within_the_room(form, between):
    engine = SimpleNamespace(
        tokenizer=SimpleNamespace(encode=list), config=SimpleNamespace(read_back_as=form)
    )
    memory = SimpleNamespace(collection=SimpleNamespace(text=TEXT))
    boat = found(0.6, "The key of the boat is with the cook.", 0.4)
    barn = found(0.5, "The key of the barn hangs on a nail.", 0.4)
    mill = found(0.4, "The key of the mill lies under the stone.", 0.4)
    ids = spell(engine, memory, [boat, barn, mill], 80)
    assert "".join(ids) == between.join(
        ["The key of the barn hangs on a nail.", "The key of the boat is with the cook."]
    )


def memory_of(*texts, kept=None):
    documents = [Document(f"{n}.txt", "text", text, []) for n, text in enumerate(texts)]
    collection = Collection(documents)
    passages = SimpleNamespace(kept=kept or [(0, len(collection.text))])
    return SimpleNamespace(collection=collection, passages=passages)


def test_the_head_of_the_document_that_a_passage_stands_in_is_read_with_it():
    head = "On Mills. By Ada Finch and Bert Stone, University of Orn. " + "Mills grind. " * 40
    memory = memory_of("A letter. " * 50, head + "The key lies under the stone.")
    text = memory.collection.text
    start = text.index("The key")
    passage = Found(0.5, start, len(text), 0.4)
    mills = Found(0.4, text.index("Mills grind"), text.index("Mills grind") + 12, 0.2)
    kept, opening = with_opening(memory, [passage, mills])
    assert kept == passage  # the other one stands in the head
    assert text[opening.start : opening.stop].startswith("On Mills. By Ada Finch")
    assert opening.stop - opening.start <= 300
    assert not text[opening.stop - 1].isspace()
    assert text[opening.stop].isspace()


def test_a_head_that_was_left_out_is_not_read_back():
    memory = memory_of("On Mills. By Ada Finch. " + "Mills grind. " * 40, kept=[(200, 400)])
    passage = Found(0.5, 250, 280, 0.4)
    assert with_opening(memory, [passage]) == [passage]
    memory.passages.kept = [(0, 23), (200, 400)]
    opening = with_opening(memory, [passage])[-1]
    assert memory.collection.text[opening.start : opening.stop] == "On Mills. By Ada Finch."


def test_a_question_about_the_document_itself_reads_its_head(infllm, pocket, tmp_path):
    head = "Tidal Mills of Orn, a survey. By Gita Holm and Ivo Lark, University of Orn. " * 4
    (tmp_path / "survey.txt").write_text(head + "\n\n" + story(90, fact("vague-harbor", ANSWER)))

    def read_back(question):
        wide = ("--set", "model.n_local=512")
        result = infllm("ask", tmp_path / "survey.txt", question, "--read-back", "--json", *wide)
        return json.loads(result.out)["tokens_read_back"]

    assert (
        read_back(f"{HARBOUR} Who is the author?") > read_back(f"{HARBOUR} Who is the owner?") + 40
    )
