"""Scorers: what the suites define, where theirs and ours differ, and that no answer breaks one."""

import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infllm.cli.bench.choices import choice_letter, right_choice
from infllm.cli.bench.metrics import METRICS, check_options, score
from infllm.cli.bench.overlap import f1, official_rouge_l, rouge_l
from infllm.cli.bench.sample import Turn
from infllm.cli.bench.suites import find_tasks, suites

PLACES = ["bathroom", "bedroom", "garden", "hallway", "kitchen", "office"]


def task_of(metric, **options):
    """Some task, with another metric."""
    (task,) = find_tasks("local:kv")
    return task.model_copy(update={"metric": metric, "metric_options": options})


def both(metric, answer, *references, options=None, **extra):
    """Score of ours and of the official scorer."""
    task, turn = task_of(metric, **(options or {})), Turn("", references, extra)
    return round(score(task, turn, answer), 3), round(score(task, turn, answer, True), 3)


# One line for each difference that the README lists, and for what both agree on.
CASES = [
    # question answering
    ("qa_f1", "the Peyton house", ["Peyton"], (0.667, 0.667)),
    ("qa_f1", "Peyton", ["nobody", "Peyton"], (1, 1)),
    ("qa_f1", "The A", ["the a"], (1, 0)),
    ("qa_f1", "the", ["a"], (0, 0)),
    ("qa_f1_zh", "他住在北京。", ["北京"], (0.4, 0.4)),
    ("qa_f1_zh", "《无限》", ["《无限》"], (1, 1)),
    ("qa_f1_characters", "北京市", ["北京"], (0.8, 0.8)),
    ("qa_f1_characters", "《", ["《无限》"], (0, 0.5)),
    # summaries
    ("rouge_l", "the cat sat", ["the cat sat"], (1, 1)),
    ("rouge_l", "cat, cat", ["Cat cat"], (1, 0.5)),
    ("rouge_l", "so so so so", ["so"], (0.4, 1)),
    ("rouge_lsum", "one two\nthree", ["three\none two"], (1, 1)),
    ("rouge_l_zh", "他在北京工作", ["他在北京工作"], (1, 1)),
    # counts and paragraphs
    ("share_of_numbers", "Paragraph 12", ["Paragraph 12"], (1, 1)),
    ("share_of_numbers", "3 of 12", ["Paragraph 12"], (0.5, 0.5)),
    ("share_of_numbers", "none", ["7"], (0, 0)),
    # code
    ("code_sim", "```python\n\nx = 1\n```", ["x = 1"], (1, 0)),
    ("code_sim", "url = 'http://a'", ["url = 'http://a'"], (1, 0)),
    ("code_sim", "# so\nx = 1", ["x = 1"], (1, 1)),
    ("code_sim", "#include <a.h>", ["#include <a.h>"], (1, 0)),
    ("code_sim", "# only\n// comments", ["x"], (0, 0)),
    # RULER
    ("string_match_all", "12 and 34", ["12", "34", "56"], (0.667, 0.667)),
    ("string_match_all", "artist, party", ["art"], (0, 1)),
    ("string_match_part", "In PARIS.", ["Paris", "London"], (1, 1)),
    ("string_match_part", "Parisian", ["Paris"], (0, 1)),
    # InfiniteBench
    ("first_number", "The key is 12345, not 5.", ["12345"], (1, 1)),
    ("first_number", "Key 1: 12345", ["12345"], (0, 0)),
    ("first_number", "no digits", ["12345"], (0, 0)),
    ("word", '"a1b2-c3"', ["a1b2-c3"], (1, 1)),
    ("word", "a1b2-c34", ["a1b2-c3"], (0, 0)),
    ("last_integer", "It returns **-5**", ["-5"], (1, 0)),
    ("last_integer", "It is 7. The return value is:", ["7"], (1, 0)),
    ("last_integer", "7", ["7"], (1, 1)),
    ("last_integer", "nothing", ["7"], (0, 0)),
    ("first_value", "-3", ["-3"], (1, 0)),
    ("first_value", "3.5 is it", ["3.5"], (1, 1)),
    ("first_value", "3.7", ["3"], (0, 0)),
    ("first_value", "1,024", ["1024"], (1, 0)),
    ("values_in_order", "[1, -2, 3]", ["1", "-2", "3"], (1, 0.333)),
    ("values_in_order", "[1, 5, 3]", ["1", "2", "3"], (0.333, 0.333)),
    ("name", "It is the Oil Man.", ["OIL MAN"], (1, 0)),
    ("name", "Rothstein", ["ACE", "ROTHSTEIN"], (1, 0)),
    ("name", "Ace.", ["ACE"], (1, 1)),
    ("book_choice", " (D).", ["All", "D"], (1, 0)),
    ("book_choice", "Darcy did", ["All", "D"], (0, 1)),
    ("book_choice", "So the answer is B.", ["All", "B"], (1, 1)),
    ("book_choice", "B. All", ["All", "B"], (1, 1)),
    ("code_choice", " A", ["f", "A"], (1, 0)),
    ("code_choice", "A. f\nB. g\nC. h", ["f", "A"], (0, 1)),
    ("code_choice", "B. g", ["g", "B"], (1, 1)),
    # LongBench v2
    ("choice", "The correct answer is (C)", ["C"], (1, 1)),
    ("choice", "**The correct answer is C**", ["C"], (1, 1)),
    ("choice", "(C) because it says so", ["C"], (1, 0)),
    ("choice", "I do not know.", ["C"], (0, 0)),
    ("exact", "Rain.\nAnd more", ["rain"], (1, 1)),
]


@pytest.mark.parametrize(("metric", "answer", "references", "scores"), CASES)
def test_scores(metric, answer, references, scores):
    assert both(metric, answer, *references) == scores


def test_every_metric_has_a_case():
    assert {case[0] for case in CASES} | {"classification", "only_label"} == set(METRICS)


@pytest.mark.parametrize(
    ("answer", "scores"),
    [
        ("A B C", (1, 0.5)),  # the official list loses its place when a name is taken out
        ("A B C\nD", (0.5, 0.333)),
        ("D", (0, 0)),
        ("none", (0, 0)),
    ],
)
def test_classes(answer, scores):
    classes = ["A", "A B", "A B C", "D"]
    assert both("classification", answer, "A B C", all_classes=classes) == scores


def test_a_longer_class_is_not_the_one_within_it():
    assert both("classification", "Human group", "Human",
                all_classes=["Human", "Human group"]) == (0, 0.5)  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "scores"),
    [
        ("The most recent location of Mary is kitchen.", (1, 1)),
        ("kitchen\nQuestion: Where is John?\nAnswer: office", (1, 0)),
        ("kitchen or office", (0, 0)),
        ("kitchenette", (0, 1)),
        ("bathroom", (0, 0)),
    ],
)
def test_labels(answer, scores):
    assert both("only_label", answer, "kitchen", question="Where is Mary?",
                options={"labels": PLACES}) == scores  # fmt: skip


def test_labels_of_the_question_do_not_count():
    asked = {"question": "Where was the apple before the office?", "options": {"labels": PLACES}}
    answer = "Before the office the apple was in the garden."
    assert both("only_label", answer, "garden", **asked) == (1, 1)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("(B)", "B"), ("**B**", "B"), ("B. Because C fails", "B"), (": B\n", "B"),
        ("The answer is B, since C", "B"), ("Answer: (B)", "B"), ("Option B", "B"),
        ("At first A. But the correct option is B.", "B"), ("I would choose B", "B"),
        ("B\n\nQuestion: What?\nA. x", "B"), ("A man came", None), ("Bob", None), ("", None),
        ("A or B", None), ("the answer is a mess", None), ("It's B's", None),
        ("A. x\nB. y\nThe answer is:\nB", "B"), ("A is right", "A"),
    ],
)  # fmt: skip
def test_letters(answer, letter):
    assert choice_letter(answer) == letter


def test_a_choice_may_be_named_by_its_text():
    assert right_choice("all of the above.", ("All of the above", "D")) == 1
    assert right_choice("", ("", "D")) == 0


def test_only_the_first_line_counts_where_a_task_says_so():
    task = task_of("qa_f1", first_line=True)
    assert score(task, Turn("", ("Paris",)), "\nParis\nQuestion: Where is London?") == 1
    assert suites()["longbench"]["trec"].metric_options == {"first_line": True}


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="no metric 'bleu'"):
        check_options("bleu", {})
    with pytest.raises(ValueError, match="takes no 'labels'"):
        check_options("qa_f1", {"labels": []})


def test_importing_scorers_imports_no_library_of_theirs():
    import subprocess

    code = (
        "import sys, infllm.cli.bench.suites;"
        "late = {'rouge_score', 'jieba', 'rapidfuzz', 'pyarrow', 'wonderwords', 'torch', 'nltk'};"
        "bad = late & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


texts = st.one_of(
    st.text(max_size=60),
    st.text("ABCD .:()\n-0123456789", max_size=40),
    st.text("AB《》。，北京 \n", max_size=20),
)


@settings(max_examples=150, deadline=None)
@given(texts, st.sampled_from([t for tasks in suites().values() for t in tasks.values()]))
@example("5:0", suites()["infinitebench"]["math_calc"])
def test_no_answer_breaks_a_scorer(answer, task):
    """One bad answer is one wrong answer: a number from 0 to 1, whatever was said."""
    second = "7" if task.metric == "values_in_order" else "A"  # a sum's results are all numbers
    turn = Turn("", ("5", second), {"all_classes": ["5", "A", "b"], "question": "Where is 5?"})
    for official in (False, True):
        assert 0 <= score(task, turn, answer, official) <= 1


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_f1_is_a_share_and_symmetric(x, y):
    assert 0 <= f1(x, y) <= 1
    assert f1(x, y) == f1(y, x)
    assert f1(x, x) == (1 if x else 0)


@given(st.text("ab .", max_size=30))
def test_a_text_is_like_itself(text):
    expected = 1 if any(c in "ab" for c in text) else 0
    assert rouge_l(text, text) == expected
    if expected:
        assert official_rouge_l(text, text) == pytest.approx(1, abs=1e-6)
