"""Writes field-report.pdf, a fictional survey report to ask questions about, and its answers.

    python examples/make_report.py

The same bytes every time. About forty pages with page labels (i, ii, 1, 2, ...), running heads and
feet, hyphenated lines and a two-level outline. A dozen facts stand in it, each once, in a plain
sentence of its own; field-report.json lists them with a question, the answer and the page.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from reportlab.lib.pagesizes import A5
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfgen.canvas import Canvas

HERE = Path(__file__).parent
TITLE = "Survey of the Northern Stations"
WIDTH, HEIGHT = A5
MARGIN, TOP, BOTTOM = 44, HEIGHT - 52, 50  # points
FONT, SIZE, LEADING = "Times-Roman", 9.6, 12.1
PREFACE_PAGES = 2
SECTIONS = 4  # per chapter
PARAGRAPHS = 7  # per section


@dataclass
class Fact:
    sentence: str
    question: str
    answer: str
    page: str = ""


def code(place: str, answer: str) -> Fact:
    return Fact(
        f"The access code of the {place} store is {answer}.",
        f"What is the access code of the {place} store?",
        answer,
    )


def magic(key: str, answer: str) -> Fact:
    return Fact(
        f"The special magic number for {key} is: {answer}.",
        f"What is the special magic number for {key} mentioned in the provided text?",
        answer,
    )


# In the order of the report. Stores and keys are each other's distractors.
FACTS = [
    code("harbour", "7306"),
    magic("vague-harbor", "4187693"),
    code("south", "2954"),
    Fact(
        "The keeper of the lamp house is Orla Finn.",
        "Who is the keeper of the lamp house?",
        "Orla Finn",
    ),
    magic("quiet-lantern", "9025148"),
    code("north", "4821"),
    Fact("The survey shaft is 137 metres deep.", "How deep is the survey shaft?", "137 metres"),
    magic("amber-ridge", "3360572"),
    code("west", "6178"),
    Fact("The new pier was opened in 1931.", "When was the new pier opened?", "1931"),
    magic("hollow-kestrel", "5714806"),
    code("east", "1439"),
]

CHAPTERS = {
    "The Coast": ["Arrival", "The Landing Place", "Tides and Moorings", "The Harbour Stores"],
    "The Road Inland": ["Surface and Grades", "Bridges", "Milestones", "Winter Closures"],
    "The Lower Stations": ["Buildings", "Water Supply", "Staff and Duties", "Stores in Hand"],
    "The Lamp House": ["Condition", "The Signal Book", "Oil and Wicks", "Proposed Repairs"],
    "The Upper Stations": ["The Climb", "Huts and Shelters", "The North Store", "Weather Records"],
    "The Shaft": ["Sinking and Lining", "Pumps", "Samples", "The Western Level"],
    "The Pier": ["Timber and Iron", "Traffic", "Dues", "Damage by Ice"],
    "Conclusions": ["What Was Found", "Costs", "Recommendations", "The Eastern Route"],
}

# Words that sentences are filled with. {a|b} in a template names a list.
WORDS = {
    "thing": """the retaining wall | the upper path | the old boathouse | the signal mast |
        the drainage ditch | the slate roof | the lower landing | the stone breakwater
        | the telegraph line | the tool shed | the footbridge | the water tank | the
        winding gear | the boundary fence | the reading room""",
    "person": """the surveyor | our guide | the station master | the second engineer | a
        retired pilot | the carpenter | the clerk of stores | one of the boatmen | the
        district nurse | the schoolmaster""",
    "place": """above the inlet | behind the chapel | along the shingle | at the foot of the
        scree | beside the mill stream | on the seaward side | below the second
        terrace | near the crossroads | under the western cliff | at the head of the
        valley""",
    "state": """in fair order | badly weathered | better than we had been told | sound but
        neglected | dry in every season | leaning a little to the east | recently
        limewashed | patched with old canvas | hardly used since the flood | worth
        keeping""",
    "time": """before breakfast | on the second morning | late in the afternoon | after a
        night of rain | during the spring tide | at the end of the week | while the
        fog lasted | as the light failed | between two showers | in the hour before
        noon""",
    "did": """measured | photographed | sketched | inspected | cleared | surveyed | examined
        | described | charted | tested | visited | recorded""",
    "weather": """a cold wind from the sea | thin sunshine | steady drizzle | a sudden hard
        frost | low cloud | the first snow of the season | an unusual warmth | a heavy
        swell | drifting mist | bright still air""",
    "good": """a careful repair would cost little | nothing more need be done this year | the
        timber will last another winter | a second opinion ought to be sought | the
        work can wait until the road is open | local stone would serve perfectly well
        | the earlier estimate was far too low | the present arrangement deserves to
        be continued""",
    "reason": """the ground there has been slipping for years | nobody had kept the gutters
        free | the original drawings were lost | the quarry closed long ago | carts
        can no longer reach it | the sea takes a little more every winter | two
        parishes dispute the boundary | the people here depend on it in the dark
        months""",
    "many": """a score of | several | half a dozen | nearly forty | a great many | no more
        than a few""",
    "items": """oak beams | iron brackets | coils of tarred rope | crates of window glass |
        sacks of lime | lengths of copper pipe | sealed barrels | spare lamps | folded
        tarpaulins | boxes of brass fittings""",
}
SENTENCES = """\
{Time} {person} {did} {thing} {place}, and found it {state}.
{Thing}, which stands {place}, is {state}.
We were told that {good}, because {reason}.
There was {weather} {time}, so that {thing} could not be {did}.
{Person} remembered {thing} as it used to be, and assured us that {good}.
{Many} {items} were lying {place}; {person} had them counted and {did}.
It is the opinion of {person} that {good}.
No damage was seen {place}, although {reason}.
{Thing} was {did} {time} in {weather}.
If {thing} is to be kept, {good}; otherwise {many} {items} might be sold.
On the whole {thing} is {state}, and for that {person} must be thanked.
With {weather} coming in, we left {thing} and spent the remaining hours {place}.
According to {person}, {reason}, and this explains why {thing} is {state}.
{Many} visitors ask about {thing}, yet hardly anyone has {did} it.
Long before the road was made, {thing} had been {did} by {person}.
{Many} {items} turned out to be broken, which surprised {person}.
From there one sees {thing}, and in {weather} even the islands beyond it.
The report of last year says little of {thing}; today it is {state}.
Whoever comes {place} {time} will notice {thing} first.
The store of {items} {place} was looked over by {person} {time}.
""".splitlines()

VOWELS = "aeiouy"


class Prose:
    """Sentences from the templates, no template twice within the last few."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.words = {
            name: [" ".join(w.split()) for w in text.split("|")] for name, text in WORDS.items()
        }
        self.recent: list[str] = []

    def sentence(self) -> str:
        template = self.random.choice([s for s in SENTENCES if s not in self.recent])
        self.recent = [*self.recent[-6:], template]
        values = {name: self.random.choice(choices) for name, choices in self.words.items()}
        capital = {
            name.capitalize(): value[0].upper() + value[1:] for name, value in values.items()
        }
        return template.format(**values, **capital)

    def paragraph(self) -> str:
        return " ".join(self.sentence() for _ in range(self.random.randint(3, 6)))


def hyphenations(word: str) -> Iterator[tuple[str, str]]:
    """Ways to break a plain word between a vowel and a consonant, or two consonants, last first."""
    core = word.rstrip(".,;:")
    if not core.isalpha() or not core.islower():
        return
    for cut in range(len(core) - 3, 2, -1):
        before, after = core[cut - 1] in VOWELS, core[cut] in VOWELS
        pair = not after and (before or core[cut - 2] in VOWELS)
        if pair and core[cut + 1] in VOWELS:
            yield word[:cut] + "-", word[cut:]


def lines(text: str, width: float) -> list[str]:
    """Greedy line breaking with hyphenation."""
    found: list[str] = []
    line = ""
    for word in text.split():
        trial = f"{line} {word}" if line else word
        if stringWidth(trial, FONT, SIZE) <= width:
            line = trial
            continue
        for begin, rest in hyphenations(word):
            trial = f"{line} {begin}"
            if line and stringWidth(trial, FONT, SIZE) <= width:
                found.append(trial)
                line = rest
                break
        else:
            found.append(line)
            line = word
    return [*found, line]


class Report:
    """Pages with running heads and feet; remembers on which page a fact was set."""

    def __init__(self, path: Path):
        self.canvas = Canvas(str(path), pagesize=A5, invariant=1, pageCompression=1)
        self.canvas.setTitle(TITLE)
        self.canvas.addPageLabel(0, style="ROMAN_LOWER", start=1)
        self.canvas.addPageLabel(PREFACE_PAGES, style="ARABIC", start=1)
        self.pages = 0
        self.y = 0.0
        self.chapter = "Preface"

    @property
    def label(self) -> str:
        number = self.pages - PREFACE_PAGES
        return str(number) if number > 0 else "i" * self.pages

    def page(self) -> None:
        if self.pages:
            self.canvas.showPage()
        self.pages += 1
        self.y = TOP
        self.canvas.setFont("Times-Italic", 8)
        left, right = (self.chapter, TITLE) if self.pages % 2 else (TITLE, self.chapter)
        self.canvas.drawString(MARGIN, HEIGHT - 32, left)
        self.canvas.drawRightString(WIDTH - MARGIN, HEIGHT - 32, right)
        self.canvas.drawCentredString(WIDTH / 2, 28, self.label)

    def room(self, needed: int) -> None:
        if self.y - needed * LEADING < BOTTOM:
            self.page()

    def heading(self, text: str, level: int) -> None:
        self.room(4)
        size = (15, 11.5)[level]
        self.y -= size + 4
        self.canvas.bookmarkHorizontal(text, 0, self.y + size)
        self.canvas.addOutlineEntry(text, text, level)
        self.canvas.setFont("Times-Bold", size)
        self.canvas.drawString(MARGIN, self.y, text)
        self.y -= 6

    def paragraph(self, text: str) -> None:
        width = WIDTH - 2 * MARGIN
        broken = lines(text, width)
        for number, line in enumerate(broken):
            self.room(1)
            self.y -= LEADING
            gaps = line.count(" ")
            slack = width - stringWidth(line, FONT, SIZE)
            last = number == len(broken) - 1
            self.canvas.setFont(FONT, SIZE)
            self.canvas.drawString(
                MARGIN, self.y, line, wordSpace=0 if last or not gaps else slack / gaps
            )
        self.y -= 5

    def fact(self, fact: Fact) -> None:
        """On a line of its own, whole."""
        self.room(2)
        fact.page = self.label
        self.paragraph(fact.sentence)


def write(path: Path) -> None:
    prose = Prose(seed=1931)
    report = Report(path)
    report.page()
    report.heading(TITLE, 0)
    for _ in range(PARAGRAPHS):
        report.paragraph(prose.paragraph())
    while report.pages < PREFACE_PAGES:
        report.paragraph(prose.paragraph())
    report.chapter = next(iter(CHAPTERS))
    report.page()
    places = [(chapter, section) for chapter, names in CHAPTERS.items() for section in names]
    holders = prose.random.sample(range(len(places)), len(FACTS))
    facts = dict(zip(sorted(holders), FACTS, strict=True))
    for number, (chapter, section) in enumerate(places):
        if section == CHAPTERS[chapter][0]:
            report.chapter = chapter
            if number:
                report.page()
            report.heading(chapter, 0)
        report.heading(section, 1)
        middle = prose.random.randint(2, PARAGRAPHS - 2)
        for paragraph in range(PARAGRAPHS):
            if paragraph == middle and number in facts:
                report.fact(facts[number])
            report.paragraph(prose.paragraph())
    report.canvas.save()


def main() -> None:
    write(HERE / "field-report.pdf")
    answers = {"document": "field-report.pdf", "facts": [asdict(fact) for fact in FACTS]}
    (HERE / "field-report.json").write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
