"""Numbers as word processors write them: roman, letters, enclosed, Chinese."""

from __future__ import annotations

ROMAN = (
    (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"),
    (50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"),
)  # fmt: skip
LATIN = "abcdefghijklmnopqrstuvwxyz"
AIUEO = (
    "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲン"
)
IROHA = (
    "イロハニホヘトチリヌルヲワカヨタレソツネナラムウヰノオクヤマケフコエテアサキユメミシヱヒモセス"
)
SERIES = {
    "lowerLetter": LATIN,
    "upperLetter": LATIN.upper(),
    "russianLower": "абвгдежзиклмнопрстуфхцчшщыэюя",
    "russianUpper": "АБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЩЫЭЮЯ",
    "aiueo": AIUEO,
    "aiueoFullWidth": AIUEO,
    "iroha": IROHA,
    "irohaFullWidth": IROHA,
    "ganada": "가나다라마바사아자차카타파하",
    "chosung": "ㄱㄴㄷㄹㅁㅂㅅㅇㅈㅊㅋㅌㅍㅎ",
    "hebrew2": "אבגדהוזחטיכלמנסעפצקרשת",
    "arabicAlpha": "أبتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "arabicAbjad": "أبجدهوزحطيكلمنسعفصقرشتثخذضظغ",
    "thaiLetters": "กขคงจฉชซฌญฎฏฐฑฒณดตถทธนบปผฝพฟภมยรลวศษสหฬอฮ",
    "ideographTraditional": "甲乙丙丁戊己庚辛壬癸",
    "ideographZodiac": "子丑寅卯辰巳午未申酉戌亥",
}
DIGITS = {
    "decimalFullWidth": "０１２３４５６７８９",
    "decimalFullWidth2": "０１２３４５６７８９",
    "hindiNumbers": "०१२३४५६७८९",
    "thaiNumbers": "๐๑๒๓๔๕๖๗๘๙",
    "koreanDigital": "영일이삼사오육칠팔구",
    "koreanDigital2": "零一二三四五六七八九",
    "japaneseDigitalTenThousand": "〇一二三四五六七八九",
    "taiwaneseDigital": "○一二三四五六七八九",
    "ideographDigital": "〇一二三四五六七八九",
}
COUNTED = frozenset(
    {"chineseCounting", "chineseCountingThousand", "japaneseCounting", "taiwaneseCounting",
     "taiwaneseCountingThousand", "koreanCounting", "chineseLegalSimplified"}
)  # fmt: skip
HAN = "〇一二三四五六七八九"
FORMAL_HAN = "零壹贰叁肆伍陆柒捌玖"
MARKS = "*†‡§"
ENCLOSED = {"decimalEnclosedCircle": 0x2460, "decimalEnclosedCircleChinese": 0x2460,
            "decimalEnclosedParen": 0x2474, "decimalEnclosedFullstop": 0x2488}  # fmt: skip


def numeral(number: int, style: str, pattern: str = "") -> str:
    """``number`` in a number format of Office Open XML; in decimal where that is not known.

    ``pattern`` is that of ``custom`` formats, e.g. "001, 002, 003, ...".
    """
    if style == "none":
        return ""
    if style == "custom":
        first = pattern.partition(",")[0].strip()
        return f"{number:0{len(first)}d}" if first.isdecimal() else str(number)
    if style == "decimalZero":
        return f"{number:02d}"
    if style == "numberInDash":
        return f"- {number} -"
    if style == "hex":
        return f"{number:X}"
    if number <= 0:
        return str(number)
    if style in ("lowerRoman", "upperRoman"):
        return _roman(number) if style == "lowerRoman" else _roman(number).upper()
    if style in SERIES:
        letters = SERIES[style]
        return letters[(number - 1) % len(letters)] * min((number - 1) // len(letters) + 1, 30)
    if style == "chicago":
        return MARKS[(number - 1) % 4] * min((number - 1) // 4 + 1, 30)
    if style in DIGITS:
        return str(number).translate({ord(str(d)): DIGITS[style][d] for d in range(10)})
    if style in COUNTED and number < 10_000:
        return _han(number, FORMAL_HAN if "Legal" in style else HAN)
    if style in ENCLOSED and number <= 20:
        return chr(ENCLOSED[style] + number - 1)
    if style in ("ordinal", "ordinalText"):
        tens = 10 < number % 100 < 14
        return f"{number}{'th' if tens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
    return str(number)


def _roman(number: int) -> str:
    if number >= 10_000:
        return str(number)
    text = ""
    for amount, sign in ROMAN:
        text += sign * (number // amount)
        number %= amount
    return text


def _han(number: int, digits: str) -> str:
    units = "拾佰仟" if digits == FORMAL_HAN else "十百千"
    text = ""
    gap = False
    for power in (3, 2, 1, 0):
        digit = number // 10**power % 10
        if not digit:
            gap = bool(text)
            continue
        text += (digits[0] if gap else "") + digits[digit] + (units[power - 1] if power else "")
        gap = False
    return text[1:] if digits == HAN and 10 <= number < 20 else text
