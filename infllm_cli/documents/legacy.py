"""Text in an encoding that nothing names: which one, by what reads like words."""

from __future__ import annotations

import re
from itertools import islice

import webencodings
from chardetng_py import EncodingDetector

from infllm.cli.documents.words import words

SAMPLE_BYTES = 1 << 20  # of lines with bytes above ASCII: a sixth of a second
JUDGED_CHARS = 1 << 16

HIGH_RUN = re.compile(rb"[\x80-\xff]+")
# A well-formed character of UTF-8, or in the group, a byte that belongs to none.
UTF8_OR_STRAY = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    rb"|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}"
    rb"|\xf4[\x80-\x8f][\x80-\xbf]{2}|([\x80-\xff])"
)
# Signs that follow no letter: with it they are a UTF-8 character that was cut.
CUT = re.compile("[^\\W\\d_][^\\w’”…»–—™]")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()
MENDED_BYTES = 1 << 16
STRAY_WORDS = 1000
KNOWN_RUNS = 1 << 16
SINGLE_BYTES = 3  # letters above ASCII that stand together in a western language, at most

# What Python's codec lacks of the encoding that the web means by the name.
LARGER = {"gbk": ("gb18030",), "euc-jp": ("euc_jp", "euc_jis_2004")}

LATIN = words(
    """windows-1250 windows-1252 windows-1254 windows-1257 iso-8859-2 iso-8859-3 iso-8859-4
    iso-8859-10 iso-8859-13 iso-8859-14 iso-8859-15 iso-8859-16"""
)
CYRILLIC = words("windows-1251 koi8-u koi8-r ibm866 iso-8859-5 x-mac-cyrillic")
# Hardly ever found: a few letters are no proof of them.
RARE = words("iso-8859-3 iso-8859-4 iso-8859-10 iso-8859-13 iso-8859-14 iso-8859-16")
RARE_RUNS = 8
# Of old Macs and of DOS; the detector, made for the web, knows none of them.
OLD_LATIN = ("mac_roman", "cp850", "cp437")
OLD_CYRILLIC = ("mac_cyrillic", "cp866", "koi8_r", "iso8859_5", "cp1251")

# What a wrong encoding makes of words: a capital or a sign inside them, frames, unassigned bytes.
ODD = re.compile(
    r"""(?<=[^\W\d_])(?:[\x80-\x9f\ufffd\u2020-\u2022\u201a\u201e\u2500-\u259f¡¿]
        |[¢-ª¬®-´¶¸-º¼-¾“”‹›€™‰∂-⋿¨˜ˆ˚¯„](?=[^\W\d_]))
        |[\u2500-\u259f](?=[^\W\d_])
        |(?<=[a-zß-öø-ÿа-яё])[À-ÖØ-ÞŠŽŒŸА-ЯЁЂ-Џ]
        |(?<=[A-Z])[à-öø-ÿ](?=[A-Z])|\b[à-öø-ÿ](?=[A-Z]{2})""",
    re.VERBOSE,
)
HIGH_LETTER_IN_WORD = re.compile(r"[^\W\d_][^\W\d_\x00-\x7f]|[^\W\d_\x00-\x7f][^\W\d_]")
# Letters and quotation marks of western and Russian prose: most of what the right reading gives.
COMMON = re.compile("[äöüßéèêëàâçåøæñóíïîìòúùáãôûœÄÖÜÉÈÀÇÅØÆÑÓÍÚÁðþýÐÞÝ„“”‘’«»–—…А-яёЁ]")
COMMON_SHARE = 0.7
HIGH = re.compile(r"[^\x00-\x7f]+")
# One or two characters of another script inside a word of Latin letters.
EMBEDDED = re.compile(r"(?<=[a-z])[^\x00-\u024f]{1,2}(?=[a-z])")
# Quotation marks and turned marks of windows-1252, which iso-8859-2 has letters for.
MARKS = re.compile(rb"[\xab\xbb]|[\xa1\xbf](?=[A-Z])")
ODD_RATIO = 4  # an old encoding is taken where it leaves so many times fewer odd places

WESTERN_WORD = re.compile(
    r"""\b(?:het|een|van|niet|voor|met|zijn|wordt|der|und|den|das|ist|nicht|mit|für|les|des|est|une
    |pour|dans|que|el|los|las|por|con|para|della|di|che|non|per|og|och|ikke|att|som|det|av|er|til
    |not|the|of|and|amb|els|és)\b""",
    re.IGNORECASE | re.VERBOSE,
)
EASTERN_WORD = re.compile(
    r"""\b(?:w|z|nie|jest|oraz|je|se|v|pro|ne|si|sa|za|ako|alebo|nu|cu|din|este|sau|pe|pentru|care
    |ali|koji|ili|kao|da|az|egy|nem|hogy|vagy|ir|ar|kad|bez|un|bir|ve|bu|ile|na|do|ja|ei|o|u|k)\b""",
    re.IGNORECASE | re.VERBOSE,
)

HIGH_LETTER = re.compile(r"[^\W\d_\x00-\x7f]")
ICELANDIC_LETTERS = frozenset("áðéíóúýþæöÁÐÉÍÓÚÝÞÆÖ")
CROATIAN_LETTERS = frozenset("čćđšžČĆĐŠŽ")
BALTIC_LETTERS = frozenset("ąčęėįšųūžāēģīķļņäöõüĄČĘĖĮŠŲŪŽĀĒĢĪĶĻŅÄÖÕÜ")
HUNGARIAN_LETTERS = frozenset("áéíóöőúüűÁÉÍÓÖŐÚÜŰ")
HUNGARIAN_WORD = re.compile(
    r"\b(?:az|és|hogy|nem|egy|meg|ez|volt|csak|mint|már|van|vagy|kell|lesz|sem|még|után|ki)\b",
    re.IGNORECASE,
)


def web_codecs(label: str) -> tuple[str, ...]:
    """Python's codecs for what the web means by an encoding's label, the first one first.

    Nothing for a label that the WHATWG Encoding standard does not know or does not decode.
    """
    found = webencodings.lookup(label)
    if found is None or found.name in ("replacement", "x-user-defined"):
        return ()
    return LARGER.get(found.name, (found.codec_info.name,))


def decode_by(data: bytes, encodings: tuple[str, ...]) -> tuple[str, int]:
    """Text, and how many characters of it are damaged, in the first encoding that fits."""
    for encoding in encodings:
        try:
            return data.decode(encoding), 0
        except UnicodeDecodeError:
            continue
    text = data.decode(encodings[0], errors="replace")
    return text, text.count("\N{REPLACEMENT CHARACTER}")


def decode_mixed(data: bytes, first: int) -> tuple[str, str] | None:
    """UTF-8 in which a few bytes are something else, with a warning; None for any other text.

    ``first``: offset of the first byte that is not UTF-8.
    """
    good = bad = runs = 0
    alone = True  # every stray byte stands between ASCII, as a letter of a western language does
    begin = max(0, first - JUDGED_CHARS)
    for run in HIGH_RUN.finditer(data, begin, first + 4 * JUDGED_CHARS):
        strays = [match[1] is not None for match in UTF8_OR_STRAY.finditer(run[0])]
        good += strays.count(False)
        bad += strays.count(True)
        runs += any(strays)
        alone = alone and (all(strays) or not any(strays))
    if not good or not (good >= 4 * bad or (alone and good >= runs)):
        return None
    return _mend(data)


def _mend(data: bytes) -> tuple[str, str]:
    mender = _Mender(_stray_encoding(data))
    pieces: list[str] = []
    begin = 0
    while begin < len(data):
        end = begin + MENDED_BYTES
        while end < len(data) and data[end] >= 0x80:
            end += 1
        piece = data[begin:end]
        try:
            pieces.append(piece.decode("utf-8"))
        except UnicodeDecodeError:
            pieces.append(mender.mend(piece))
        begin = end
    said = []
    if mender.mended:
        said.append(f"{mender.mended} bytes are not UTF-8; read as {mender.name}, which is a guess")
    if mender.damaged:
        said.append(f"{mender.damaged} characters are damaged (utf-8 with wrong bytes)")
    return "".join(pieces), "; ".join(said)


def _stray_encoding(data: bytes) -> str:
    """Encoding of the bytes that are not UTF-8: a western one unless whole words speak against."""
    words = (run[0] for run in HIGH_RUN.finditer(data) if len(run[0]) > SINGLE_BYTES)
    strays = (word for word in words if all(m[1] for m in UTF8_OR_STRAY.finditer(word)))
    sample = b" ".join(islice(strays, STRAY_WORDS))
    return _detect(sample) if sample else "windows-1252"


class _Mender:
    """Decodes UTF-8 with stray bytes, and counts what it read otherwise and what is damaged."""

    def __init__(self, name: str):
        self.name = name
        self.encodings = web_codecs(name)
        self.mended = 0
        self.damaged = 0
        self._known: dict[tuple[bytes, bool], tuple[str, int, int]] = {}

    def mend(self, piece: bytes) -> str:
        pieces: list[str] = []
        begin = 0
        for run in HIGH_RUN.finditer(piece):
            start, end = run.span()
            pieces.append(piece[begin:start].decode("ascii"))
            key = run[0], piece[start - 1 : start].isupper()
            known = self._known.get(key)
            if known is None:
                known = self._run(*key)
                if len(self._known) < KNOWN_RUNS:
                    self._known[key] = known
            text, mended, damaged = known
            pieces.append(text)
            self.mended += mended
            self.damaged += damaged
            begin = end
        pieces.append(piece[begin:].decode("ascii"))
        return "".join(pieces)

    def _run(self, run: bytes, among_capitals: bool) -> tuple[str, int, int]:
        """Text of bytes above ASCII, how many of them were read otherwise, how many damaged."""
        if all(match[1] for match in UTF8_OR_STRAY.finditer(run)):
            # Half of a UTF-8 letter looks like a capital A with a tilde, found among capitals.
            half = run in (b"\xc2", b"\xc3") and not among_capitals
            if self.name != "windows-1252" or not (half or run[0] >= 0xFE):
                text, broken = decode_by(run, self.encodings)
                if not broken and not CUT.search(text):
                    return text, len(run), 0
        kept = UTF8_OR_STRAY.sub(lambda m: REPLACEMENT if m[1] else m[0], run)
        return kept.decode("utf-8"), 0, kept.count(REPLACEMENT)


def decode_legacy(data: bytes) -> tuple[str, str]:
    """Text, and the warning that says which encoding was guessed."""
    name = guess(data)
    text, broken = decode_by(data, web_codecs(name) or (name,))
    damage = f"; {broken} characters are damaged" if broken else ""
    return text, f"not UTF-8; read as {name}, which is a guess{damage}"


def guess(data: bytes) -> str:
    """Name of the encoding in which the lines with bytes above ASCII read most like words."""
    sample = _sample(data)
    name = _detect(sample)
    if name in CYRILLIC:
        return _older(sample, name, OLD_CYRILLIC)
    text = _judged(sample, name)
    if name not in LATIN:
        embedded = len(EMBEDDED.findall(text)) * 2 > len(HIGH.findall(text))
        return _older(sample, "windows-1252", OLD_LATIN) if embedded else name
    if _is_baltic(sample):
        return "windows-1257"
    if name == "windows-1252":
        return "windows-1250" if _is_hungarian(sample) else _older(sample, name, OLD_LATIN)
    signs_only = not HIGH_LETTER_IN_WORD.search(text)
    rare = name in RARE and len(HIGH.findall(text)) < RARE_RUNS
    if (
        signs_only
        or rare
        or _is_western(text)
        or _detect(MARKS.sub(b" ", sample)) == "windows-1252"
    ):
        name = "windows-1252"
    return _older(sample, name, OLD_LATIN)


def _detect(sample: bytes) -> str:
    detector = EncodingDetector()
    detector.feed(sample, last=True)
    return str(detector.guess(tld=None, allow_utf8=False)).lower()


def _sample(data: bytes) -> bytes:
    lines: list[bytes] = []
    size = begin = 0
    while begin < len(data) and size < SAMPLE_BYTES:
        end = data.find(b"\n", begin) + 1 or len(data)
        line = data[begin : min(end, begin + SAMPLE_BYTES)]
        if not line.isascii():
            lines.append(line)
            size += len(line)
        begin += len(line)
    return b"".join(lines)


def _judged(sample: bytes, name: str) -> str:
    encoding = (web_codecs(name) or (name,))[0]
    return sample[:JUDGED_CHARS].decode(encoding, errors="replace")


def _older(sample: bytes, name: str, others: tuple[str, ...]) -> str:
    """``name``, or one of ``others`` where that makes far better words of the sample."""
    odd = len(ODD.findall(_judged(sample, name)))
    if not odd:
        return name
    ranks = {}
    for other in others:
        text = _judged(sample, other)
        common = len(COMMON.findall(text))
        if common > COMMON_SHARE * sum(map(len, HIGH.findall(text))):
            ranks[other] = len(ODD.findall(text)), -common
    best = min(ranks, key=lambda other: ranks[other], default=name)
    return best if best != name and ranks[best][0] * ODD_RATIO < odd else name


def _is_western(text: str) -> bool:
    """Whether the small words, which are ASCII, are those of languages that windows-1252 writes."""
    western = len(WESTERN_WORD.findall(text))
    return western >= 3 and western > 2 * len(EASTERN_WORD.findall(text))


def _is_baltic(sample: bytes) -> bool:
    """Lithuanian, Latvian and Estonian write š and ž where Icelandic has its own two letters."""
    western = set(HIGH_LETTER.findall(_judged(sample, "windows-1252")))
    if not western & set("ðþÐÞ") or western <= ICELANDIC_LETTERS:
        return False
    if set(HIGH_LETTER.findall(_judged(sample, "windows-1250"))) <= CROATIAN_LETTERS:
        return False
    text = _judged(sample, "windows-1257")
    return (
        "\N{REPLACEMENT CHARACTER}" not in text and set(HIGH_LETTER.findall(text)) <= BALTIC_LETTERS
    )


def _is_hungarian(sample: bytes) -> bool:
    """Hungarian has no letter that windows-1252 lacks but ő and ű, which it reads as õ and û."""
    text = _judged(sample, "windows-1250")
    letters = set(HIGH_LETTER.findall(text))
    if not letters <= HUNGARIAN_LETTERS or not letters & set("őűŐŰ"):
        return False
    only_there = letters & set("öÖ") and letters & set("áíóúÁÍÓÚ")
    return bool(only_there) or len(HUNGARIAN_WORD.findall(text)) >= 2
