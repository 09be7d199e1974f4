"""The tokenizer of a GGUF file: its ids, its control tokens, its template."""

import json

import pytest
import tokenizers

from infllm.engine import load
from infllm.engine.config import load_config
from infllm.engine.errors import ModelFileError, UnsupportedModel
from infllm.engine.sources import local_tokenizer, open_tokenizer, read_gguf
from infllm.engine.sources.gguf_tokenizer import Vocabulary, tokenizer_json
from infllm.engine.sources.pretokenizers import SPLITS
from infllm.engine.text import TextTokenizer, Tokenizer, build_prompt, read_tokenizer
from infllm.engine.text.byte_bpe import is_control

from .tiny_gguf import (
    CHATML,
    byte_level_vocabulary,
    sentencepiece_vocabulary,
    tiny_model,
    write_gguf,
)

TEXT = (
    "The other  theory 1234 on 12.5 in don't\n\n\n  é日本 \U0001f44d\u200d <|im_end|> </s><s>\tend "
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INFLLM_CACHE_DIR", str(tmp_path / "cache"))


def written(tmp_path, vocabulary, architecture="qwen2", **how):
    model = tiny_model(architecture, len(vocabulary.tokens))
    return write_gguf(tmp_path / "m.gguf", model, architecture, vocabulary=vocabulary, **how)


def tokenizer_of(path):
    return Tokenizer(open_tokenizer(local_tokenizer(str(path))))


@pytest.mark.parametrize("pre", sorted(SPLITS))
def test_every_split_spells_a_text_and_gives_it_back(tmp_path, pre):
    path = written(tmp_path, byte_level_vocabulary(), pre=pre)
    tokenizer = tokenizer_of(path)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert not set(tokenizer.encode(TEXT)) & tokenizer.control_ids


# What the published tokenizers cut, and merges must not join.
@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("smollm", [" in", " ", "1", "2", "3", "4", "!?", " ", " the", "\n\n", " ", "x"]),
        ("gpt-2", [" in", " 1234", "!?", " ", " the", "\n\n ", " x"]),
        ("llama-bpe", [" in", " ", "123", "4", "!?", " ", " the", "\n\n", " ", " x"]),
        ("qwen2", [" in", " ", "1", "2", "3", "4", "!?", " ", " the", "\n\n", " ", " x"]),
    ],
)
def test_words_are_cut_as_published(tmp_path, pre, words):
    spec = tokenizer_json(read_gguf(written(tmp_path, byte_level_vocabulary(), pre=pre)))
    core = tokenizers.Tokenizer.from_str(json.dumps(spec))
    text = " in 1234!?  the\n\n  x"
    pieces = core.pre_tokenizer.pre_tokenize_str(text)
    if pre == "smollm":  # blanks before a digit are a word, those before a letter lend it one
        words = [" in", " ", "1", "2", "3", "4", "!?", " ", " the", "\n\n ", " x"]
    assert [text[a:b] for _, (a, b) in pieces] == words


def test_digits_split_is_the_two_steps_in_one(tmp_path):
    """As tokenizers.pre_tokenizers.Digits and then GPT-2's split."""
    from tokenizers import pre_tokenizers

    spec = tokenizer_json(read_gguf(written(tmp_path, byte_level_vocabulary(), pre="smollm")))
    ours = tokenizers.Tokenizer.from_str(json.dumps(spec)).pre_tokenizer
    theirs = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    for text in (TEXT, "a  1", "  1  ", "1\n\n2 \t 3x", "'s1's 2 ' 3", "½ ² 3٣", " \n 5", "\t\ta"):
        assert ours.pre_tokenize_str(text) == theirs.pre_tokenize_str(text), text


def test_a_text_that_looks_like_control_tokens_is_text(tmp_path):
    for vocabulary in (byte_level_vocabulary(), sentencepiece_vocabulary()):
        tokenizer = tokenizer_of(written(tmp_path, vocabulary))
        control = {i for i, kind in enumerate(vocabulary.types) if kind == 3}
        for spelled in ("<|im_start|>", "<|im_end|>", "<s>", "</s>", "<start_of_turn>"):
            assert not set(tokenizer.encode(f"a {spelled} b")) & control


def test_sentencepiece_joins_what_scores_best_and_falls_back_to_bytes(tmp_path):
    vocabulary = sentencepiece_vocabulary()
    tokenizer = tokenizer_of(written(tmp_path, vocabulary))

    def spelled(text):
        return [vocabulary.tokens[i] for i in tokenizer.encode(text)]

    assert spelled("the other") == ["▁the", "▁", "o", "the", "r"]
    assert spelled("日") == ["▁", "<0xE6>", "<0x97>", "<0xA5>"]
    assert tokenizer.adds_bos
    assert tokenizer.decode(tokenizer.encode("the other 日本\n")) == "the other 日本\n"


def test_a_prefix_is_not_put_where_the_file_says_no(tmp_path):
    vocabulary = sentencepiece_vocabulary()
    path = written(tmp_path, vocabulary, metadata={"tokenizer.ggml.add_space_prefix": False})
    assert vocabulary.tokens[tokenizer_of(path).encode("on")[0]] == "on"


@pytest.mark.parametrize("adds", [True, False])
def test_bos_as_the_file_says(tmp_path, adds):
    vocabulary = sentencepiece_vocabulary()
    path = tmp_path / "m.gguf"
    write_gguf(path, tiny_model("qwen2", len(vocabulary.tokens)), "qwen2", vocabulary=vocabulary,
               adds_bos=adds)  # fmt: skip
    tokenizer = tokenizer_of(path)
    assert tokenizer.adds_bos is adds
    assert tokenizer.bos_id == (1 if adds else None)


def test_text_without_transformers_has_the_same_ids(tmp_path):
    path = written(tmp_path, byte_level_vocabulary())
    core = read_tokenizer(local_tokenizer(str(path)))
    assert core is not None
    assert TextTokenizer(core).encode(TEXT) == tokenizer_of(path).encode(TEXT)


def test_a_prompt_is_that_of_the_files_template(tmp_path):
    path = written(tmp_path, byte_level_vocabulary())
    tokenizer = tokenizer_of(path)
    config = load_config(str(path))
    assert tokenizer.hf.chat_template == CHATML
    prompt = build_prompt(tokenizer, config, "ask", question="Who? <|im_end|>")
    text = tokenizer.hf.decode(prompt.head_ids)
    assert text.startswith("<|im_start|>user\nRead the document")
    tail = tokenizer.hf.decode(prompt.tail_ids)
    assert tail.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert prompt.tail_ids.count(2) == 1  # the one that the question spells is text
    assert prompt.head_ids.count(1) == 1


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"tokenizer.ggml.pre": "martian"}, UnsupportedModel, "martian"),
        ({"tokenizer.ggml.model": "bert"}, UnsupportedModel, "bert"),
        ({"tokenizer.ggml.tokens": None}, ModelFileError, "no vocabulary"),
        ({"tokenizer.ggml.token_type": [1, 1]}, ModelFileError, "token types"),
    ],
)
def test_a_vocabulary_that_cannot_be_read_is_named(tmp_path, change, error, told):
    from dataclasses import replace

    file = read_gguf(written(tmp_path, byte_level_vocabulary()))
    with pytest.raises(error, match=told):
        tokenizer_json(replace(file, metadata={**file.metadata, **change}))


def test_a_tokenizer_beside_a_file_whose_own_is_unknown(tmp_path):
    other = local_tokenizer(str(written(tmp_path, byte_level_vocabulary())))
    path = tmp_path / "odd.gguf"
    vocabulary = byte_level_vocabulary()
    model = tiny_model("qwen2", len(vocabulary.tokens), seed=1)
    write_gguf(path, model, "qwen2", vocabulary=vocabulary, pre="martian")
    overrides = {"model.dtype": "float32"}
    with pytest.raises(UnsupportedModel, match="martian"):
        load(str(path), device="cpu", overrides=overrides)
    with load(str(path), device="cpu", overrides={**overrides, "tokenizer_path": other}) as engine:
        assert engine.tokenizer.encode("the")


def test_doubled_and_empty_tokens_keep_their_ids(tmp_path):
    vocabulary = byte_level_vocabulary()
    vocabulary.tokens[-1] = vocabulary.tokens[-2]
    vocabulary.tokens[-3] = ""
    tokenizer = tokenizer_of(written(tmp_path, vocabulary))
    assert tokenizer.vocab_size == len(vocabulary.tokens)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_all_tokens_that_end_an_answer(tmp_path):
    vocabulary = byte_level_vocabulary()
    vocabulary.tokens[-1], vocabulary.types[-1] = "<|endoftext|>", 3
    vocabulary.tokens[-2], vocabulary.types[-2] = "<|eot_id|>", 1  # a word, not a token of its own
    file = read_gguf(written(tmp_path, vocabulary))
    assert Vocabulary(file).end_ids == [2, len(vocabulary.tokens) - 1]


def test_tags_of_html_are_text_and_others_are_not():
    tag = {"special": False}
    assert not is_control({**tag, "content": "<table>"})
    assert not is_control({**tag, "content": "</h1>"})
    assert is_control({**tag, "content": "<think>"})
    assert is_control({**tag, "content": "</s>"})
    assert is_control({**tag, "content": "<s>", "special": True})
