"""Words, names, numbers and dates that facts are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Draw:
    """Fresh keys and values out of a seeded generator and the words of real books."""

    rng: Random
    words: list[str]
    names: list[str]
    defined: list[tuple[str, str]]  # what sentences of real books define, and the sentences

    def digits(self, low: int = 3, high: int = 7) -> str:
        count = self.rng.randint(low, high)
        return str(self.rng.randint(10 ** (count - 1), 10**count - 1))

    def run_of_digits(self) -> str:
        return str(self.rng.randint(0, 9)) * self.rng.choice([1, 1, 1, 2, 2, 3, 4])

    def hexadecimal(self, *groups: int) -> str:
        """Groups of random hexadecimal digits: hexadecimal(8, 4) is like "3f9a2c71-b04e"."""
        return "-".join("".join(self.rng.choices("0123456789abcdef", k=n)) for n in groups)

    def word(self) -> str:
        return self.rng.choice(self.words)

    def invented(self) -> str:
        """A name that no book holds, such as "Velmora"."""
        rng = self.rng
        body = "".join(rng.choice(_MIDDLES) + rng.choice(_JOINTS) for _ in range(rng.randint(1, 2)))
        return rng.choice(_STARTS) + body + rng.choice(_ENDS)

    def name(self) -> str:
        return self.invented() if self.rng.random() < 0.4 else self.rng.choice(self.names)

    def person(self) -> str:
        if self.rng.random() < 0.15:
            return f"{self.rng.choice(['Dr.', 'Mr.', 'Mrs.', 'Captain'])} {self.name()}"
        return f"{self.name()} {self.name()}"

    def year(self) -> str:
        return str(self.rng.randint(1500, 2030))

    def date(self) -> str:
        day, month = self.rng.randint(1, 28), self.rng.choice(_MONTHS)
        if self.rng.random() < 0.5:
            return f"{day} {month} {self.year()}"
        return f"{month} {day}, {self.year()}"

    def time(self) -> str:
        return f"{self.rng.randint(1, 12)}:{self.rng.randint(0, 59):02d}"

    def amount(self) -> str:
        number = f"{self.rng.randint(1, 999)},{self.rng.randint(0, 999):03d}"
        form = self.rng.choice(["${}", "{} dollars", "{} pounds", "{} euros", "{}", "${} million"])
        return form.format(number if self.rng.random() < 0.5 else self.rng.randint(2, 999))

    def code(self) -> str:
        letters = "".join(self.rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(2))
        return f"{letters}-{self.digits(2, 4)}"

    def thing(self) -> str:
        """What a fact is about, without article: "north gate", "Velmora depot", "old iron pump"."""
        shape = self.rng.random()
        if shape < 0.45:
            return f"{self.word()} {self.rng.choice(_PLACES)}"
        if shape < 0.65:
            return f"{self.rng.choice(_SIDES)} {self.rng.choice(_PLACES)}"
        if shape < 0.85:
            return f"{self.name()} {self.rng.choice(_PLACES)}"
        return f"{self.word()} {self.word()}"

    def attribute(self) -> str:
        """What is said of a thing: "access code", "locker number", "barrel number"."""
        if self.rng.random() < 0.65:
            return self.rng.choice(_ATTRIBUTES)
        return f"{self.word()} {self.rng.choice(['code', 'number', 'key', 'count', 'mark'])}"

    def magic_key(self) -> str:
        return f"{self.word()}-{self.word()}" if self.rng.random() < 0.7 else self.word()

    def value(self) -> str:
        kinds: list[Callable[[], str]] = [self.digits] * 6 + [self.code, self.word, self.amount]
        return self.rng.choice(kinds)()


# Parts of invented names.
_STARTS = [
    "B", "C", "D", "F", "G", "H", "K", "L", "M", "N", "P", "R", "S", "T", "V", "W", "Br", "Cl",
    "Dr", "Fr", "Gr", "Pl", "St", "Tr",
]  # fmt: skip
_MIDDLES = [
    "a", "e", "i", "o", "u", "ar", "el", "in", "or", "an",
]  # fmt: skip
_JOINTS = [
    "b", "d", "l", "m", "n", "r", "s", "t", "v", "nd", "rt", "lm",
]  # fmt: skip
_ENDS = [
    "a", "en", "ia", "in", "is", "o", "on", "or", "ton", "ville", "wick", "ford", "ley",
]  # fmt: skip
_MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
]  # fmt: skip
_SIDES = [
    "north", "south", "east", "west", "upper", "lower", "old", "new", "main", "back", "front",
    "inner", "outer", "left", "right",
]  # fmt: skip
_PLACES = [
    "gate", "store", "tower", "room", "office", "hall", "station", "bridge", "depot", "cellar",
    "harbour", "school", "mill", "house", "door", "vault", "wing", "garden", "library",
    "laboratory", "workshop", "warehouse", "building", "camp", "farm", "garage", "floor",
    "factory", "hotel", "museum", "archive", "kitchen", "chapel", "ship", "safe", "cabinet",
    "project", "team", "site",
]  # fmt: skip
_ATTRIBUTES = [
    "access code", "pass code", "serial number", "room number", "account number", "door code",
    "locker number", "phone number", "pin", "order number", "badge number", "batch number",
    "licence number", "reference number", "ticket number", "combination", "password", "key",
    "code", "number", "secret number", "security code", "identifier", "entry code", "call sign",
]  # fmt: skip
