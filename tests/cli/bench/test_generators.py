"""Generated samples: as long as wanted, with what was planted and no more, every time alike."""

import json
import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infllm.cli.bench.generators import babi
from infllm.cli.bench.generators.base import draw_depths, spread_depth
from infllm.cli.bench.generators.counting import zeta
from infllm.cli.bench.generators.filler import NOISE, Filler, cut, noise, sentences
from infllm.cli.bench.generators.words import distinct_words
from infllm.cli.bench.metrics import score
from infllm.cli.bench.sample import BadSample
from infllm.cli.bench.source import Source
from infllm.cli.bench.suites import data_files, find_tasks, suites
from infllm.cli.errors import InfllmError, UsageError
from infllm.engine.text import TextTokenizer

NAMES = ("river", "stone", "lamp", "garden wall", "harbour", "old mill", "letter", "window")
GENERATED = [
    task.id for tasks in suites().values() for task in tasks.values() if task.generator is not None
]


@pytest.fixture(scope="module")
def tokenizer():
    import tokenizers

    from infllm import presets

    path = presets.builtin("pocket") / "tokenizer.json"
    return TextTokenizer(tokenizers.Tokenizer.from_file(str(path)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A haystack and a file of questions in each format."""
    folder = tmp_path_factory.mktemp("files")
    rng = Random(0)

    def told(count):
        return " ".join(
            f"The {rng.choice(NAMES)} was seen by {rng.choice(NAMES)} number {rng.randrange(99)}."
            for _ in range(count)
        )

    (folder / "haystack.txt").write_text(told(3000).replace(". The", ".\n\nThe", 20))
    passages = [f"Passage {i}. {told(8)}" for i in range(60)]
    qas = [{"question": f"Which is passage {i}?", "answers": [{"text": f"Passage {i}"}] * 2}
           for i in range(60)]  # fmt: skip
    articles = [
        {"paragraphs": [{"context": passages[j], "qas": [qas[j]]} for j in range(i, i + 6)]}
        for i in range(0, 60, 6)
    ]
    (folder / "squad.json").write_text(json.dumps({"data": articles}))
    hotpot = [
        {"question": f"q{i}?", "answer": f"Passage {i}",
         "context": [[f"T{j}", [passages[j]]] for j in range(i, i + 3)]}
        for i in range(0, 60, 3)
    ]  # fmt: skip
    (folder / "hotpotqa.json").write_text(json.dumps(hotpot))
    return folder


@pytest.fixture
def made(tokenizer, files):
    """`made("ruler:vt", 4096)`: samples of a task at some lengths."""

    def make(name, *lengths, count=2, seed=0, **changes):
        (task,) = find_tasks(name)
        qa = getattr(task.generator, "format", "squad")
        values = {
            "tokenizer": tokenizer, "lengths": list(lengths), "count": count, "seed": seed,
            "haystack": files / "haystack.txt", "qa": files / f"{qa}.json", **changes,
        }  # fmt: skip
        return list(task.samples(Source(**values)))

    return make


def tokens(tokenizer, task, sample):
    """Tokens of the prompt with its longest question, of the longest answer, and one for BOS."""
    tail = max(len(tokenizer.encode(turn.tail, inner=True)) for turn in sample.turns)
    head = len(tokenizer.encode(sample.head))
    context = len(tokenizer.encode(sample.context, inner=bool(sample.head)))
    return head + context + tail + task.answer_tokens + 1


@pytest.mark.parametrize("name", GENERATED)
def test_every_task_keeps_its_budget(made, tokenizer, name):
    (task,) = find_tasks(name)
    for sample in made(name, 2048, 16384):
        length = sample.meta["length"]
        used = tokens(tokenizer, task, sample)
        assert 0.99 * length <= used <= length, (sample.id, used)
        assert sample.meta["tokens"] == used - task.answer_tokens - 1


@pytest.mark.parametrize("name", GENERATED)
def test_the_same_seed_gives_the_same_sample(made, name):
    first, second = made(name, 2048), made(name, 2048)
    assert first == second
    assert made(name, 4096, 2048, count=1)[1] == first[0]  # whatever else is made beside it
    assert made(name, 2048, seed=1)[0].context != first[0].context
    assert first[0].context != first[1].context
    assert [sample.id for sample in first] == ["2048-000", "2048-001"]


@pytest.mark.parametrize("name", GENERATED)
def test_a_right_answer_scores_and_a_wrong_one_does_not(made, name):
    (task,) = find_tasks(name)
    for sample in made(name, 2048):
        for turn in sample.turns:
            for official in (False, True):
                joined = ", ".join(turn.references)
                assert score(task, turn, f" {joined}\n", official) == 1.0
                assert score(task, turn, "I cannot say.", official) == 0.0


@pytest.mark.parametrize("name", GENERATED)
def test_a_completion_model_is_asked_in_its_form(made, name):
    (task,) = find_tasks(name)
    (plain,), (other,) = made(name, 2048, count=1), made(name, 2048, count=1, completion=True)
    if task.completion_prompt is None:
        assert plain == other
    else:
        assert other.turns[0].tail.endswith("\nAnswer:")
        assert plain.turns[0].references == other.turns[0].references


@pytest.mark.parametrize(
    ("name", "asked", "planted"),
    [
        ("niah_single_1", 1, 1), ("niah_single_2", 1, 1), ("niah_single_3", 1, 1),
        ("niah_multikey_1", 1, 4), ("niah_multivalue", 4, 4), ("niah_multiquery", 4, 4),
    ],
)  # fmt: skip
def test_needles_are_planted_once(made, name, asked, planted):
    for sample in made(f"ruler:{name}", 4096, count=4):
        (turn,) = sample.turns
        assert len(set(turn.references)) == asked
        assert all(sample.context.count(value) == 1 for value in turn.references)
        found = re.findall(r"special magic \w+ for (\S+) is: (\S+?)\.(?=\s|$)", sample.context)
        assert len(found) == planted
        keys = {key for key, value in found if value in turn.references}
        assert all(key in turn.tail for key in keys)


@pytest.mark.parametrize("name", ["niah_multikey_2", "niah_multikey_3"])
def test_a_haystack_of_needles_repeats_none(made, name):
    (sample,) = made(f"ruler:{name}", 16384, count=1)
    found = re.findall(r"for (\S+) is: (\S+)\.", sample.context)
    assert len(found) > 100
    assert len({key for key, _ in found}) == len({value for _, value in found}) == len(found)
    (value,) = sample.turns[0].references
    (key,) = (key for key, other in found if other == value)
    assert key in sample.turns[0].tail


def test_depths_are_spread(made):
    depths = [sample.meta["depth"] for sample in made("local:passkey", 2048, count=5)]
    for sample, depth in zip(made("local:passkey", 2048, count=5), depths, strict=True):
        at = sample.context.index(sample.turns[0].references[0]) / len(sample.context)
        assert abs(100 * at - depth) < 4
    gaps = sorted(abs(a - b) for i, a in enumerate(depths) for b in depths[:i])
    assert gaps[0] > 10


def test_a_haystack_that_holds_the_answer_is_told(made, files, tmp_path):
    """What is planted must occur as often as planned; a haystack full of it cannot serve."""
    path = tmp_path / "keys.txt"
    path.write_text("".join(f"It is {n} here. " for n in range(10_000, 100_000)))
    (task,) = find_tasks("local:passkey")
    in_text = task.generator.model_copy(update={"haystack": "text"})
    hard = task.model_copy(update={"generator": in_text})
    source = Source(tokenizer=_Characters(), lengths=[1_800_000], count=1, haystack=path)
    (bad,) = hard.samples(source)
    assert isinstance(bad, BadSample)
    assert bad.where == str(path)
    assert "times in it, not 2" in bad.why


class _Characters:
    def encode(self, text, inner=False):
        return range(len(text))


def test_variables_form_one_chain(made):
    (sample,) = made("ruler:vt", 4096, count=1)
    first, *others = sample.turns[0].references
    assert len({first, *others}) == 5
    said = dict(re.findall(r"VAR (\w{5}) = (?:VAR )?(\w{5})", sample.context))
    value = said[first]
    assert value in sample.turns[0].tail
    assert [said[name] for name in others] == [first, *others[:-1]]
    at = [sample.context.index(f"VAR {name} = ") for name in (first, *others)]
    assert at == sorted(at)
    assert sample.head.count("Memorize and track") == 2  # a solved case goes before
    assert value not in sample.head


def test_each_turn_asks_for_another_chain(made):
    (sample,) = made("scbench:vt", 4096, count=1)
    assert len(sample.turns) == 5
    names = [name for turn in sample.turns for name in turn.references]
    assert len(set(names)) == len(names) == 20


def test_common_words_occur_as_often_as_said(made):
    for length, often, seldom in ((2048, 6, 1), (16384, 30, 3)):
        (sample,) = made("ruler:cwe", length, count=1)
        words = re.findall(r"\d+\. (\S+)", sample.context)
        counts = Counter(words)
        assert {w for w, n in counts.items() if n == often} == set(sample.turns[0].references)
        assert set(counts.values()) == {often, seldom}
        numbers = [int(n) for n in re.findall(r"(\d+)\. ", sample.context)]
        assert numbers == list(range(1, len(words) + 1))


def test_frequent_words_are_the_most_frequent(made):
    (sample,) = made("ruler:fwe", 16384, count=1)
    ranked = Counter(sample.context.split()).most_common(5)
    assert ranked[0][0] == "..."
    assert tuple(word for word, _ in ranked[1:4]) == sample.turns[0].references
    assert ranked[3][1] > ranked[4][1]


def test_a_json_object_holds_the_keys_asked_for(made):
    for name, turns in (("local:kv", 1), ("scbench:kv", 5)):
        (sample,) = made(name, 8192, count=1)
        pairs = json.loads(sample.context)
        assert len(sample.turns) == turns
        assert len({turn.tail for turn in sample.turns}) == turns
        for turn in sample.turns:
            (key,) = re.findall(r'"([0-9a-f-]{36})"', turn.tail)
            assert (pairs[key],) == turn.references


def test_numbers_by_rank(made):
    (sample,) = made("scbench:mf", 4096, count=1)
    numbers = sorted(json.loads(sample.context))
    ranks = {"largest": -1, "second largest": -2, "third largest": -3,
             "smallest": 0, "second smallest": 1, "third smallest": 2}  # fmt: skip
    for turn in sample.turns:
        (which,) = re.findall(r"What is the ([\w ]+) number", turn.tail)
        right = numbers[ranks[which]]
        assert turn.references == (str(right),)
        assert numbers.count(right) == 1


def test_strings_by_their_ends(made):
    (sample,) = made("scbench:prefix_suffix", 4096, count=1)
    lines = sample.context.split("\n")
    for turn in sample.turns:
        begin, end = re.findall(r'"(\w{6})"', turn.tail)
        fits = [line for line in lines if line.startswith(begin) and line.endswith(end)]
        assert fits == list(turn.references)
        assert sum(line.startswith(begin) or line.endswith(end) for line in lines) == 1


@pytest.mark.parametrize("name", ["qa_1", "qa_2"])
def test_passages_hold_what_is_asked(made, name):
    for sample in made(f"ruler:{name}", 4096, count=4):
        (turn,) = sample.turns
        assert f"{turn.references[0]}. " in sample.context
        numbers = [int(n) for n in re.findall(r"^Document (\d+):$", sample.context, re.MULTILINE)]
        assert numbers == list(range(1, len(numbers) + 1))
    asked = [sample.turns[0].tail for sample in made(f"ruler:{name}", 4096, count=6)]
    assert len(set(asked)) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "Expecting"), ("[]", "format of squad"), ('{"data": []}', "holds no question"),
     ('{"data": [{"paragraphs": [{"context": 5}]}]}', "format of squad")],
)  # fmt: skip
def test_a_wrong_file_of_questions(made, tmp_path, text, message):
    path = tmp_path / "qa.json"
    path.write_text(text)
    with pytest.raises(InfllmError, match=message) as raised:
        made("ruler:qa_1", 4096, qa=path)
    assert raised.value.code == 3
    with pytest.raises(InfllmError, match="No such file"):
        made("ruler:qa_1", 4096, qa=tmp_path / "none.json")


def test_what_is_missing_is_asked_for(made):
    for name, changes, hint in (
        ("ruler:niah_single_2", {"haystack": None}, "--haystack"),
        ("babilong:qa1", {"haystack": None}, "--haystack"),
        ("ruler:qa_1", {"qa": None}, "--qa"),
        ("ruler:vt", {"lengths": []}, "--len"),
    ):
        with pytest.raises(UsageError) as raised:
            made(name, 2048, **changes)
        assert hint in raised.value.hint
    with pytest.raises(UsageError, match="300 tokens are too few: what must be") as raised:
        made("ruler:niah_multivalue", 300)
    assert "choose a longer --len" in raised.value.hint


def test_files_that_count(files):
    source = Source(haystack=files, qa=files / "squad.json")
    assert data_files(find_tasks("ruler:qa_1")[0], source) == [files / "squad.json"]
    assert data_files(find_tasks("ruler:vt")[0], source) == []
    assert len(data_files(find_tasks("babilong:qa1")[0], source)) == 3


@given(st.integers(0, 3000), st.sampled_from(["noise", "text"]))
def test_filler_is_nearly_as_long_as_wanted(characters, kind):
    filler = noise() if kind == "noise" else sentences("One word. Two or three words! A third one?")
    text = filler.joint.join(filler.take(characters))
    assert characters - 12 <= len(text) <= characters


@given(st.text(st.sampled_from("ab "), max_size=30), st.integers(-2, 30))
def test_a_cut_ends_where_a_word_does(text, characters):
    kept = cut(text, characters)
    assert text.startswith(kept)
    assert len(kept) <= max(characters, 0)
    assert kept == text or text[len(kept)] == " " or kept == ""


@given(st.lists(st.floats(0, 1), max_size=6), st.integers(0, 2000))
def test_all_that_is_hidden_is_there_in_order(depths, characters):
    hidden = [(depth, f"<{i}>") for i, depth in enumerate(sorted(depths))]
    text = Filler([NOISE], " ").hide(hidden, characters)
    assert [int(n) for n in re.findall(r"<(\d+)>", text)] == list(range(len(hidden)))


def test_depths():
    assert {spread_depth(i, 0) for i in range(40)} == {step / 39 for step in range(40)}
    assert draw_depths(Random(0), 40) == [step / 39 for step in range(40)]
    many = draw_depths(Random(0), 100)
    assert many == sorted(many)
    assert len(many) == 100


def test_words_never_run_out():
    words = distinct_words(Random(0))
    taken = [next(words) for _ in range(12_000)]
    assert len(set(taken)) == len(taken)


@pytest.mark.parametrize(("alpha", "value"), [(2.0, 1.6449340668), (3.0, 1.2020569032)])
def test_zeta(alpha, value):
    assert zeta(alpha) == pytest.approx(value, abs=1e-9)


def told_again(facts):
    """Where people and things are after a story, read from its sentences alone."""
    place, holder, trail, gifts = {}, {}, {}, []
    for i, fact in enumerate(facts):
        if found := re.match(rf"(\w+) (?:{'|'.join(babi.MOVES)}) the (\w+)\.", fact):
            place[found[1]] = found[2]
            for thing, who in holder.items():
                if who == found[1]:
                    trail.setdefault(thing, []).append(found[2])
        elif found := re.match(rf"(\w+) (?:{'|'.join(babi.TAKES)}) the (\w+)", fact):
            assert found[2] not in holder
            holder[found[2]] = found[1]
            if found[1] in place:
                before = trail.setdefault(found[2], [])
                assert not before or before[-1] == place[found[1]]
                if not before:
                    before.append(place[found[1]])
        elif found := re.match(rf"(\w+) (?:{'|'.join(babi.DROPS)}) the (\w+)", fact):
            assert holder.pop(found[2]) == found[1]
        elif found := re.match(rf"(\w+) (?:{'|'.join(babi.GIVES)}) the (\w+) to (\w+)\.", fact):
            assert holder[found[2]] == found[1]
            holder[found[2]] = found[3]
            gifts.append((found[1], found[2], found[3], i))
        else:
            raise AssertionError(fact)
    return place, trail, gifts


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**9))
def test_stories_follow_from_their_facts(seed):
    story = babi.where_is_person(Random(seed))
    place, _, _ = told_again(story.facts)
    assert place[re.findall(r"Where is (\w+)\?", story.question)[0]] == story.answer

    story = babi.where_is_thing(Random(seed))
    _, trail, _ = told_again(story.facts)
    assert trail[re.findall(r"the (\w+)\?", story.question)[0]][-1] == story.answer

    story = babi.where_was_thing(Random(seed))
    _, trail, _ = told_again(story.facts)
    thing, after = re.findall(r"the (\w+)", story.question)
    assert trail[thing][-2:] == [story.answer, after]
    assert story.answer != after

    story = babi.who_gave_what(Random(seed))
    _, _, gifts = told_again(story.facts)
    giver, thing, taker, last = gifts[-1]
    assert story.answer in (giver, thing, taker)
    assert story.answer not in story.question
    assert story.last == last


@given(st.integers(0, 10**9))
def test_places_lie_where_the_story_says(seed):
    story = babi.what_lies_where(Random(seed))
    known = set()
    for fact in story.facts:
        a, way, b = re.fullmatch(r"The (\w+) is (\w+) of the (\w+)\.", fact).groups()
        known |= {(a, way, b), (b, babi.DIRECTIONS[way], a)}
    if found := re.fullmatch(r"What is (\w+) of the (\w+)\?", story.question):
        answers = {a for a, way, b in known if (way, b) == found.groups()}
    else:
        middle, way = re.fullmatch(r"What is the (\w+) (\w+) of\?", story.question).groups()
        answers = {b for a, w, b in known if (a, w) == (middle, way)}
    assert answers == {story.answer}
    assert story.answer in story.facts[story.last]
