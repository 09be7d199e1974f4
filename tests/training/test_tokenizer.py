"""The tokenizer loses nothing, groups digits and is a plain byte-level BPE."""

import json

import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from training.tokenizer import BEGIN, END, PAD, SPLIT_PATTERN, load_tokenizer


def test_any_text_comes_back(tokenizer):
    @settings(max_examples=150, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def holds(text: str) -> None:
        ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text

    holds()


def test_any_bytes_come_back(tokenizer):
    symbols = _byte_symbols()
    byte_of = {symbol: value for value, symbol in symbols.items()}

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=200))
    def holds(data: bytes) -> None:
        text = data.decode("latin-1")
        tokens = tokenizer.tokenize(text)
        assert bytes(byte_of[symbol] for token in tokens for symbol in token) == text.encode()

    holds()


def test_every_number_of_up_to_three_digits_is_one_token(tokenizer):
    for width in (1, 2, 3):
        for number in range(0, 10**width, 7):
            assert len(tokenizer.tokenize(f"{number:0{width}d}")) == 1


def test_digits_are_grouped_from_the_left(tokenizer):
    assert tokenizer.tokenize("12345678") == ["123", "456", "78"]


def test_it_adds_no_special_token_by_itself(tokenizer):
    assert tokenizer("kalo").input_ids == tokenizer("kalo", add_special_tokens=False).input_ids
    assert tokenizer.convert_tokens_to_ids([BEGIN, END, PAD]) == [0, 1, 2]


def test_saved_and_loaded_it_gives_the_same_ids(tokenizer, books, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    text = next(iter(books.values()))[:3000]
    assert load_tokenizer(tmp_path)(text).input_ids == tokenizer(text).input_ids


def test_tiktoken_gives_the_same_ids(tokenizer, books):
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    byte_of = {symbol: value for value, symbol in _byte_symbols().items()}
    special = {token["content"]: token["id"] for token in state["added_tokens"]}
    # tiktoken merges by rank, so ranks must grow with the order of the merges: ids do.
    ranks = {
        bytes(byte_of[symbol] for symbol in token): index
        for token, index in state["model"]["vocab"].items()
        if token not in special
    }
    encoding = tiktoken.Encoding(
        "pocket", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=special
    )
    text = next(iter(books.values()))[:20000] + " it's 123456 “naïve” 東京\r\n\t  x  \n\n"
    assert encoding.encode_ordinary(text) == tokenizer(text).input_ids


def _byte_symbols() -> dict[int, str]:
    """The printable symbol that stands for each byte in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = {value: chr(value) for value in printable}
    others = [value for value in range(256) if value not in symbols]
    symbols.update({value: chr(256 + place) for place, value in enumerate(others)})
    assert set(symbols.values()) == set(ByteLevel.alphabet())
    return symbols
