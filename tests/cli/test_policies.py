"""Policies as `--policy` names them."""

import pytest

from infllm.cli.errors import UsageError
from infllm.cli.tasks.policies import (
    memory_policy,
    parse_policies,
    reads_back,
    session_overrides,
)
from infllm.engine.config import load_config
from infllm.engine.errors import ConfigError


@pytest.fixture(scope="module")
def config():
    return load_config("pocket", environ={})


def test_names_and_their_other_spellings(config):
    assert parse_policies(None, config) == ["inf-llm"]
    assert parse_policies("stream_llm,sir-llm, origin,origin", config) == [
        "stream-lm",
        "sirllm",
        "origin",
    ]


def test_settings_follow_a_name(config):
    [name] = parse_policies("infinite_lm:middle_topk=5:far_distance=L", config)
    assert name == "infinite-lm:middle_topk=5:far_distance=L"
    assert memory_policy(name) == "infinite-lm"
    assert session_overrides(name) == {
        "type": "infinite-lm",
        "middle_topk": 5,
        "far_distance": "L",
    }
    assert config.with_overrides(session_overrides(name)).model.middle_topk == 5


def test_one_policy_stands_beside_itself_with_other_settings(config):
    text = "inf-llm,inf-llm:topk=8,inf-llm:topk=8+read-back"
    names = parse_policies(text, config, asked=True)
    assert names == text.split(",")
    assert [reads_back(name) for name in names] == [False, False, True]
    assert [session_overrides(name).get("topk") for name in names] == [None, 8, 8]
    assert {memory_policy(name) for name in names} == {"inf-llm"}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("inflm", "unknown policy 'inflm'", "did you mean 'inf-llm'?"),
        ("inf-llm:topk", "--policy 'topk' is not KEY=VALUE", "model.topk=32"),
        ("sirllm:decoy=1", "unknown setting 'decoy' of sirllm", "did you mean 'decay'?"),
        ("inf-llm:path=/m", "unknown setting 'path' of inf-llm", "known: "),
        ("inf-llm:weights=int8", "unknown setting 'weights' of inf-llm", "known: "),
        ("inf-llm:type=origin", "unknown setting 'type' of inf-llm", "did you mean"),
        ("origin+read-back", "'origin+read-back' is no policy here", "leave +read-back out"),
        (",", "--policy names no policy", "known: "),
    ],
)
def test_what_is_no_policy_is_refused_by_name(config, text, message, hint):
    with pytest.raises(UsageError) as raised:
        parse_policies(text, config, asked=True)
    assert str(raised.value) == message
    assert hint in raised.value.hint


def test_reading_back_is_refused_where_no_question_is_answered(config):
    with pytest.raises(UsageError, match=r"'inf-llm\+read-back' is no policy here"):
        parse_policies("inf-llm+read-back", config)


def test_a_wrong_value_is_told_with_its_origin(config):
    with pytest.raises(ConfigError, match=r"model\.topk: 0 .*--policy"):
        parse_policies("inf-llm:topk=0", config)
