"""What a reasoning model thinks is no part of its answer, however it is cut into tokens."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infllm.cli.options import Sampling
from infllm.cli.tasks.answer import generate_answer
from infllm.cli.tasks.thinking import CLOSING, TAGS, Thinking, opened_by_prompt


def said(pieces, **how):
    thinking = Thinking(**how)
    text = "".join(thinking.push(piece, piece in TAGS or piece in CLOSING) for piece in pieces)
    return text + thinking.flush(), thinking.tokens


def in_text(pieces, **how):
    thinking = Thinking(**how)
    return "".join([*map(thinking.push, pieces), thinking.flush()]), thinking.tokens


@given(st.sampled_from(sorted(TAGS)), st.data())
def test_thinking_is_left_out_in_any_cut(tag, data):
    text = f"\n{tag}\nLet me see: 2 < 3, so <b> and </i>.\n{TAGS[tag]}\n\nThree < four."
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert in_text(pieces)[0].strip() == "Three < four."
    assert in_text(pieces, shown=True)[0] == text


@given(st.text(alphabet="<thinkab/> \n[]", max_size=30), st.data())
def test_an_answer_without_a_tag_at_its_beginning_stays_whole(text, data):
    text = f"a{text}"
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)))) - {len(text)})
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert in_text(pieces) == (text, 0)


def test_tokens_of_thinking_are_counted_with_their_tags():
    assert said(["<think>", "\n", "hm", "</think>", "\n\n", "Yes", "."]) == ("Yes.", 4)
    assert in_text(["<", "think", ">", "hm", "</", "think", ">", "Yes"])[1] == 7
    assert said(["Yes", "."]) == ("Yes.", 0)


def test_a_tag_that_the_prompt_opened_counts():
    assert said(["hm", "</think>", "Yes"], opened="<think>") == ("Yes", 2)
    assert in_text(["hm</thi", "nk> Yes"], opened="<think>")[0].strip() == "Yes"


def test_an_empty_thought_is_no_loss():
    assert said(["<think>", "\n\n", "</think>", "\n\n", "Yes"])[0] == "Yes"


def test_thinking_that_never_ends_leaves_no_answer():
    assert said(["<think>", "on", " and", " on"]) == ("", 4)
    assert in_text(["<think>on</thin"]) == ("", 1)


def test_a_stray_closing_tag_is_not_shown():
    assert in_text(["</think>\n\nYes"])[0] == "Yes"
    assert said(["Yes", "</think>", " no"])[0].split() == ["Yes", "no"]


def test_a_tag_token_counts_further_on_and_a_spelled_one_does_not():
    assert said(["One", "<think>", "hm", "</think>", " two"])[0].split() == ["One", "two"]
    assert in_text(["HTML has no <think>", " tag"]) == ("HTML has no <think> tag", 0)


class Spelling:
    """Ids are characters."""

    @staticmethod
    def spell(ids):
        return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("prompt", "tag"),
    [
        ("question<|im_end|>\n<|im_start|>assistant\n<think>\n", "<think>"),
        ("question<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", None),
        ("What is <think> for?<|im_end|>\n<|im_start|>assistant\n", None),
        ("question", None),
        ("", None),
    ],
)
def test_what_a_prompt_opened(prompt, tag):
    assert opened_by_prompt(Spelling, list(map(ord, prompt))) == tag


class Session:
    """Says the tokens it was given."""

    def __init__(self, ids):
        self.ids = ids

    def generate(self, **sampling):
        return (SimpleNamespace(id=i, units=[]) for i in self.ids)


@pytest.fixture(scope="module", params=[3, 4])
def thinker(request, tmp_path_factory):
    """Engine of a tiny model whose template opens the thinking; its tags are control tokens or
    words of their own."""
    from infllm.engine import load
    from tests.engine.tiny_gguf import CHATML, byte_level_vocabulary, tiny_model, write_gguf

    folder = tmp_path_factory.mktemp("thinker")
    vocabulary = byte_level_vocabulary()
    for number, token in enumerate(vocabulary.tokens):
        if "think>" in token:
            vocabulary.types[number] = request.param
    path = write_gguf(
        folder / "m.gguf", tiny_model("qwen2", len(vocabulary.tokens)), "qwen2",
        vocabulary=vocabulary,
        template=CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFLLM_CACHE_DIR", str(folder / "cache"))
        with load(str(path), device="cpu", overrides={"model.dtype": "float32"}) as engine:
            yield engine


def answer_of(engine, text, **how):
    from infllm.cli.reading import with_prompt_stops

    sampling = replace(with_prompt_stops(engine, Sampling()), **how)
    ids = engine.tokenizer.encode_parts([(text, True)], inner=True)
    streamed = []
    answer = generate_answer(Session(ids), engine.tokenizer, sampling, streamed.append)
    assert "".join(streamed) == answer.text
    return answer


def test_a_template_that_opens_the_thinking(thinker):
    answer = answer_of(thinker, "the one or the other?\n</think>\n\nThe other.")
    assert answer.text == "The other."
    assert answer.tokens_thinking > 5
    shown = answer_of(thinker, "one?\n</think>\n\nThe other.", show_thinking=True)
    assert shown.text == "one?\n</think>\n\nThe other."
    assert shown.tokens_thinking == 0
    assert answer_of(thinker, "it thinks on and on").text == ""


def test_a_model_that_opens_its_thinking_itself(thinker):
    how = {"thinking_tag": None}
    answer = answer_of(thinker, "<think>\nthe one?\n</think>\n\nThe <b>other</b>.", **how)
    assert answer.text == "The <b>other</b>."
    assert answer_of(thinker, "The other.", **how).tokens_thinking == 0
