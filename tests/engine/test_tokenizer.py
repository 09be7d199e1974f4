"""Tokenizer: the ids of the model's own tokenizer, fast, and never a control token from text."""

import json
from functools import cache
from random import Random

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from infllm import presets
from infllm.engine.errors import UnsupportedModel
from infllm.engine.text import Tokenizer
from infllm.engine.text import tokenizer as module
from infllm.engine.text.byte_bpe import ByteBpe, plain_spec
from tests.engine.tokenizers_of_all_kinds import (
    BEGIN,
    BYTE_LEVEL,
    CALL,
    END,
    KINDS,
    TEXT,
    llama_like,
    metaspace_bpe,
    transformers_tokenizer,
)

AWKWARD = [
    "",
    " ",
    "  two  spaces   three\t\ttabs\n\n\n\nlines\r\n\r\n  end  ",
    "I'll DON'T we'RE it'ſ 's 'S ''s",
    "1 12 123 1234 12345 1,234,567.89 ²³ ٣٤٥ Ⅷ",
    "".join(map(chr, range(256))),
    "naïve nai\u0308ve Ünïcödé 東京都 русский العربية हिन्दी 👩‍👩‍👧 🇫🇷 \u200b\u3000\ufeff\u0085x",
    f"{BEGIN} a {END} b {CALL} {{}} <0x0A> <unk> [INST]",
    "a" * 500 + "!" * 500 + "\n" * 50 + " " * 50,
    "\x00\x01\U0010ffff\ue000\u0378\ud7ff",
    TEXT,
]
texts = st.one_of(
    st.text(max_size=80),
    st.text("aàz AZ09'’s\t\r\n .,!_\u00a0\u3000東", max_size=80),
    st.lists(st.sampled_from([*AWKWARD, " ", "\n", "x"]), max_size=6).map("".join),
)


@cache
def kind(name: str) -> Tokenizer:
    if name == "pocket":
        return Tokenizer(PreTrainedTokenizerFast.from_pretrained(presets.builtin("pocket")))
    return Tokenizer(transformers_tokenizer(KINDS[name]()))


@cache
def reference(name: str) -> tokenizers.Tokenizer:
    """The tokenizers library's own, with its added tokens taken out."""
    spec = json.loads(kind(name).hf.backend_tokenizer.to_str())
    control = {token["content"] for token in spec["added_tokens"]}
    spec |= {"added_tokens": [], "post_processor": None}
    if spec["model"]["type"] == "Unigram":  # it finds control tokens as it finds any other
        vocab = spec["model"]["vocab"]
        spec["model"]["vocab"] = [[f" {t}" if t in control else t, score] for t, score in vocab]
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


NAMES = [*KINDS]
if (presets.builtin("pocket") / "tokenizer.json").is_file():
    NAMES.append("pocket")


@pytest.mark.parametrize("name", NAMES)
@given(text=texts)
@settings(max_examples=60, deadline=None)
def test_the_ids_are_those_of_the_tokenizers_library(name: str, text: str):
    assert kind(name).encode(text) == reference(name).encode(text).ids


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", AWKWARD, ids=range(len(AWKWARD)))
def test_awkward_texts_too(name: str, text: str):
    assert kind(name).encode(text) == reference(name).encode(text).ids


@pytest.mark.parametrize("name", [n for n in NAMES if n in (*BYTE_LEVEL, "pocket")])
def test_byte_level_bpe_takes_the_fast_way(name: str):
    assert kind(name)._fast is not None
    assert kind(name)._fast.encode(TEXT) is not None


@pytest.mark.parametrize("name", [n for n in NAMES if n in (*BYTE_LEVEL, "pocket")])
@given(text=texts)
@settings(max_examples=50, deadline=None)
def test_byte_level_text_round_trips(name: str, text: str):
    if name == "qwen_like":
        text = reference(name).normalizer.normalize_str(text)
    assert kind(name).decode(kind(name).encode(text)) == text


def test_every_character_of_the_planes_in_use_is_the_same_on_the_fast_way():
    rng = Random(3)
    chosen = rng.sample([c for c in range(0x20000) if not 0xD800 <= c < 0xE000], 1500)
    text = "".join(f"{chr(c)}{rng.choice(' a1.')}" for c in chosen)
    fast = kind("llama_like")._fast
    assert fast is not None
    assert fast.encode(text) == reference("llama_like").encode(text).ids


def test_a_character_the_two_regex_engines_read_differently_goes_the_slow_way():
    fast = ByteBpe.of(_spec(), reference("llama_like"))
    assert fast is not None
    fast._agreed.clear()
    pairs_of_digits = reference("llama_like").to_str().replace("{1,3}", "{1,2}")
    fast._plain = tokenizers.Tokenizer.from_str(pairs_of_digits)
    assert fast.encode("words, no number") == kind("llama_like").encode("words, no number")
    assert fast.encode("words, 1874 of them") is None


def test_a_long_run_of_blanks_goes_the_slow_way():
    tokenizer = kind("llama_like")
    text = "x" + " " * 20_000 + "y"
    assert tokenizer._fast is not None
    assert tokenizer._fast.encode(text) is None
    assert tokenizer.encode(text) == reference("llama_like").encode(text).ids


def _spec(**model: object) -> dict:
    spec = json.loads(reference("llama_like").to_str())
    spec["model"] |= model
    return spec


def test_a_vocabulary_that_tiktoken_would_merge_differently_is_not_converted():
    spec = _spec()
    merges = spec["model"]["merges"]
    assert ByteBpe.of(spec, tokenizers.Tokenizer.from_str(json.dumps(spec))) is not None
    for changed in (
        {"merges": merges[::-1]},  # parts made after the whole
        {"merges": [*merges[1:], merges[0]]},  # order unlike that of the ids
        {"dropout": 0.5},
        {"byte_fallback": True},
    ):
        assert ByteBpe.of(_spec(**changed), reference("llama_like")) is None


def test_a_token_that_no_merge_reaches_is_not_made():
    # (ab, c) makes abc, but b and c always merge first, so abc never comes about.
    byte_level = json.loads(reference("gpt2_like").to_str())
    vocab = {char: i for i, char in enumerate(sorted(c for c in _alphabet()))}
    for token in ("bc", "ab", "abc"):
        vocab[token] = len(vocab)
    byte_level["model"] |= {"vocab": vocab, "merges": [["b", "c"], ["a", "b"], ["ab", "c"]]}
    plain = tokenizers.Tokenizer.from_str(json.dumps(byte_level))
    fast = ByteBpe.of(byte_level, plain)
    assert fast is not None
    for text in ("abc", "aabcc", "ab abc abcd"):
        assert fast.encode(text) == plain.encode(text).ids
    assert vocab["abc"] not in plain.encode("abc").ids


def _alphabet() -> list[str]:
    return tokenizers.pre_tokenizers.ByteLevel.alphabet()


@pytest.mark.parametrize("name", NAMES)
@given(text=st.lists(st.sampled_from([BEGIN, END, CALL, " ", "a", "<s>"]), max_size=8).map("".join))
@settings(max_examples=50, deadline=None)
def test_a_control_token_spelled_in_a_text_is_text(name: str, text: str):
    tokenizer = kind(name)
    assert tokenizer.control_ids.isdisjoint(tokenizer.encode(text))


def test_a_vocabulary_of_whole_words_gives_no_control_token_either():
    spec = json.loads(metaspace_bpe().to_str())
    spec["model"]["ignore_merges"] = True  # any word that the vocabulary lists is that token
    core = tokenizers.Tokenizer.from_str(json.dumps(spec))
    tokenizer = Tokenizer(transformers_tokenizer(core))
    assert core.encode(END, add_special_tokens=False).ids == [tokenizer.eos_id]
    assert tokenizer.control_ids.isdisjoint(tokenizer.encode(END, inner=True))


def test_control_tokens_are_read_where_they_are_meant():
    tokenizer = kind("llama_like")
    hf = tokenizer.hf
    ids = tokenizer.encode_parts([(f"{BEGIN}hello ", True), (f"there {END}", False), (END, True)])
    assert ids[0] == hf.bos_token_id
    assert ids[-1] == hf.eos_token_id
    assert ids.count(hf.eos_token_id) == 1
    assert tokenizer.decode(ids) == f"hello there {END}"


@pytest.mark.parametrize("name", NAMES)
@given(
    parts=st.lists(
        st.sampled_from([BEGIN, END, "Hello there", " and more", "\n\n", "it's", " "]), max_size=7
    )
)
@settings(max_examples=40, deadline=None)
def test_trusted_parts_read_as_the_models_own_tokenizer_reads_them(name: str, parts: list[str]):
    tokenizer = kind(name)
    own = tokenizer.hf.backend_tokenizer.encode("".join(parts), add_special_tokens=False).ids
    assert tokenizer.encode_parts([(part, True) for part in parts]) == own


@pytest.mark.parametrize("name", NAMES)
def test_pieces_of_a_long_text_give_the_ids_of_the_whole(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    rng = Random(5)
    words = [*TEXT.split(), "wide  gap", "x\n\ny", "it's", "e", "\u0301 f", "a b"]
    text = " ".join(rng.choices(words, k=3000))
    tokenizer = kind(name)
    monkeypatch.setattr(module, "PIECE", 100)
    pieces = list(tokenizer._encodings(text))
    assert len(pieces) > 50
    ids = [i for encoding, _ in pieces for i in encoding.ids]
    assert ids == reference(name).encode(text).ids
    monkeypatch.setattr(tokenizer, "_fast", None)
    offsets = [start for start, _ in reference(name).encode(text).offsets]
    assert [s + a for e, s in pieces for a, _ in e.offsets] == offsets


def test_a_text_is_not_cut_where_a_token_might_span_the_cut():
    core = metaspace_bpe()
    spec = json.loads(core.to_str())
    left = next(t for t in spec["model"]["vocab"] if t.isascii() and t.isalpha() and t.islower())
    spec["model"]["vocab"][f"{left}▁"] = len(spec["model"]["vocab"])
    spec["model"]["merges"].insert(0, [left, "▁"])
    spanning = tokenizers.Tokenizer.from_str(json.dumps(spec))
    assert Tokenizer(transformers_tokenizer(core))._cuts
    assert not Tokenizer(transformers_tokenizer(spanning))._cuts


@pytest.mark.parametrize("name", NAMES)
@given(text=texts)
@settings(max_examples=40, deadline=None)
def test_offsets_are_those_of_the_tokenizers_library(name: str, text: str):
    tokenizer = kind(name)
    encoding = reference(name).encode(text)
    got = tokenizer.offsets(text, tokenizer.encode(text))
    if name in BYTE_LEVEL and name != "qwen_like":
        # The library trims a token's leading blank from its offsets; here it belongs to it.
        table = tokenizer._bytes
        assert table is not None
        starts, at = [], 0
        for i in encoding.ids:
            starts.append(len(text.encode()[:at].decode("utf-8", "ignore")))
            at += len(table[i])
        assert got == starts
    else:
        assert len(got) == len(encoding.ids)
        assert got == sorted(got)
        assert all(0 <= start <= len(text) for start in got)


def test_offsets_point_at_the_words():
    for name in NAMES:
        tokenizer = kind(name)
        text = "alpha beta gamma 東京 delta"
        offsets = tokenizer.offsets(text, tokenizer.encode(text))
        assert len(offsets) == len(tokenizer.encode(text))
        assert offsets[0] == 0
        assert any(text[at:].lstrip().startswith("delta") for at in offsets)


def test_offsets_of_other_ids_are_refused():
    for name in NAMES:
        tokenizer = kind(name)
        with pytest.raises(ValueError, match="not those of the text"):
            tokenizer.offsets("alpha beta", tokenizer.encode("something else"))


@pytest.mark.parametrize("name", NAMES)
@given(text=texts)
@settings(max_examples=40, deadline=None)
def test_streamed_text_is_the_decoded_text_and_no_half_characters(name: str, text: str):
    tokenizer = kind(name)
    ids = tokenizer.encode(text)
    stream = tokenizer.stream()
    told = [stream.push(i) for i in ids]
    whole = tokenizer.decode(ids)
    assert "".join(told) + stream.flush() == whole
    if "\ufffd" not in whole:
        assert "\ufffd" not in "".join(told)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_speaks_as_soon_as_it_can(name: str):
    tokenizer = kind(name)
    stream = tokenizer.stream()
    for i in tokenizer.encode("alpha beta gamma"):
        before = stream.push(i)
        assert before or tokenizer.decode([i]).strip() == ""


def test_a_stream_cut_inside_a_character_tells_so():
    tokenizer = kind("gpt2_like")
    ids = tokenizer.encode("ok 👩")[:-1]
    stream = tokenizer.stream()
    assert "".join(stream.push(i) for i in ids) == "ok "
    assert stream.flush() == "\ufffd"
    assert stream.push(tokenizer.encode("x")[0]) == "x"


def test_special_tokens_are_no_text():
    tokenizer = kind("llama_like")
    end = tokenizer.eos_id
    assert end is not None
    assert tokenizer.decode([*tokenizer.encode("bye"), end]) == "bye"
    assert tokenizer.stream().push(end) == ""


def test_half_surrogates_become_the_replacement_character():
    for name in NAMES:
        tokenizer = kind(name)
        assert tokenizer.encode("a\ud800b") == tokenizer.encode("a\ufffdb")
        assert len(tokenizer.offsets("a\ud800b", tokenizer.encode("a\ud800b"))) >= 3


def test_what_the_model_adds_by_itself_is_known():
    assert kind("llama_like").adds_bos
    plain = Tokenizer(transformers_tokenizer(llama_like(), bos=False))
    assert not plain.adds_bos
    assert plain.bos_id == plain.hf.bos_token_id
    assert plain.vocab_size == len(plain.hf)


def test_added_tokens_that_are_ordinary_text_stay():
    core = llama_like()
    core.add_tokens(["\n\n\n\n", "<think>"])
    spec = plain_spec(json.loads(core.to_str()))
    assert [token["content"] for token in spec["added_tokens"]] == ["\n\n\n\n"]
    tokenizer = Tokenizer(transformers_tokenizer(core))
    assert tokenizer.encode("a\n\n\n\nb")[1:-1] == [core.token_to_id("\n\n\n\n")]
    assert core.token_to_id("<think>") not in tokenizer.encode("a<think>b")


def test_a_tokenizer_without_a_fast_form_is_refused():
    with pytest.raises(UnsupportedModel, match="has no fast form"):
        Tokenizer(object())  # pyright: ignore[reportArgumentType]
