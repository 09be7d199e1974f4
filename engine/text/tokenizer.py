"""Text to token ids and back: fast, exact, and blind to control tokens spelled in a document."""

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tokenizers

from infllm.engine.byte_level import byte_of_char
from infllm.engine.errors import UnsupportedModel
from infllm.engine.text.byte_bpe import (
    SPLITS_AT_WORDS,
    ByteBpe,
    is_control,
    plain_spec,
    split_pattern,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The tokenizers library takes about 200 bytes a character, so long texts go in pieces.
PIECE = 1 << 18
_WORD_GAP = re.compile(r"[a-z](?= [a-z])")
_SURROGATE = re.compile("[\ud800-\udfff]")


class TextTokenizer:
    """A tokenizer.json, as far as plain text needs it; `Tokenizer` adds what prompts need.

    `encode` adds no special tokens and reads none: what a document spells like a control token
    is text. Free of torch and transformers.
    """

    def __init__(self, core: tokenizers.Tokenizer) -> None:
        self._core = core
        spec = json.loads(core.to_str())
        plain = plain_spec(spec)
        self._plain = tokenizers.Tokenizer.from_str(json.dumps(plain))
        self._prefix = _prefix(plain)
        self._inner = self._plain  # large vocabularies take seconds to build
        if self._prefix != "never":
            self._inner = tokenizers.Tokenizer.from_str(json.dumps(_without_prefix(plain)))
        self._fast = None if plain["added_tokens"] else ByteBpe.of(plain, self._plain)
        self._cuts = _cuts_at_words(plain)
        self._added: dict[str, dict[str, Any]] = {t["content"]: t for t in spec["added_tokens"]}
        longest_first = sorted(self._added, key=len, reverse=True)
        self._added_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.special_ids = frozenset(t["id"] for t in spec["added_tokens"] if t["special"])
        self._unknown_id = _unknown_id(spec)
        self._bytes = _token_bytes(spec)

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids of tokens that steer the model, without the unknown token; `encode` gives none."""
        control = {t["id"] for t in self._added.values() if is_control(t)}
        return frozenset(control - {self._unknown_id})

    def added_id(self, content: str) -> int | None:
        """Id of the added token that is spelled `content`, None where there is none."""
        token = self._added.get(content)
        return None if token is None else token["id"]

    def spell(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens spelled out."""
        return self._core.decode(list(ids), skip_special_tokens=False)

    def encode(self, text: str, inner: bool = False) -> list[int]:
        """Ids of `text`. `inner`: it continues a text, so no word-start mark is put before it."""
        text = _SURROGATE.sub("\ufffd", text)
        if self._fast is not None:
            ids = self._fast.encode(text)
            if ids is not None:
                return ids
        return [i for encoding, _ in self._encodings(text, inner) for i in encoding.ids]

    def encode_parts(self, parts: Iterable[tuple[str, bool]], inner: bool = False) -> list[int]:
        """Ids of the parts' texts joined; control tokens are read only in parts marked True.

        As the model's own tokenizer gives them for the joined text, if no part marked False
        spells a control token. `inner`: as for `encode`.
        """
        ids: list[int] = []
        text = ""
        control: dict[str, Any] | None = None  # the one before `text`
        for item in [*self._split_controls(parts), None]:
            if isinstance(item, str):
                text += item
                continue
            if control is not None and control["rstrip"]:
                text = text.lstrip()
            if item is not None and item["lstrip"]:
                text = text.rstrip()
            if text:
                marked = not inner if control is None else self._prefix == "always"
                ids += self.encode(text, inner=not marked)
            if item is not None:
                ids.append(item["id"])
            text, control = "", item
        return ids

    def _split_controls(self, parts: Iterable[tuple[str, bool]]) -> Iterator[str | dict[str, Any]]:
        for text, trusted in parts:
            end = 0
            for found in self._added_pattern.finditer(text) if trusted else ():
                yield text[end : found.start()]
                yield self._added[found[0]]
                end = found.end()
            yield text[end:]

    def _encodings(
        self, text: str, inner: bool = False
    ) -> Iterator[tuple[tokenizers.Encoding, int]]:
        """Encodings of the text's pieces, each with the character it begins at."""
        start = 0
        while start < len(text):
            core = self._inner if inner or start else self._plain
            end = self._cut(text, start + PIECE)
            yield core.encode(text[start:end], add_special_tokens=False), start
            start = end

    def _cut(self, text: str, wanted: int) -> int:
        """The first place from `wanted` on where cutting the text changes no token."""
        if not self._cuts or wanted >= len(text):
            return len(text)
        gap = _WORD_GAP.search(text, wanted)
        return gap.end() if gap else len(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out, malformed UTF-8 as U+FFFD."""
        if self._bytes is not None:
            table, special = self._bytes, self.special_ids
            joined = b"".join([table[i] for i in ids if i not in special])
            return joined.decode("utf-8", "replace")
        return self._core.decode(list(ids), skip_special_tokens=True)

    def stream(self) -> "ByteStream | WindowStream":
        """An incremental detokeniser: joined, what it gives is `decode` of all ids pushed."""
        if self._bytes is not None:
            return ByteStream(self._bytes, self.special_ids)
        return WindowStream(self)

    def offsets(self, text: str, ids: Sequence[int]) -> list[int]:
        """For each of `ids`, which are `encode(text)`, the character of `text` it starts in.

        A character that several tokens spell is the start of each. Raises ValueError when `ids`
        are not the ids of `text`.
        """
        text = _SURROGATE.sub("\ufffd", text)
        encoded = text.encode()
        if self._bytes is not None:
            spelled = [self._bytes[i] for i in ids]
            if b"".join(spelled) == encoded:  # else the text was normalised on the way
                lengths = np.fromiter(map(len, spelled), dtype=np.int64, count=len(ids))
                starts = np.cumsum(lengths) - lengths  # [tokens], in bytes
                if text.isascii():
                    return starts.tolist()
                data = np.frombuffer(encoded, dtype=np.uint8)
                char_of_byte = np.cumsum((data & 0xC0) != 0x80) - 1  # [bytes]
                return char_of_byte[starts].tolist()
        found: list[int] = []
        count = 0
        for encoding, start in self._encodings(text):
            if encoding.ids != list(ids[count : count + len(encoding.ids)]):
                break
            count += len(encoding.ids)
            found += [start + offset for offset, _ in encoding.offsets]
        if count != len(ids) or len(found) != count:
            raise ValueError("the ids are not those of the text")
        return found


class Tokenizer(TextTokenizer):
    """A transformers tokenizer, as the engine uses it.

    Raises UnsupportedModel for a tokenizer without a tokenizer.json form.
    """

    def __init__(self, hf: "PreTrainedTokenizerBase") -> None:
        core = getattr(hf, "backend_tokenizer", None)
        if not isinstance(core, tokenizers.Tokenizer):
            raise UnsupportedModel(
                f"{type(hf).__name__} has no fast form",
                "use a model folder with a tokenizer.json, or name one as model.tokenizer_path",
            )
        super().__init__(core)
        self.hf = hf

    @property
    def bos_id(self) -> int | None:
        """Id of the token that begins a text, None where the model knows none."""
        return _id(self.hf.bos_token_id)

    @property
    def eos_id(self) -> int | None:
        """Id of the token that ends a text, None where the model knows none."""
        return _id(self.hf.eos_token_id)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special and added tokens included."""
        return len(self.hf)

    @property
    def adds_bos(self) -> bool:
        """Whether the model's own tokenizer begins every text with BOS."""
        return self.bos_id is not None and self._core.encode("a").ids[0] == self.bos_id


class ByteStream:
    """Detokeniser of a byte-level vocabulary: holds back a character until it is whole."""

    def __init__(self, table: list[bytes], special: frozenset[int]) -> None:
        self._table = table
        self._special = special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The text that became whole with this token, often all of it, sometimes none."""
        return "" if token_id in self._special else self._utf8.decode(self._table[token_id])

    def flush(self) -> str:
        """What was held back, as U+FFFD; the stream is then as new."""
        rest = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        return rest


class WindowStream:
    """Detokeniser of any other vocabulary, where a token's text depends on its neighbours."""

    MAX_HELD = 8  # ids without a whole character; four bytes make one, so more is no character

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._told = 0  # ids of the window whose text was given

    def push(self, token_id: int) -> str:
        """The text that became whole with this token, often all of it, sometimes none."""
        if token_id in self._tokenizer.special_ids:
            return ""
        self._ids.append(token_id)
        new = self._new_text()
        if new.endswith("\ufffd") and len(self._ids) - self._told < self.MAX_HELD:
            return ""
        self._ids, self._told = self._ids[self._told :], len(self._ids) - self._told
        return new

    def flush(self) -> str:
        """What was held back; the stream is then as new."""
        new = self._new_text()
        self._ids, self._told = [], 0
        return new

    def _new_text(self) -> str:
        decode = self._tokenizer.decode
        return decode(self._ids)[len(decode(self._ids[: self._told])) :]


def _token_bytes(spec: dict[str, Any]) -> list[bytes] | None:
    """Bytes of every id of a byte-level vocabulary, added tokens as they are spelled."""
    vocab = spec["model"]["vocab"]
    if (spec["decoder"] or {}).get("type") != "ByteLevel" or not isinstance(vocab, dict):
        return None
    byte_of = byte_of_char()
    added = {t["id"]: t["content"] for t in spec["added_tokens"]}
    table = [b""] * (1 + max([*vocab.values(), *added]))
    for token, token_id in vocab.items():
        if token_id not in added:
            if not byte_of.keys() >= set(token):
                return None
            table[token_id] = bytes(byte_of[char] for char in token)
    for token_id, content in added.items():
        table[token_id] = content.encode()
    return table


def _id(token_id: Any) -> int | None:
    return token_id if isinstance(token_id, int) else None


def _unknown_id(spec: dict[str, Any]) -> int | None:
    model = spec["model"]
    if model["type"] == "Unigram":
        return model["unk_id"]
    return model["vocab"].get(model.get("unk_token"))


def _prefix(spec: dict[str, Any]) -> Literal["never", "first", "always"]:
    """Where a word-start mark is put before a text: nowhere, at its start, after every control."""
    if any(step["type"] == "Prepend" for step in _steps(spec["normalizer"], "normalizers")):
        return "always"
    for step in _steps(spec["pre_tokenizer"], "pretokenizers"):
        if step["type"] == "Metaspace":
            return step["prepend_scheme"]
        if step.get("add_prefix_space"):
            return "always"
    return "never"


def _without_prefix(spec: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer for text that continues a text."""
    inner = json.loads(json.dumps(spec))
    kept = [s for s in _steps(inner["normalizer"], "normalizers") if s["type"] != "Prepend"]
    inner["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    for step in _steps(inner["pre_tokenizer"], "pretokenizers"):
        if step["type"] == "Metaspace":
            step["prepend_scheme"] = "never"
        elif step.get("add_prefix_space"):
            step["add_prefix_space"] = False
    return inner


def _cuts_at_words(spec: dict[str, Any]) -> bool:
    """Whether a cut before the space between two words provably changes no token.

    True for the split patterns known to end a word there; and, where the whole text is one
    word, for vocabularies in which no token has a letter and then a space, so that none can
    span the cut.
    """
    if spec["added_tokens"]:
        return False
    if split_pattern(spec) in SPLITS_AT_WORDS:
        return all(step["type"] == "NFC" for step in _steps(spec["normalizer"], "normalizers"))
    for step in _steps(spec["normalizer"], "normalizers"):
        blanks = step["type"] == "Replace" and step["pattern"] == {"String": " "}
        if step["type"] != "Prepend" and not blanks:
            return False
    if any(s["type"] != "Metaspace" for s in _steps(spec["pre_tokenizer"], "pretokenizers")):
        return False
    vocab = spec["model"]["vocab"]
    if spec["model"]["type"] == "Unigram":
        vocab = [token for token, _ in vocab]
    elif spec["model"]["type"] != "BPE":
        return False
    return not any(re.search("[a-z][▁ ]", token) for token in vocab)


def _steps(component: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if component is None:
        return []
    return component[key] if component["type"] == "Sequence" else [component]
