"""A byte-level BPE tokenizer.json as a tiktoken encoder, where the two are provably the same.

tiktoken is about twenty times as fast as the tokenizers library on one thread and keeps no
offsets, so a document of hundreds of megabytes stays a list of ids.
"""

import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

import tokenizers
from tiktoken import Encoding
from tokenizers import models

from infllm.engine.byte_level import GPT2_DIGITS_SPLIT, GPT2_SPLIT, LLAMA3_SPLIT, byte_of_char

# In these no alternative matches a letter followed by a space, and none looks behind: a text may
# be cut before the space between two words without changing a token.
SPLITS_AT_WORDS = frozenset(
    {GPT2_SPLIT, GPT2_DIGITS_SPLIT, LLAMA3_SPLIT, LLAMA3_SPLIT.replace("{1,3}", "")}
)

# tiktoken's regex engine backtracks over a run of whitespace and panics at about a million.
_LONG_BLANK = re.compile(r"\s{10000}")


class ByteBpe:
    """A tiktoken encoder that gives the ids of `plain`, a tokenizer without added tokens.

    The two can then differ in one thing, their Unicode tables (is this a letter?), which change
    from version to version. Every character is therefore compared once, when it is first met.
    """

    def __init__(
        self, plain: tokenizers.Tokenizer, pattern: str, ranks: dict[bytes, int], nfc: bool
    ) -> None:
        self._plain = plain
        self._nfc = nfc
        self._encoding = Encoding(
            "byte-bpe", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
        )
        self._agreed: set[str] = set()
        self._disputed: set[str] = set()

    @classmethod
    def of(cls, spec: Mapping[str, Any], plain: tokenizers.Tokenizer) -> "ByteBpe | None":
        """The encoder of a tokenizer.json's contents, or None where it would not be exact.

        `plain`: the same tokenizer, as the reference.
        """
        pattern = split_pattern(spec)
        normalizer = spec["normalizer"]
        nfc = normalizer is not None and _parts(normalizer, "normalizers") == [{"type": "NFC"}]
        if pattern is None or (normalizer is not None and not nfc):
            return None
        ranks = _ranks(spec["model"])
        if ranks is None:
            return None
        try:
            encoder = cls(plain, pattern, ranks, nfc)
        except ValueError:  # a pattern that only oniguruma understands
            return None
        return encoder if encoder.encode(_PROBE) == plain.encode(_PROBE).ids else None

    def encode(self, text: str) -> list[int] | None:
        """The ids of `text`, or None where this encoder is not known to be exact on it."""
        if _LONG_BLANK.search(text):
            return None
        if self._nfc and not unicodedata.is_normalized("NFC", text):
            return None
        characters = set(text)
        self._compare(characters - self._agreed - self._disputed)
        if not self._disputed.isdisjoint(characters):
            return None
        return self._encoding.encode_ordinary(text)

    def _compare(self, characters: Collection[str]) -> None:
        new = sorted(characters)
        for start in range(0, len(new), 2048):  # keeps the library's large encodings few
            some = new[start : start + 2048]
            probes = [f"a{c}b {c} 1{c}2\n{c}.{c}{c} '{c}a'{c}" for c in some]
            wanted = self._plain.encode_batch(probes)
            for c, probe, encoding in zip(some, probes, wanted, strict=True):
                # A character unknown to Python may have a normal form unknown to Python.
                unknown = self._nfc and unicodedata.category(c) == "Cn"
                same = self._encoding.encode_ordinary(probe) == encoding.ids
                (self._agreed if same and not unknown else self._disputed).add(c)


_PROBE = (
    "".join(map(chr, range(1, 0x250)))
    + " I'll say: it's 3 of 12345.678, isn't it? DON'T  stop\n\n\t  now \r\n    x = [a_b]!!!\n"
    + "naïve Ünïcödé 東京は日本 Ελληνικά русский العربية हिन्दी "
    + "👩‍👩‍👧 🇫🇷 \u00a0\u2003\u200b\u3000 end  \n "
)


def split_pattern(spec: Mapping[str, Any]) -> str | None:
    """The regex that cuts text into words before byte-level BPE; None for any other scheme."""
    steps = _parts(spec["pre_tokenizer"] or {}, "pretokenizers")
    match steps:
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return GPT2_SPLIT
        case [
            {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": behavior, **split},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            # Isolated and Removed-inverted both keep the matches; the patterns match everything.
            if (behavior, split.get("invert", False)) in (("Isolated", False), ("Removed", True)):
                return regex
    return None


def _parts(component: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return component[key] if component.get("type") == "Sequence" else [component]


def _ranks(model: Mapping[str, Any]) -> dict[bytes, int] | None:
    """Token bytes -> id, usable as tiktoken's merge ranks; None where merging would differ.

    tiktoken merges any two neighbours whose union is a token, lowest id first; a tokenizer.json
    lists the pairs. They agree when (1) the merges of one token stand together, in order of id,
    (2) both parts of a merge are made before it, and (3) spelling out a token merges back into
    it. For up to the turn of token t, what stands within t's bytes was merged as if t stood
    alone, so its last two parts are the same in any word: those of a listed merge, by (3).
    """
    if model["type"] != "BPE" or model.get("dropout") or model.get("byte_fallback"):
        return None
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return None
    byte_of = byte_of_char()
    # Entries with a blank are out of every text's reach, see plain_spec.
    vocab: dict[str, int] = {t: i for t, i in model["vocab"].items() if " " not in t}
    if not all(char in vocab for char in byte_of):
        return None
    merges = [_pair(merge) for merge in model["merges"]]
    made: set[str] = set(byte_of)
    last = ""
    for left, right in merges:
        token = left + right
        if left not in made or right not in made or left == token or token not in vocab:
            return None
        if token != last:
            if token in made or (last and vocab[last] > vocab[token]):
                return None
            made.add(token)
            last = token
    ignore_merges = bool(model.get("ignore_merges"))
    if ignore_merges and not made.issuperset(vocab):
        return None
    bare = tokenizers.Tokenizer(models.BPE(vocab=model["vocab"], merges=merges))
    tokens = [token for token in made if len(token) > 1]
    spelled = bare.encode_batch(tokens, add_special_tokens=False)
    for token, encoding in zip(tokens, spelled, strict=True):
        if len(encoding.ids) == 1:
            continue
        if not ignore_merges:
            made.remove(token)  # never made there, so it must not be made here
        elif len(encoding.ids) == 2:
            return None
    return {bytes(byte_of[char] for char in token): vocab[token] for token in made}


def _pair(merge: str | list[str]) -> tuple[str, str]:
    """A merge's two parts; older files write them as one string."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def plain_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer.json's contents with control tokens taken out of the text's reach.

    What a document spells like a control token is text. Added tokens that stand for ordinary
    text (runs of blanks, say) stay.
    """
    plain = json.loads(json.dumps(spec))
    control = {t["content"] for t in spec["added_tokens"] if is_control(t)}
    kept = [t for t in spec["added_tokens"] if t["content"] not in control]
    plain |= {"added_tokens": kept, "post_processor": None, "truncation": None, "padding": None}
    model = plain["model"]
    # What a model needs by name it keeps; the rest gets a blank, which no word has: blanks are
    # spelled otherwise in every vocabulary. The library numbers added tokens anew unless the
    # vocabulary holds them.
    needed = {model.get("unk_token"), *(f"<0x{byte:02X}>" for byte in range(256))}
    if model["type"] == "BPE":
        needed |= {"".join(_pair(merge)) for merge in model["merges"]}
        hidden = control - needed
        model["vocab"] = {f" {t}" if t in hidden else t: i for t, i in model["vocab"].items()}
        model["vocab"] |= {t["content"]: t["id"] for t in kept}
    elif model["type"] == "Unigram":
        hidden = control - needed
        vocab = [[f" {t}" if t in hidden else t, score] for t, score in model["vocab"]]
        for token in sorted(kept, key=lambda t: t["id"]):
            vocab += [[f" {i}", 0.0] for i in range(len(vocab), token["id"] + 1)]
            vocab[token["id"]][0] = token["content"]
        model["vocab"] = vocab
    return plain


# Some vocabularies hold the tags of HTML, which are as ordinary in a text as its words; but </s>,
# which ends a line through text in HTML, ends every text elsewhere.
_HTML_TAG = re.compile(
    r"<s>|</?(?:table|caption|colgroup|col|thead|tbody|tfoot|tr|th|td|h[1-6]|blockquote|strong|em|b|"
    r"i|u|sub|sup|code|pre|p|br|a|ul|ol|li|dl|dt|dd|body|head|header|footer|div|span|img|html|"
    r"iframe)>"
)


def is_control(added_token: Mapping[str, Any]) -> bool:
    """Whether an added token steers the model: marked special, or spelled <so> or [so].

    A tag of HTML that is not marked does not.
    """
    content = added_token["content"]
    bracketed = re.fullmatch(r"<.*>|\[.*\]", content, re.DOTALL) is not None
    return added_token["special"] or (bracketed and not _HTML_TAG.fullmatch(content))
