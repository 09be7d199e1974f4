"""Two examinations side by side."""

import json

import pytest

from training.compare import rows_of, table


def write(path, policy, score, low, high):
    skills = {"passkey": {"score": score, "interval": [low, high]}}
    path.write_text(json.dumps({"rows": [{"length": 4096, "policy": policy, "skills": skills}]}))
    return rows_of(path)


def test_intervals_that_meet_and_that_do_not(tmp_path):
    one = write(tmp_path / "1", "inf-llm", 0.9, 0.8, 0.95)
    near = write(tmp_path / "2", "inf-llm", 0.7, 0.6, 0.8)
    far = write(tmp_path / "3", "inf-llm", 0.5, 0.4, 0.7)
    assert "| passkey | 90% / 70% |\n\n1 of 1 pairs" in table(one, near)
    assert "0 of 1 pairs" in table(one, far)
    with pytest.raises(ValueError, match="no length and policy in common"):
        table(one, write(tmp_path / "4", "origin", 0.9, 0.8, 1.0))
